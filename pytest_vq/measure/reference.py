"""The FP32 model that every precision of a model is compared with, and whether an answer is fit to be compared."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn

from pytest_vq.catalog.build import build_source, example_inputs, labelled_images, output_tensor
from pytest_vq.device.device import first_line, is_device_trouble
from pytest_vq.errors import OutputError, PrecisionError
from pytest_vq.precision.fidelity import accuracy, check_output, compare
from pytest_vq.schema.spec import Case, ModelSpec

# An accelerator's FP32 agrees with the CPU's to about 110 dB; TF32 in its place would reach about 56 dB.
_MIN_FP32_SQNR_DB = 75.0
# Two quantizing schemes that answer alike are one scheme under two names.
_MIN_INT8_OVER_INT4_DB = 3.0


@dataclass(slots=True)
class Reference:
    """The FP32 source of a model, on the CPU, with its answers."""

    model: ModelSpec
    source: nn.Module
    labelled: tuple[Tensor, Tensor] | None  # images float32 [n, C, H, W] and labels int64 [n]
    _answers: dict[int, Tensor] = field(default_factory=dict)
    _sqnr_db: dict[tuple[int, str], float] = field(default_factory=dict)

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
            output = forward(self.source, self.images(batch), what)
            check_output(output, what)
            self._answers[batch] = output
        return self._answers[batch]

    def columns(self, case: Case, output: Tensor) -> dict[str, Any]:
        """Fidelity and accuracy of ``output``, what ``case`` answered to ``images``: empty where they mean nothing.

        Raises ``OutputError`` for output that cannot be compared, and ``PrecisionError`` where it gives away that the
        scheme is not the one it is called.
        """
        expected = self.answer(case.batch)
        check_output(output, case.id, like=expected)
        fidelity = compare(expected, output)
        columns: dict[str, Any] = asdict(fidelity)
        if case.is_reference:
            self._check_fp32(case, fidelity.sqnr_db)
            columns = dict.fromkeys(columns)
        else:
            self._check_distinct(case, fidelity.sqnr_db)
        if self.labelled is None:  # without trained answers, which output is largest says nothing
            return columns | {"top1_agreement": None, "accuracy": None, "labelled_images": None}
        labels = self.labelled[1]
        return columns | {"accuracy": accuracy(output, labels), "labelled_images": len(labels)}

    def _check_fp32(self, case: Case, sqnr_db: float) -> None:
        if sqnr_db < _MIN_FP32_SQNR_DB:
            raise PrecisionError(
                f"{case.id}: only {sqnr_db:.0f} dB from FP32 on the CPU: this is not FP32. "
                "Look for TF32 or autocast, switched on by the model or the environment."
            )

    def _check_distinct(self, case: Case, sqnr_db: float) -> None:
        self._sqnr_db[case.batch, case.precision.name] = sqnr_db
        int8, int4 = (self._sqnr_db.get((case.batch, name)) for name in ("int8", "int4"))
        if int8 is not None and int4 is not None and int8 - int4 < _MIN_INT8_OVER_INT4_DB:
            raise PrecisionError(
                f"{case.model.name}: int8 ({int8:.1f} dB) and int4 ({int4:.1f} dB) answer alike; int8 must be at least "
                f"{_MIN_INT8_OVER_INT4_DB:.0f} dB closer to FP32. One of them is not the scheme it is called."
            )


def forward(module: nn.Module, images: Tensor, what: str) -> Tensor:
    """The output of ``module``; a forward that raises is the model's fault, and is said to be (``OutputError``)."""
    try:
        return output_tensor(module(images))
    except Exception as error:
        if is_device_trouble(error) or isinstance(error, OutputError):
            raise
        raise OutputError(
            f"{what}: its forward failed on {list(images.shape)} {images.dtype} on {images.device}: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
