"""What a pair costs to run, and when a change from FP32 to it has paid for itself. Pure.

Costs are in whatever currency the user's are; a load is in images a second, as the throughput is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pytest_vq.report.candidates import Candidate
from pytest_vq.schema.record import Record
from pytest_vq.wording import figure

RETURN_YEARS = 3
_HOURS_A_DAY = 24
_HOURS_A_YEAR = 365 * _HOURS_A_DAY
NEVER = "never"


@dataclass(frozen=True, slots=True)
class Prices:
    """What the user pays, and for how much; None where that was not said."""

    gpu_hour: float | None = None  # one instance for an hour
    load_ips: float | None = None  # images a second, all instances together
    migration: float | None = None  # once, from FP32 to another scheme

    @property
    def asks(self) -> bool:
        """Whether there is anything to compute."""
        return self.gpu_hour is not None or self.load_ips is not None


@dataclass(frozen=True, slots=True)
class DeploymentCost:
    """One pair's costs; None for what the prices do not tell, or what was not measured."""

    candidate: Candidate
    throughput_ips: float | None
    per_million: float | None = None  # images
    instances: int | None = None
    saving_per_hour: float | None = None  # against FP32 of the same model and batch; negative where it costs more
    payback_hours: float | None = None  # infinite where nothing is saved
    three_year_return: float | None = None  # a fraction of the migration's cost; None of a free one

    @property
    def payback_shown(self) -> str:
        """``12.5 days``, or ``never``."""
        if self.payback_hours is None:
            return ""
        if math.isinf(self.payback_hours):
            return NEVER
        return f"{figure(self.payback_hours / _HOURS_A_DAY)} days"


@dataclass(frozen=True, slots=True)
class ServingCost:
    """What a pair under load costs, by the rate at which its bound is kept; None for what the prices do not tell."""

    confirmed_qps: float
    per_million: float | None = None  # requests, at that rate
    per_million_low: float | None = None  # at the lowest rate that did not keep the bound: it costs no less than this
    per_million_high: float | None = None  # at the highest rate tried that kept it
    instances: int | None = None


def serving_cost_of(served: Record, prices: Prices) -> ServingCost | None:
    """What a row under load costs at ``prices``; None where it has no rate at which a bound could be kept."""
    figures = served.serving
    confirmed_qps = figures.confirmed_qps
    if not confirmed_qps:
        return None

    def per_million(rate_qps: float | None) -> float | None:
        return None if prices.gpu_hour is None or not rate_qps else prices.gpu_hour * 10**6 / (rate_qps * 3600)

    return ServingCost(
        confirmed_qps,
        per_million(confirmed_qps),
        per_million(figures.max_qps_high),
        per_million(figures.max_qps_low),
        None if prices.load_ips is None else instances_for(prices.load_ips, confirmed_qps),
    )


def serving_formulas(prices: Prices) -> tuple[str, ...]:
    """How the figures of `ServingCost` are computed, with the prices in it."""
    lines = []
    if prices.gpu_hour is not None:
        lines.append(
            f"cost per million requests = {prices.gpu_hour:g} an hour × 1,000,000 ÷ (confirmed rate × 3,600 s)"
        )
        lines.append(
            "its range: the same at the highest rate, which lies between the highest one that kept the bound and the "
            "lowest one that did not, where the run searched for it"
        )
    if prices.load_ips is not None:
        lines.append(f"instances = ⌈{prices.load_ips:g} requests/s ÷ confirmed rate⌉")
    return tuple(lines)


def cost_of(candidate: Candidate, prices: Prices) -> DeploymentCost:
    """What ``candidate`` costs at ``prices``."""
    throughput_ips = candidate.record.timing.throughput_ips
    if not throughput_ips:
        return DeploymentCost(candidate, None)
    per_million = None if prices.gpu_hour is None else prices.gpu_hour * 10**6 / (throughput_ips * 3600)
    if prices.load_ips is None:
        return DeploymentCost(candidate, throughput_ips, per_million)
    instances = instances_for(prices.load_ips, throughput_ips)
    reference = candidate.reference
    reference_ips = None if reference is None else reference.timing.throughput_ips
    if prices.gpu_hour is None or not reference_ips or candidate.is_reference:
        return DeploymentCost(candidate, throughput_ips, per_million, instances)
    saving = (instances_for(prices.load_ips, reference_ips) - instances) * prices.gpu_hour
    payback, gain = _payback(saving, prices.migration)
    return DeploymentCost(candidate, throughput_ips, per_million, instances, saving, payback, gain)


def instances_for(load_ips: float, throughput_ips: float) -> int:
    """The fewest instances that carry ``load_ips`` images a second, each of them busy all the time."""
    return math.ceil(load_ips / throughput_ips)


def _payback(saving_per_hour: float, migration: float | None) -> tuple[float | None, float | None]:
    """Hours until the savings have paid for the migration, and the return of three years over its cost."""
    if migration is None:
        return None, None
    payback = migration / saving_per_hour if saving_per_hour > 0 else math.inf
    if migration == 0:
        return payback, None
    return payback, (saving_per_hour * RETURN_YEARS * _HOURS_A_YEAR - migration) / migration


def formulas(prices: Prices) -> tuple[str, ...]:
    """How each figure that ``prices`` allow is computed, with the prices in it; and what is missing for the others."""
    hour = None if prices.gpu_hour is None else f"{prices.gpu_hour:g}"
    lines = []
    if hour is not None:
        lines.append(f"cost per million images = {hour} an hour × 1,000,000 ÷ (throughput × 3,600 s)")
    if prices.load_ips is not None:
        lines.append(f"instances = ⌈{prices.load_ips:g} images/s ÷ throughput⌉, each busy all the time")
    if hour is None or prices.load_ips is None:
        missing = "--load" if prices.load_ips is None else "--gpu-hour-cost"
        return (*lines, f"savings against FP32 need {missing} too")
    lines.append(f"saving an hour = (instances of FP32, same model and batch − instances) × {hour}")
    if prices.migration is None:
        return (*lines, "payback and return need --migration-cost too")
    cost, hours = f"{prices.migration:g}", RETURN_YEARS * _HOURS_A_YEAR
    lines.append(f"payback = {cost} ÷ saving an hour; {NEVER} where nothing is saved")
    lines.append(f"three-year return = (saving an hour × {hours:,} h − {cost}) ÷ {cost}")
    return tuple(lines)
