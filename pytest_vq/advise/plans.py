"""Plans: a precision for each layer, what is expected of it by what was measured of layers, and the best of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_vq.advise.knapsack import Choosable, cheapest_choice
from pytest_vq.advise.probing import Costs, Probed
from pytest_vq.precision.fidelity import ratio_db
from pytest_vq.precision.precisions import find_precision
from pytest_vq.precision.recipe_precision import layer_precision
from pytest_vq.schema.recipe import ChoiceFigures
from pytest_vq.schema.spec import FP32, Mix


@dataclass(frozen=True, slots=True)
class Plan:
    """A precision for each layer and for the rest, by name."""

    rest: str
    layers: Mapping[str, str]

    @property
    def mix(self) -> Mix:
        """What to convert the model by."""
        return Mix({name: layer_precision(own) for name, own in self.layers.items()}, find_precision(self.rest))

    @property
    def words(self) -> str:
        """``20 int8wo, 4 bf16, fp32 rest``."""
        counts = [f"{count} {name}" for name, count in Counter(self.layers.values()).most_common()]
        return ", ".join([*counts, f"{self.rest} rest"])

    @property
    def is_fp32(self) -> bool:
        """True where nothing of it is anything else."""
        return {self.rest, *self.layers.values()} == {FP32}

    def reverted(self, layer: str) -> Plan:
        """The same with ``layer`` in FP32."""
        return Plan(self.rest, {**self.layers, layer: FP32})


def uniform_plan(precision: str, rest: str, probed: Probed) -> Plan:
    """Every layer at ``precision`` that can be; the others as the rest."""
    own = {name: precision if (name, precision) in probed.noise else rest for name in probed.shapes}
    return Plan(rest, own)


def predicted_noise(plan: Plan, probed: Probed) -> float:
    """The power of the noise that ``plan`` should have, on the inputs that layers were measured with."""
    of_layers = (probed.noise_of(name, own, plan.rest) for name, own in plan.layers.items())
    return probed.rest_noise[plan.rest] + sum(of_layers)


def predicted_cost(plan: Plan, probed: Probed, costs: Costs) -> float:
    """What ``plan`` should cost, in the unit of ``costs``."""
    more = (costs.of_layer[plan.rest, probed.shapes[name], own] for name, own in plan.layers.items())
    return costs.base[plan.rest] + sum(more)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What was measured of layers, and what follows from it for a plan."""

    probed: Probed
    costs: Costs  # of what is to be saved
    sizes: Costs
    is_of_time: bool  # the costs are FP32's times

    def figures(self, plan: Plan, fp32_ms: float) -> ChoiceFigures:
        """What ``plan`` should do, where FP32 takes ``fp32_ms``."""
        noise, cost = predicted_noise(plan, self.probed), predicted_cost(plan, self.probed, self.costs)
        return ChoiceFigures(
            sqnr_db=ratio_db(self.probed.signal, noise) if noise > 0 else None,
            latency_ms=cost * fp32_ms if self.is_of_time else None,
            speedup=1 / cost if self.is_of_time else None,
            model_size_bytes=round(predicted_cost(plan, self.probed, self.sizes)),
        )


def best_plan(probed: Probed, costs: Costs, sqnr_db: float) -> Plan | None:
    """The plan of least cost that should reach ``sqnr_db``; None where none does."""
    allowed = probed.signal / 10 ** (sqnr_db / 10)
    plans = [plan for rest in probed.rest_noise if (plan := _best_with(rest, probed, costs, allowed)) is not None]
    return min(plans, key=lambda plan: predicted_cost(plan, probed, costs), default=None)


def _best_with(rest: str, probed: Probed, costs: Costs, allowed: float) -> Plan | None:
    layers = [
        {
            own: Choosable(costs.of_layer[rest, shape, own], probed.noise_of(name, own, rest))
            for own in probed.options(name, rest)
        }
        for name, shape in probed.shapes.items()
    ]
    chosen = cheapest_choice(layers, allowed - probed.rest_noise[rest])
    return None if chosen is None else Plan(rest, dict(zip(probed.shapes, chosen, strict=True)))
