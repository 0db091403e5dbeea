"""The FP32 model that every precision of a model is compared with, and whether an answer is fit to be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from pytest_vq.catalog.build import build_source, example_inputs, labelled_images, output_tensor
from pytest_vq.catalog.inputs import ModelInputs, batch_of, bind_inputs, describe_inputs, rows_at_once, split_inputs
from pytest_vq.catalog.output import taken_output
from pytest_vq.device.device import is_device_trouble
from pytest_vq.device.pinned import pin_storages, release_pinned
from pytest_vq.errors import ExecutionError, OutputError, PrecisionError, first_line
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
    labelled: tuple[ModelInputs, Tensor] | None  # inputs of n images, FP32 on the CPU, and labels int64 [n]
    _examples: dict[int, ModelInputs] = field(default_factory=dict)
    _answers: dict[int, Tensor] = field(default_factory=dict)
    _judged: list[tuple[Case, float]] = field(default_factory=list)  # and their SQNR in dB
    _is_pinned: bool = False

    @classmethod
    def of(cls, model: ModelSpec, weights: str) -> Reference:
        """Build or load the FP32 model of ``model``."""
        return cls(model, build_source(model, weights), labelled_images(model))

    def example(self, batch: int) -> ModelInputs:
        """The timed request's inputs, FP32 on the CPU; made once, for a user's function may make others the next time.

        Raises ``RegistrationError`` where that function makes none.
        """
        if batch not in self._examples:
            self._examples[batch] = example_inputs(self.model, batch)
        return self._examples[batch]

    def images(self, batch: int) -> ModelInputs:
        """What fidelity is judged on, FP32 on the CPU: labelled images if there are any, else the timed ones."""
        return self.labelled[0] if self.labelled else self.example(batch)

    def answer(self, batch: int) -> Tensor:
        """The FP32 model's output on ``images``, computed once, on the CPU whatever the device that is measured."""
        if batch not in self._answers:
            output = self.answer_to(self.images(batch), batch)
            self._check_labels(output)
            self._answers[batch] = output
        return self._answers[batch]

    def answer_to(self, inputs: ModelInputs, batch: int = 1) -> Tensor:
        """The FP32 model's output on ``inputs``; where they are many, by parts of no fewer than ``batch``.

        Raises ``OutputError`` where it cannot be compared with.
        """
        what, take = f"{self.model.name} at fp32", partial(taken_output, self.model)
        parts = split_inputs(inputs, max(batch, rows_at_once(inputs)))
        outputs = [forward(bind_inputs(self.source, part), part, what, take) for part in parts]
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        check_output(output, what)
        return output

    def _check_labels(self, output: Tensor) -> None:
        """Refuse labels that ``output``, what FP32 answered to their images, could never be counted right by."""
        if self.labelled is None:
            return
        labels = self.labelled[1]
        if output.dim() != 2:
            raise OutputError(
                f"{self.model.name}: its answer to the labelled images has shape {list(output.shape)}: accuracy needs "
                "logits [n, classes], by output= where the model returns something else"
            )
        if not 0 <= int(labels.min()) <= int(labels.max()) < output.shape[1]:
            raise OutputError(
                f"{self.model.name}: its labels lie between {int(labels.min())} and {int(labels.max())}, its classes "
                f"between 0 and {output.shape[1] - 1}"
            )

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


def forward(
    call: Callable[[], object], inputs: ModelInputs, what: str, take: Callable[[object], Tensor] = output_tensor
) -> Tensor:
    """The output of ``call`` on ``inputs``, by ``take`` of what it returned.

    Raises:
        OutputError: the call or ``take`` raised, which is said to be the model's fault; or the output has not a row for
            each image.
    """
    with _as_output_error(f"{what}: its forward failed on {describe_inputs(inputs)}"):
        answer = call()
    try:
        with _as_output_error(f"no tensor could be taken out of the {type(answer).__name__} that it returned"):
            output = take(answer)
    except OutputError as error:
        raise OutputError(f"{what}: {error}") from error.__cause__
    rows = batch_of(inputs)
    if output.dim() and len(output) != rows:
        raise OutputError(
            f"{what}: the output has shape {list(output.shape)} for {rows} images: return [{rows}, ...], a row an image"
        )
    return output


@contextmanager
def _as_output_error(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if is_device_trouble(error) or isinstance(error, OutputError | ExecutionError):
            raise
        raise OutputError(f"{what}: {type(error).__name__}: {first_line(error)}") from error
