"""What is measured: models, precisions, and the pairs of them. Frozen values; importing this module loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

FP32 = "fp32"  # the reference of every comparison: speedup, memory reduction, fidelity


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model of the catalog, or one of the user's own.

    ``build`` is set for the user's models only; the catalog's are built from the bundled config of ``checkpoint``.
    """

    name: str
    category: str
    architecture: str
    input_shape: tuple[int, int, int]  # channels, height, width; no batch axis
    parameters: int | None  # None until a user's model has been built once
    heads: tuple[str, ...]  # dotted names of the modules (with all below them) that every scheme leaves unquantized
    checkpoint: str | None = None
    revision: str | None = None
    min_sqnr_db: dict[str, float] = field(default_factory=dict, hash=False)  # per precision, where it differs
    build: Callable[[], nn.Module] | None = None

    @property
    def is_local(self) -> bool:
        """True for a model that the user registered."""
        return self.build is not None


@dataclass(frozen=True, slots=True)
class PrecisionSpec:
    """One precision scheme. ``handler`` is the dotted path ``module:function`` that converts a model to it."""

    name: str
    handler: str
    min_sqnr_db: float | None  # fidelity's default lower bound against FP32; None for FP32 itself


@dataclass(frozen=True, slots=True)
class Case:
    """One pair to measure: a model at a precision, with the number of images in a request."""

    model: ModelSpec
    precision: PrecisionSpec
    batch: int = 1

    @property
    def id(self) -> str:
        """The test id: ``deit-tiny-patch16-224-int8``, with ``-b8`` for a batch other than 1."""
        suffix = "" if self.batch == 1 else f"-b{self.batch}"
        return f"{self.model.name}-{self.precision.name}{suffix}"

    @property
    def is_reference(self) -> bool:
        """True for FP32, which every other precision of the model is compared with."""
        return self.precision.name == FP32

    @property
    def min_sqnr_db(self) -> float | None:
        """Fidelity's lower bound in dB: the model's own, else the precision's."""
        return self.model.min_sqnr_db.get(self.precision.name, self.precision.min_sqnr_db)
