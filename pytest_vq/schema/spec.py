"""What is measured: models, schemes, and the pairs of them. Frozen values; importing this module loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

FP32 = "fp32"  # the reference of every comparison: speedup, memory reduction, fidelity
EAGER = "eager"  # how a model runs where no execution is named


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
    """One precision: either everything is cast to ``dtype``, or linear layers are replaced by what ``layer`` builds.

    ``layer`` and ``check`` are dotted paths, ``module:function``, so that naming a precision loads no library. Their
    types are ``LayerBuilder`` and ``LayerCheck`` (see ``precision.converted``).
    """

    name: str
    min_sqnr_db: float | None  # fidelity's default lower bound against FP32; None for FP32 itself
    dtype: str | None = None  # torch's name of the type that holds everything, for a precision that replaces nothing
    method: str = ""  # of one that replaces layers: what runs in them
    layer: str | None = None
    check: str | None = None  # what tells a stored layer of this precision from any other
    min_layer_sqnr_db: float | None = None  # what one layer of Gaussian weights must reach; None: it is not tried
    coarser_than: str | None = None  # the precision that usually answers clearly closer to FP32 than this one


@dataclass(frozen=True, slots=True)
class ExecutionSpec:
    """One way to run a converted model. ``prepare`` is the dotted path of its function (see ``execution.prepared``)."""

    name: str
    prepare: str


def scheme_name(precision: str, execution: str) -> str:
    """``int8`` for eager execution, ``int8+compile`` for any other."""
    return precision if execution == EAGER else f"{precision}+{execution}"


@dataclass(frozen=True, slots=True)
class Scheme:
    """A precision and the way its model is run: what users select, ``int8`` or ``int8+compile``."""

    precision: PrecisionSpec
    execution: ExecutionSpec

    @property
    def name(self) -> str:
        """What options, test ids and tables call it."""
        return scheme_name(self.precision.name, self.execution.name)

    @property
    def is_reference(self) -> bool:
        """True for eager FP32, which every other scheme of the model is compared with."""
        return self.name == FP32


@dataclass(frozen=True, slots=True)
class CaseId:
    """What identifies a pair in ids, files and tables. Made from values, and never read back out of a text."""

    model: str
    scheme: str
    batch: int

    def __str__(self) -> str:
        """The test id: ``deit-tiny-patch16-224-int8``, with ``-b8`` for a batch other than 1."""
        suffix = "" if self.batch == 1 else f"-b{self.batch}"
        return f"{self.model}-{self.scheme}{suffix}"


@dataclass(frozen=True, slots=True)
class Case:
    """One pair to measure: a model under a scheme, with the number of images in a request."""

    model: ModelSpec
    scheme: Scheme
    batch: int = 1

    @property
    def case_id(self) -> CaseId:
        """What identifies it."""
        return CaseId(self.model.name, self.scheme.name, self.batch)

    @property
    def id(self) -> str:
        """That as text: the test id."""
        return str(self.case_id)

    @property
    def precision(self) -> PrecisionSpec:
        """The scheme's precision."""
        return self.scheme.precision

    @property
    def min_sqnr_db(self) -> float | None:
        """Fidelity's lower bound in dB: the model's own, else the precision's."""
        return self.model.min_sqnr_db.get(self.precision.name, self.precision.min_sqnr_db)
