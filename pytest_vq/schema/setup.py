"""What must be equal for two figures of one model on one device to be comparable."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from pytest_vq.schema.serving import ServingTerms
from pytest_vq.schema.spec import CALLABLE, EAGER, FP32, scheme_name


@dataclass(frozen=True, slots=True)
class Setup:
    """What must be equal for two figures of one model on one device to be comparable: a baseline entry's key."""

    precision: str
    batch: int
    protocol: str
    weights: str | None  # None for a callable
    threads: int | None  # intra-op threads on the CPU; None on an accelerator
    tf32: bool
    execution: str = EAGER
    rest: str | None = None  # type of what a quantizing precision leaves unquantized; None for one that only casts
    recipe: str | None = None  # SHA-256 of the recipe's file, where the precision is one
    serving: ServingTerms | None = None  # of a serving row; None where requests come one by one, to a quiet model

    def named(self) -> dict[str, object]:
        """Every value by its name, those of its serving terms among them."""
        values = asdict(self)
        return values | (values.pop("serving") or {})

    @property
    def scheme(self) -> str:
        """``int8``, or ``int8+compile``."""
        return scheme_name(self.precision, self.execution)

    @property
    def is_reference(self) -> bool:
        """True for eager FP32, which the other pairs of a model are compared with; not for its serving row."""
        return self.scheme == FP32 and self.serving is None

    @property
    def is_callable(self) -> bool:
        """True for a test's own code, which has no scheme."""
        return self.precision == CALLABLE

    @property
    def is_pair(self) -> bool:
        """True for a model under a scheme, measured by itself: neither a callable nor put under load."""
        return not self.is_callable and self.serving is None

    @property
    def words(self) -> str:
        """``int8 at batch 8``, or ``this callable``: how a sentence calls what was measured."""
        if self.is_callable:
            return "this callable"
        return f"{self.scheme} at batch {self.batch}" if self.serving is None else f"{self.scheme} {self.serving.words}"
