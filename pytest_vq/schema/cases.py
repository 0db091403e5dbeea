"""What is measured beside pairs by themselves: a test's own code, and pairs under load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pytest_vq.schema.serving import ServingTerms
from pytest_vq.schema.spec import Case, CaseId


@dataclass(frozen=True, slots=True)
class CallableCase:
    """One callable to measure: a test's own code, which is neither a model nor compared with FP32."""

    test_id: str
    method: str  # what is called: "test_ops.matmul"
    call: Callable[[], object] = field(compare=False)

    @property
    def case_id(self) -> CaseId:
        """What identifies it."""
        return CaseId.of_callable(self.test_id)

    @property
    def id(self) -> str:
        """That as text: the id of its test."""
        return str(self.case_id)


@dataclass(frozen=True, slots=True)
class ServingCase:
    """One pair to put under load."""

    case: Case
    terms: ServingTerms
    with_fallback: bool = False  # FP32 is measured too, as the open circuit breaker of a guard lets it answer

    @property
    def case_id(self) -> CaseId:
        """What identifies it."""
        return replace(self.case.case_id, serving=True)

    @property
    def id(self) -> str:
        """That as text."""
        return str(self.case_id)


AnyCase = Case | CallableCase | ServingCase
