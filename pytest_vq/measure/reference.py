"""The FP32 model that every precision of a model is compared with, and whether an answer is fit to be compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor, nn

from pytest_vq.catalog.build import build_source, example_inputs, labelled_images, output_tensor
from pytest_vq.device.device import is_device_trouble
from pytest_vq.device.pinned import pin_storages, release_pinned
from pytest_vq.errors import OutputError, PrecisionError, first_line
from pytest_vq.precision.fidelity import check_output, find_right, measure_fidelity, to_bits
from pytest_vq.schema.figures import Fidelity, present
from pytest_vq.schema.spec import Case, ModelSpec

# An accelerator's FP32 agrees with the CPU's to about 110 dB; TF32 in its place would reach about 56 dB.
_MIN_FP32_SQNR_DB = 75.0
# A coarser precision usually answers this much farther from FP32; where it does not, the reader is told.
_USUALLY_FINER_DB = 3.0


@dataclass(frozen=True, slots=True)
class Judged:
    """How well an output answers, and which labelled images it has right (see ``Record.right_answers``)."""

    fidelity: Fidelity
    right_answers: str | None = None
    note: str | None = None


@dataclass(slots=True)
class Reference:
    """The FP32 source of a model, on the CPU, with its answers."""

    model: ModelSpec
    source: nn.Module
    labelled: tuple[Tensor, Tensor] | None  # images float32 [n, C, H, W] and labels int64 [n]
    _answers: dict[int, Tensor] = field(default_factory=dict)
    _judged: list[tuple[Case, float]] = field(default_factory=list)  # and their SQNR in dB
    _is_pinned: bool = False

    @classmethod
    def of(cls, model: ModelSpec, weights: str) -> Reference:
        """Build or load the FP32 model of ``model``."""
        return cls(model, build_source(model, weights), labelled_images(model))

    def images(self, batch: int) -> Tensor:
        """What fidelity is judged on, float32 [n, C, H, W]: labelled images if there are any, else the timed ones."""
        return self.labelled[0] if self.labelled else example_inputs(self.model, batch)

    def answer(self, batch: int) -> Tensor:
        """The FP32 model's output on ``images``, computed once, on the CPU whatever the device that is measured."""
        if batch not in self._answers:
            what = f"{self.model.name} at fp32"
            images = self.images(batch)
            output = forward(partial(self.source, images), images, what)
            check_output(output, what)
            self._answers[batch] = output
        return self._answers[batch]

    def pin(self) -> None:
        """Put the source where an accelerator copies from fastest, once: every precision is made from a copy of it."""
        if not self._is_pinned:
            self._is_pinned = True  # or not, where the system refuses: then it would refuse again
            release_pinned()
            pin_storages(self.source)

    def judge(self, case: Case, output: Tensor) -> Judged:
        """Fidelity and accuracy of ``output``, what ``case`` answered to ``images``: empty where they mean nothing.

        Raises ``OutputError`` for output that cannot be compared, and ``PrecisionError`` where FP32's gives away that
        it is not FP32.
        """
        expected = self.answer(case.batch)
        check_output(output, case.id, like=expected)
        fidelity = measure_fidelity(expected, output)
        sqnr_db, note = present(fidelity.sqnr_db), None
        if case.scheme.is_reference:
            self._check_fp32(case, sqnr_db)
            fidelity = Fidelity()
        else:
            note = self._note_likeness(case, sqnr_db)
        if self.labelled is None:  # without trained answers, which output is largest says nothing
            return Judged(replace(fidelity, top1_agreement=None), note=note)
        right = find_right(output, self.labelled[1])
        accuracy = float(right.double().mean())
        return Judged(replace(fidelity, accuracy=accuracy, labelled_images=len(right)), to_bits(right), note)

    def _check_fp32(self, case: Case, sqnr_db: float) -> None:
        if sqnr_db < _MIN_FP32_SQNR_DB:
            raise PrecisionError(
                f"{case.id}: only {sqnr_db:.0f} dB from FP32 on the CPU: this is not FP32. "
                "Look for TF32 or autocast, switched on by the model or the environment."
            )

    def _note_likeness(self, case: Case, sqnr_db: float) -> str | None:
        """A note where ``case`` and a precision that it should differ from answer about as close to FP32.

        No error: a tiny layer scale lets two precisions answer alike that store different bytes, and bytes are checked.
        """
        alike = (case.batch, case.scheme.execution)
        self._judged = [(other, db) for other, db in self._judged if other != case] + [(case, sqnr_db)]
        known = {o.precision.name: (o, db) for o, db in self._judged if (o.batch, o.scheme.execution) == alike}
        for coarse, coarse_db in known.values():
            finer = coarse.precision.coarser_than
            if finer is None or finer not in known or case not in (coarse, known[finer][0]):
                continue
            fine, fine_db = known[finer]
            if fine_db - coarse_db < _USUALLY_FINER_DB:
                both = f"{fine.scheme.name} ({fine_db:.1f} dB) and {coarse.scheme.name} ({coarse_db:.1f} dB)"
                return f"{both} answer alike: what they store differs, but little of it reaches this model's output"
        return None


def forward(call: Callable[[], object], images: Tensor, what: str) -> Tensor:
    """The output of ``call`` on ``images``; one that raises is the model's fault, and is said to be (OutputError)."""
    try:
        return output_tensor(call())
    except Exception as error:
        if is_device_trouble(error) or isinstance(error, OutputError):
            raise
        raise OutputError(
            f"{what}: its forward failed on {list(images.shape)} {images.dtype} on {images.device}: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
