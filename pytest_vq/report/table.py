"""The records of a run as a plain text table, and the reason of every verdict that is not PASS. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_vq.precision.precisions import all_precisions
from pytest_vq.report.text import plain_table
from pytest_vq.schema.record import Record
from pytest_vq.schema.verdict import Status
from pytest_vq.wording import figure

_HEADERS = ("model", "precision", "ms", "95 % interval", "speedup", "95 % interval", "peak MiB", "saved", "fidelity")
_ALIGN = ("left", "left", "right", "left", "right", "left", "right", "right", "right", "left")
_MIB = 2**20
# One line for all pairs without a baseline: sixty-four times the same sentence hides the one that matters.
_COUNTED = (Status.PASS, Status.NO_BASELINE)


def reasons(records: Sequence[Record]) -> list[tuple[str, dict[str, bool]]]:
    """A line, and its colour, for each verdict that is worth a word of its own."""
    speaking = [record for record in records if record.verdict not in _COUNTED and record.reason]
    return [(f"{record.verdict} {record.id}: {record.reason}", _colour(record.verdict)) for record in speaking]


def records_table(records: Sequence[Record]) -> str:
    """``records`` as a plain text table, a line a pair, each model named once."""
    has_verdicts = any(record.verdict is not None for record in records)
    headers = (*_HEADERS, "verdict") if has_verdicts else _HEADERS
    rows, previous = [], None
    for record in sorted(records, key=lambda r: (_first_seen(records, r), r.batch, _precision_order(r))):
        cells = _cells(record)
        cells[0] = "" if record.model == previous else record.model
        rows.append([*cells, str(record.verdict or "")] if has_verdicts else cells)
        previous = record.model
    return plain_table(rows, headers, _ALIGN[: len(headers)])


def _first_seen(records: Sequence[Record], record: Record) -> int:
    # Groups a model's rows even where a random order or several workers mixed them up.
    return next(i for i, other in enumerate(records) if other.model == record.model)


def _precision_order(record: Record) -> int:
    names = list(all_precisions())
    return names.index(record.precision) if record.precision in names else len(names)


def _cells(record: Record) -> list[str]:
    precision = record.precision if record.batch == 1 else f"{record.precision} batch {record.batch}"
    is_reference = record.speedup is None or record.sqnr_db is None
    fidelity = "" if record.sqnr_db is None else f"{record.sqnr_db:.1f} dB"
    if record.accuracy is not None:
        fidelity = f"{record.accuracy:.1%} right" + (f", {fidelity}" if fidelity else "")
    return [
        record.model,
        precision + (" (launch-bound)" if record.launch_bound else ""),
        figure(record.latency_ms),
        _interval(record.latency_low_ms, record.latency_high_ms, figure),
        "" if is_reference else f"{record.speedup:.2f}x",
        "" if is_reference else _interval(record.speedup_low, record.speedup_high, "{:.2f}".format),
        "" if record.peak_memory_bytes is None else f"{record.peak_memory_bytes / _MIB:.1f}",
        "" if is_reference or record.memory_reduction is None else f"{record.memory_reduction:.1%}",
        fidelity,
    ]


def _interval(low: float | None, high: float | None, form: Callable[[float], str]) -> str:
    return "" if low is None or high is None else f"{form(low)} - {form(high)}"


def _colour(status: Status | None) -> dict[str, bool]:
    if status is Status.FAIL:
        return {"red": True}
    return {"green": True} if status is Status.IMPROVED else {"yellow": True}
