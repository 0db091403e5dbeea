"""A recommendation as one JSON object, figures to the last digit; ASCII, so that no name steers a terminal. Pure."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from pytest_vq.report.constraints import Check
from pytest_vq.report.decision_tree import Path
from pytest_vq.report.deployment_cost import NEVER, DeploymentCost, formulas
from pytest_vq.report.limits import Constraint
from pytest_vq.report.recommendation import Assessment, NearestMiss, Recommendation
from pytest_vq.report.tiers import Pick, Tiers
from pytest_vq.report.under_load import ServedAnswer

SCHEMA_VERSION = 1


def recommendation_json(found: Recommendation) -> str:
    """``found``; units are in the names of figures, a limit's in its ``unit``. What was not measured is null."""
    request = found.request
    value = {
        "schema_version": SCHEMA_VERSION,
        "scenario": None if request.scenario is None else request.scenario.name,
        "objective": request.objective,
        "constraints": [_constraint(limit) for limit in request.constraints],
        "qualified": list(found.qualified),
        "tiers": [_tiers(tiers) for tiers in found.tiers],
        "foremost": None if found.foremost is None else {"by": found.foremost.by} | _some(found.foremost.pick),
        "nearest_misses": [_miss(miss) for miss in found.nearest_misses],
        "under_load": [_served(served) for served in found.served],
        "advice": list(found.advice),
        "pairs": [_pair(assessment) for assessment in found.assessments],
        "decision_tree": [_path(path) for path in found.paths],
        "formulas": list(formulas(request.prices)) if found.costs else [],
        "costs": [_cost(cost) for cost in found.costs],
        "not_measured": list(found.unmeasured),
    }
    return json.dumps(value, indent=1, allow_nan=False)


def _constraint(limit: Constraint) -> dict[str, Any]:
    return {"text": limit.text, "quantity": limit.name, "limit": limit.limit, "unit": limit.quantity.unit}


def _pair(assessment: Assessment) -> dict[str, Any]:
    record, standing = assessment.candidate.record, assessment.standing
    timing = record.timing
    low_ms, high_ms = assessment.candidate.latency_interval_ms or (None, None)
    return {
        "pair": assessment.candidate.name,
        "model": record.identity.model,
        "scheme": record.setup.scheme,
        "batch": record.setup.batch,
        "latency_ms": timing.latency_ms,
        "latency_low_ms": low_ms,
        "latency_high_ms": high_ms,
        "processes": assessment.candidate.processes,
        "throughput_ips": timing.throughput_ips,
        "peak_memory_bytes": record.memory.peak_memory_bytes,
        "sqnr_db": record.fidelity.sqnr_db,
        "accuracy": record.fidelity.accuracy,
        "is_reference": record.setup.is_reference,
        "checks": [_check(found) for found in assessment.checks],
        "holds": assessment.answer,
        "pareto": {
            "axes": list(assessment.axes.names),
            "best": standing.is_best,
            "ties": [other.name for other in standing.ties],
            "behind": [other.name for other in standing.behind],
            "not_measured": list(standing.lacking),
        },
    }


def _served(served: ServedAnswer) -> dict[str, Any]:
    record, cost = served.record, served.cost
    return {
        "row": served.record.id,
        "pair": served.pair if served.candidate is None else served.candidate.name,
        "scenario": record.serving.scenario,
        "served": None if record.setup.serving is None else asdict(record.setup.serving),
        "target_qps": record.serving.target_qps,
        "p995_ms": record.serving.p995_ms,
        "violation_rate": record.serving.violation_rate,
        "violation_low": record.serving.violation_low,
        "violation_high": record.serving.violation_high,
        "max_qps_low": record.serving.max_qps_low,
        "max_qps_high": record.serving.max_qps_high,
        "checks": [_check(found) for found in served.checks],
        "holds": served.answer,
        "confirmed_qps": None if cost is None else cost.confirmed_qps,
        "cost_per_million_requests": None if cost is None else cost.per_million,
        "cost_per_million_low": None if cost is None else cost.per_million_low,
        "cost_per_million_high": None if cost is None else cost.per_million_high,
        "instances": None if cost is None else cost.instances,
    }


def _check(found: Check) -> dict[str, Any]:
    figures = {"value": found.value, "low": found.low, "high": found.high}
    finite = {name: None if value is None or math.isinf(value) else value for name, value in figures.items()}
    return {
        "constraint": found.constraint.text,
        "answer": found.answer,
        **finite,
        "reason": found.reason,
        "how_to_measure": found.hint,
    }


def _pick(pick: Pick | None) -> dict[str, Any] | None:
    return None if pick is None else _some(pick)


def _some(pick: Pick) -> dict[str, Any]:
    return {"pair": pick.candidate.name, "ties": [tied.name for tied in pick.ties], "distance": pick.distance}


def _tiers(tiers: Tiers) -> dict[str, Any]:
    return {
        "model": tiers.model,
        "fast": _pick(tiers.fast),
        "balanced": _pick(tiers.balanced),
        "accurate": _pick(tiers.accurate),
        "the_same_pair": tiers.coincidence,
    }


def _miss(miss: NearestMiss) -> dict[str, Any]:
    return {
        "constraint": miss.constraint.text,
        "held_by": miss.held_by,
        "pair": miss.name,
        "excess": miss.excess,
        "check": None if miss.check is None else _check(miss.check),
        "hint": miss.hint,
    }


def _path(path: Path) -> dict[str, Any]:
    branches = [
        {
            "question": branch.question.text,
            "taken": branch.taken,
            "pairs": [{"pair": candidate.name} | _check(found) for candidate, found in branch.checks],
        }
        for branch in path.branches
    ]
    return {"model": path.model, "branches": branches, "objective": path.objective, "leads_to": _pick(path.pick)}


def _cost(cost: DeploymentCost) -> dict[str, Any]:
    hours = cost.payback_hours
    return {
        "pair": cost.candidate.name,
        "throughput_ips": cost.throughput_ips,
        "cost_per_million_images": cost.per_million,
        "instances": cost.instances,
        "saving_per_hour": cost.saving_per_hour,
        "payback_hours": NEVER if hours is not None and math.isinf(hours) else hours,
        "three_year_return": cost.three_year_return,
    }
