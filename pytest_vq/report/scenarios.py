"""The deployment scenarios that have a name: their limits, and what matters most in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pytest_vq.report.decision_tree import Objective
from pytest_vq.report.limits import Constraint, Quantity


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way to deploy."""

    name: str
    constraints: tuple[Constraint, ...]
    objective: Objective
    is_served: bool = False  # requests come when they come: rows under load answer it, where there are any

    @property
    def text(self) -> str:
        """What it asks for."""
        return "; ".join([*(constraint.text for constraint in self.constraints), str(self.objective)])


_ALL = (
    Scenario("real-time", (Constraint(Quantity.LATENCY, 16.0),), Objective.LATENCY),
    Scenario("edge", (Constraint(Quantity.MEMORY, 100 * 10**6),), Objective.MEMORY),
    Scenario("cloud", (Constraint(Quantity.PERCENTILE, 10.0, percentile=99.5),), Objective.LATENCY, is_served=True),
    Scenario("batch", (), Objective.THROUGHPUT),
)
SCENARIOS: Mapping[str, Scenario] = MappingProxyType({scenario.name: scenario for scenario in _ALL})
