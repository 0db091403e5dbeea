"""A comparison as one JSON object, figures to the last digit; ASCII, so that no name steers what prints it. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pytest_vq.report.side_by_side import Aggregate, PairComparison, SideComparison
from pytest_vq.report.side_document import differing_facts
from pytest_vq.report.side_metrics import MetricComparison
from pytest_vq.report.side_serving_document import serving_json
from pytest_vq.schema.side import Side

SCHEMA_VERSION = 1


def to_json(comparisons: Sequence[SideComparison], *, only_regressed: bool = False) -> str:
    """One or more sides against one and the same side A.

    Units are in the names of figures; a metric's ``change`` is a ratio, or a difference in the figure's own unit.
    """
    sides = [comparisons[0].a, *(comparison.b for comparison in comparisons)]
    value = {
        "schema_version": SCHEMA_VERSION,
        "sides": [_side(side) for side in sides],
        "differing_facts": differing_facts(sides),
        "regressed": [_named(c, pair) for c in comparisons for pair in c.regressed],
        "pairs": [_pair(c, p) for c in comparisons for p in (c.regressed if only_regressed else c.pairs)],
        "under_load": [] if only_regressed else [one for c in comparisons for one in _serving(c)],
        "only_in": [entry for c in comparisons for entry in _only_in(c)],
        "aggregates": [_aggregate(c, aggregate) for c in comparisons for aggregate in c.aggregates],
    }
    return json.dumps(value, indent=1, allow_nan=False)


def _side(side: Side) -> dict[str, Any]:
    return {
        "label": side.label,
        "name": side.name,
        "kind": side.kind,
        "facts": dict(side.facts),
        "pairs": len(side.pairs),
        "under_load": len(side.serving),
        "failures": list(side.failures),
        "faults": list(side.faults),
    }


def _serving(comparison: SideComparison) -> list[dict[str, Any]]:
    return serving_json((comparison.a.label, comparison.b.label), comparison.serving)


def _named(comparison: SideComparison, pair: PairComparison) -> dict[str, str]:
    return {"side": comparison.b.label, "pair": pair.name}


def _pair(comparison: SideComparison, pair: PairComparison) -> dict[str, Any]:
    return _named(comparison, pair) | {
        "model": pair.case_id.model,
        "scheme": pair.case_id.scheme,
        "batch": pair.case_id.batch,
        "category": pair.category,
        "processes": list(pair.processes),
        "verdict": pair.decision.status,
        "reason": pair.decision.reason,
        "metrics": [_metric(compared) for compared in pair.metrics],
        "decided": [
            {"metric": metric.metric, "verdict": metric.status, "reason": metric.reason}
            for metric in pair.decision.metrics
        ],
    }


def _metric(compared: MetricComparison) -> dict[str, Any]:
    metric = compared.metric
    return {
        "metric": metric.name,
        "figure": metric.figure,
        "a": compared.a,
        "b": compared.b,
        "difference" if metric.is_difference else "ratio": compared.change,
        "low": compared.low,
        "high": compared.high,
        "interval": compared.interval,
    }


def _only_in(comparison: SideComparison) -> list[dict[str, Any]]:
    a, b = comparison.a.label, comparison.b.label
    return [
        {"side": a, "against": b, "pairs": list(comparison.only_a), "metrics": list(comparison.metrics_of_a)},
        {"side": b, "against": a, "pairs": list(comparison.only_b), "metrics": list(comparison.metrics_of_b)},
    ]


def _aggregate(comparison: SideComparison, aggregate: Aggregate) -> dict[str, Any]:
    changes = aggregate.changes
    return {
        "side": comparison.b.label,
        "metric": aggregate.metric.name,
        "category": aggregate.category,
        "pairs": len(changes),
        "mean_difference" if aggregate.metric.is_difference else "geometric_mean_ratio": aggregate.mean,
        "min": min(changes, default=None),
        "max": max(changes, default=None),
        "left_out": list(aggregate.left_out),
    }
