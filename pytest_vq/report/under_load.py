"""A question about traffic, answered from rows under load: which hold it, and at what rate and cost. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pytest_vq.report.candidates import Candidate, is_same_pair
from pytest_vq.report.constraints import Answer, Check, check, check_served, worst_answer
from pytest_vq.report.deployment_cost import Prices, ServingCost, serving_cost_of
from pytest_vq.report.limits import Constraint
from pytest_vq.report.next_command import put_under_load
from pytest_vq.report.report_serving import served_name
from pytest_vq.schema.record import Record


@dataclass(frozen=True, slots=True)
class ServedAnswer:
    """One row under load: its answer to every limit, the others than the tail's by the row of its pair by itself."""

    record: Record
    candidate: Candidate | None  # its pair by itself; None where that was not measured
    checks: tuple[Check, ...]
    cost: ServingCost | None  # None where the bound is not shown to be kept

    @property
    def name(self) -> str:
        """Its row's id, with the scenario."""
        return served_name(self.record)

    @property
    def pair(self) -> str:
        """The id of its pair, in requests of one image."""
        return str(replace(self.record.case_id, serving=False))

    @property
    def answer(self) -> Answer:
        """Whether it holds every limit."""
        return worst_answer(found.answer for found in self.checks)

    @property
    def tail(self) -> Check:
        """Its answer to the limit that is asked of rows under load."""
        return next(found for found in self.checks if found.constraint.under_load)


def answer_served(
    rows: Sequence[Record], candidates: Sequence[Candidate], constraints: Sequence[Constraint], prices: Prices
) -> tuple[ServedAnswer, ...]:
    """The answers of ``rows``, which are under load; those that hold every limit first, by the rate they do it at."""
    found = []
    for record in rows:
        # The first is that of the smallest batch, which is nearest to requests of one image.
        candidate = next((one for one in candidates if is_same_pair(record, one.record)), None)
        checks = tuple(_check(limit, record, candidate) for limit in constraints)
        keeps = any(one.constraint.under_load and one.answer is Answer.YES for one in checks)
        found.append(ServedAnswer(record, candidate, checks, serving_cost_of(record, prices) if keeps else None))
    return tuple(sorted(found, key=lambda one: (one.answer is not Answer.YES, -_rate(one))))


def _rate(served: ServedAnswer) -> float:
    return served.cost.confirmed_qps if served.cost is not None else 0.0


def _check(limit: Constraint, record: Record, candidate: Candidate | None) -> Check:
    if limit.under_load:
        return check_served(limit, record)
    if candidate is not None:
        return check(limit, candidate)
    hint = "a limit on a pair by itself needs its row: measure the pair in this run too"
    return Check(limit, Answer.NOT_MEASURED, reason="its pair was not measured by itself", hint=hint)


def advice(candidates: Sequence[Candidate], options: Mapping[str, Any], *, has_served: bool) -> Iterator[str]:
    """What puts those of ``candidates`` under load that were not, and what the answer is worth without it."""
    lacking = [candidate.record for candidate in candidates if not candidate.served]
    if not lacking:
        return
    command = put_under_load(lacking, options)
    if has_served:
        yield f"pairs without a row under load were not asked; to measure them: {command}"
    else:
        yield (
            "judged from single requests to a quiet model, one after the other: in traffic they wait for each other, "
            f"and more of them are late; to measure that: {command}"
        )
