"""What is measured: models, schemes, and the pairs of them. Frozen values; importing this module loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_vq.errors import SelectionError

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

FP32 = "fp32"  # the reference of every comparison: speedup, memory reduction, fidelity
EAGER = "eager"  # how a model runs where no execution is named
CALLABLE = "callable"  # stands for the scheme, and for the category, of a test's own code

# What a user's model is called with and what it returns, in functions of the user's (see ``register_model``).
MakeInputs = Callable[[int, "Generator"], Any]  # batch, generator -> inputs
MakeLabelled = Callable[[], "tuple[Any, Tensor]"]  # -> inputs, labels
TakeOutput = Callable[[Any], "Tensor"]  # what the model returns -> what is compared


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model of the catalog, or one of the user's own.

    ``build`` and the functions after it are set for the user's models only; the catalog's are built from the bundled
    config of ``checkpoint``.
    """

    name: str
    category: str
    architecture: str
    input_shape: tuple[int, int, int] | None  # channels, height, width; no batch axis; None: ``inputs`` says
    parameters: int | None  # None until a user's model has been built once
    heads: tuple[str, ...]  # dotted names of the modules (with all below them) that every scheme leaves unquantized
    checkpoint: str | None = None
    revision: str | None = None
    min_sqnr_db: dict[str, float] = field(default_factory=dict, hash=False)  # per precision, where it differs
    build: Callable[[], nn.Module] | None = None
    inputs: MakeInputs | None = None
    output: TakeOutput | None = None
    labelled: MakeLabelled | None = None

    @property
    def is_local(self) -> bool:
        """True for a model that the user registered."""
        return self.build is not None


@dataclass(frozen=True, slots=True)
class Target:
    """What a scheme may need of the device that measures it."""

    is_accelerator: bool
    compute_capability: tuple[int, int] | None = None  # NVIDIA's, major and minor; None on a CPU, or not asked yet


@dataclass(frozen=True, slots=True)
class PrecisionSpec:
    """One precision: everything is cast to ``dtype``, or linear layers are replaced by what ``layer`` builds.

    Or, third, each layer has a precision of its own: ``mix`` says which. Or, last, all of the model becomes a program
    of the user's: ``program`` makes it (see ``precision.opaque``).

    ``layer``, ``check``, ``switches`` and ``refusal`` are dotted paths, ``module:function``, so that naming a precision
    loads no library. The types of the first two are ``LayerBuilder`` and ``LayerCheck`` (see ``precision.converted``).
    A user's layer builder is the function itself.
    """

    name: str
    min_sqnr_db: float | None  # fidelity's default lower bound against FP32; None for FP32 itself
    dtype: str | None = None  # torch's name of the type that holds everything, for a precision that replaces nothing
    method: str = ""  # of one that replaces layers: what runs in them
    layer: str | Callable[[Any, Any], Any] | None = None
    check: str | None = None  # what tells a stored layer of this precision from any other
    min_layer_sqnr_db: float | None = None  # what one layer of Gaussian weights must reach; None: it is not tried
    coarser_than: str | None = None  # the precision that usually answers clearly closer to FP32 than this one
    max_bits: float | None = None  # that a weight takes in a layer that counts as quantized, its scales aside
    accelerator_rest: str | None = None  # the type of the rest there, where its kernels want one; None: the device's
    cpu_rest: str | None = None  # likewise on a CPU
    switches: str | None = None  # () -> context manager: global switches that hold while its model is called
    refusal: str | None = None  # (Target) -> why that device cannot run it; empty where it can
    not_under: Mapping[str, str] = field(default_factory=dict, hash=False)  # execution -> why it cannot run so
    mix: Mix | None = None
    program: Callable[[Any, Any, Any], Any] | None = None  # (model, inputs, device) -> Opaque

    @property
    def is_local(self) -> bool:
        """True for a precision that the user registered."""
        return callable(self.layer) or self.program is not None

    @property
    def quantizes(self) -> bool:
        """True where what is stored is to differ from every other precision's; False where types are cast alone."""
        return self.layer is not None or self.program is not None

    @property
    def replaces_layers(self) -> bool:
        """True where linear layers become others; False where all of the model is cast."""
        return self.layer is not None or self.mix is not None

    @property
    def parts(self) -> tuple[PrecisionSpec, ...]:
        """The precisions that a model of this one consists of, each once: itself, unless it is mixed."""
        if self.mix is None:
            return (self,)
        every = (self.mix.rest, *self.mix.layers.values())
        return tuple({part.name: part for part in every}.values())


@dataclass(frozen=True, slots=True)
class Mix:
    """A precision for each layer, as a recipe says (see ``schema.recipe``)."""

    layers: Mapping[str, PrecisionSpec] = field(hash=False)  # by dotted name; all others are of the rest's
    rest: PrecisionSpec  # one that only casts
    model: str | None = None  # the only one it is for; None: any that has those layers
    sha256: str | None = None  # of the file that it was read from


@dataclass(frozen=True, slots=True)
class ExecutionSpec:
    """One way to run a converted model, by its function ``prepare`` (see ``execution.prepared``).

    That is named by its dotted path; a user's is the function itself.
    """

    name: str
    prepare: str | Callable[[Any, Any], Any]
    refusal: str | None = None  # (Target) -> why that device cannot run it; empty where it can
    compiles: bool = False  # which takes a model far longer than it is measured for

    @property
    def is_local(self) -> bool:
        """True for an execution that the user registered."""
        return callable(self.prepare)


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

    @property
    def intended_for(self) -> str | None:
        """The only model that it is for, where it is a recipe; None for a scheme of any model."""
        return None if self.precision.mix is None else self.precision.mix.model

    def suits(self, model: ModelSpec) -> bool:
        """False for a recipe of another model."""
        return self.intended_for in (None, model.name)


@dataclass(frozen=True, slots=True)
class CaseId:
    """What identifies a pair, or a callable, in ids, files and tables. Made from values, never read out of a text."""

    model: str  # of a callable: the id of its test
    scheme: str
    batch: int
    serving: bool = False  # a pair that is put under load

    @classmethod
    def of_callable(cls, test_id: str) -> CaseId:
        """What identifies the callable that the test ``test_id`` measures."""
        return cls(test_id, CALLABLE, 1)

    def __str__(self) -> str:
        """``deit-tiny-patch16-224-int8``, with ``-b8`` for a batch other than 1, and ``-serving`` for one under load.

        Of a callable, the id of its test.
        """
        if self.scheme == CALLABLE:
            return self.model
        suffix = "" if self.batch == 1 else f"-b{self.batch}"
        return f"{self.model}-{self.scheme}{suffix}{'-serving' if self.serving else ''}"


@dataclass(frozen=True, slots=True)
class Case:
    """One pair to measure: a model under a scheme, with the number of images in a request.

    Raises:
        SelectionError: the scheme is a recipe for another model.
    """

    model: ModelSpec
    scheme: Scheme
    batch: int = 1

    def __post_init__(self) -> None:
        if not self.scheme.suits(self.model):
            raise SelectionError(
                f"{self.scheme.name} is a recipe for the model {self.scheme.intended_for}, and says nothing of the "
                f"layers of {self.model.name}"
            )

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
