"""The records of a run as a plain text table, and the reason of every verdict that is not PASS. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_vq.report.scheme_notes import notes_on
from pytest_vq.report.scheme_order import setup_place
from pytest_vq.report.serving_rows import LEGEND, serving_rows, terms_in_words
from pytest_vq.report.text import narrow_table, plain_table
from pytest_vq.schema.record import Record
from pytest_vq.schema.verdict import Status
from pytest_vq.wording import figure

_HEADERS = (
    "model",
    "precision",
    "median ms",
    "95 % interval",
    "speedup",
    "95 % interval",
    "peak MiB",
    "saved",
    "mJ/image",
    "fidelity",
    "verdict",
)
_ALIGN = ("left", "left", "right", "left", "right", "left", "right", "right", "right", "right", "left")
_OF_PAIRS = (4, 5, 7, 9)  # columns that compare with FP32
_MIB = 2**20
_OTHER_PACE = 1.25  # FP32 beside a row and FP32's own row that differ by more met two machines
# One line for all pairs without a baseline: sixty-four times the same sentence hides the one that matters.
_COUNTED = (Status.PASS, Status.NO_BASELINE)


def reasons(records: Sequence[Record]) -> list[tuple[str, dict[str, bool]]]:
    """A line, and its colour, for each verdict that is worth a word of its own."""
    speaking = [record for record in records if record.verdict not in _COUNTED and record.reason]
    return [(f"{record.verdict} {record.id}: {record.reason}", _colour(record.verdict)) for record in speaking]


def records_table(records: Sequence[Record]) -> str:
    """``records`` as a plain text table, a line a pair, each model named once; what its marks mean stands below.

    Pairs under load have a table of their own below that one.
    """
    others = [record for record in records if record.setup.serving is None]
    served = [record for record in records if record.setup.serving is not None]
    tables = [_table(others)] if others or not served else []
    return "\n\n".join([*tables, _serving_table(served)] if served else tables)


def _serving_table(records: Sequence[Record]) -> str:
    found = serving_rows(records)
    return "\n".join([*terms_in_words(records), narrow_table(found.rows, found.titles, found.align), *LEGEND])


def _table(records: Sequence[Record]) -> str:
    shown = _columns_of(records)
    ordered = sorted(records, key=lambda r: (_first_seen(records, r), r.setup.batch, setup_place(r.setup)))
    rows: list[list[str]] = []
    previous = None
    for record in ordered:
        cells = _cells(record, _mark(record, records))
        model = record.identity.model
        cells[0] = "" if model == previous else model
        rows.append([cells[i] for i in shown])
        previous = model
    table = plain_table(rows, [_HEADERS[i] for i in shown], [_ALIGN[i] for i in shown])
    return "\n".join([table, *_legend(ordered, records)])


def _columns_of(records: Sequence[Record]) -> list[int]:
    """The columns to show: those that only some devices or runs fill, where one of ``records`` has something there."""
    optional = {
        "mJ/image": any(record.timing.energy_per_image_mj is not None for record in records),
        "verdict": any(record.verdict is not None for record in records),
    }
    none_of = _OF_PAIRS if all(record.setup.is_callable for record in records) else ()
    return [i for i, header in enumerate(_HEADERS) if optional.get(header, True) and i not in none_of]


def _mark(record: Record, records: Sequence[Record]) -> str:
    """``*`` where FP32 took another time beside this row than in its own; ``~`` where a speedup has no interval."""
    if record.timing.reference_latency_ms is None:
        return ""
    own = _own_reference(record, records)
    other_pace = own is not None and not (
        1 / _OTHER_PACE <= record.timing.reference_latency_ms / own.timing.latency_ms <= _OTHER_PACE
    )
    return ("*" if other_pace else "") + ("~" if record.timing.speedup_low is None else "")


def _own_reference(record: Record, records: Sequence[Record]) -> Record | None:
    pair = (record.identity.model, record.setup.batch)
    own = (r for r in records if r.setup.is_reference and (r.identity.model, r.setup.batch) == pair)
    return next(own, None)


def _legend(ordered: Sequence[Record], records: Sequence[Record]) -> list[str]:
    marks = {record.id: _mark(record, records) for record in ordered}
    lines = []
    for record in ordered:
        own = _own_reference(record, records)
        if "*" in marks[record.id] and own is not None and record.timing.reference_latency_ms is not None:
            beside, alone = figure(record.timing.reference_latency_ms), figure(own.timing.latency_ms)
            lines.append(f"* {record.id}: FP32 took {beside} ms beside it, {alone} ms in its own row: two paces")
    if any("~" in mark for mark in marks.values()):
        lines.append("~ a speedup from too few samples for an interval")
    return [*lines, *notes_on(ordered)]


def _first_seen(records: Sequence[Record], record: Record) -> int:
    # Groups a model's rows even where a random order or several workers mixed them up.
    return next(i for i, other in enumerate(records) if other.identity.model == record.identity.model)


def _cells(record: Record, mark: str) -> list[str]:
    setup, timing, memory, fidelity = record.setup, record.timing, record.memory, record.fidelity
    scheme = setup.scheme if setup.batch == 1 else f"{setup.scheme} batch {setup.batch}"
    is_reference = timing.speedup is None or fidelity.sqnr_db is None
    likeness = "" if fidelity.sqnr_db is None else f"{fidelity.sqnr_db:.1f} dB"
    if fidelity.accuracy is not None:
        likeness = f"{fidelity.accuracy:.1%} right" + (f", {likeness}" if likeness else "")
    saved = "" if is_reference or memory.memory_reduction is None else f"{memory.memory_reduction:.1%}"
    return [
        record.identity.model,
        scheme + (" (launch-bound)" if timing.launch_bound else ""),
        figure(timing.latency_ms),
        _interval(timing.latency_low_ms, timing.latency_high_ms, figure),
        "" if is_reference else f"{timing.speedup:.2f}x{mark}",
        "" if is_reference else _interval(timing.speedup_low, timing.speedup_high, "{:.2f}".format),
        "" if memory.peak_memory_bytes is None else f"{memory.peak_memory_bytes / _MIB:.1f}",
        saved,
        "" if timing.energy_per_image_mj is None else figure(timing.energy_per_image_mj),
        likeness,
        str(record.verdict or ""),
    ]


def _interval(low: float | None, high: float | None, form: Callable[[float], str]) -> str:
    return "" if low is None or high is None else f"{form(low)} - {form(high)}"


def _colour(status: Status | None) -> dict[str, bool]:
    if status is Status.FAIL:
        return {"red": True}
    return {"green": True} if status is Status.IMPROVED else {"yellow": True}
