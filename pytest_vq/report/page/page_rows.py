"""The page's table: a row a pair, each cell with the text to read and the figure to sort by. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pytest_vq.report.pareto import Standing
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import CaseId
from pytest_vq.schema.verdict import Status
from pytest_vq.wording import figure, plain_percent, times

_MIB = 2**20
_Figure = Callable[[Record], float | None]


@dataclass(frozen=True, slots=True)
class Cell:
    """What a reader sees, and the figure behind it as stored; an empty text was not measured."""

    text: str
    key: float | None = None

    @property
    def data_key(self) -> str | None:
        """The figure without any rounding, for the script that sorts."""
        return None if self.key is None else repr(self.key)


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its head, how its cells are made, and whether figures stand in it."""

    title: str
    cell: Callable[[Record], Cell]
    is_number: bool = True
    is_optional: bool = False  # left out where no pair has anything in it


@dataclass(frozen=True, slots=True)
class TableRow:
    """One pair. The fields beside its cells are what rows are filtered by."""

    cells: tuple[Cell, ...]
    category: str
    scheme: str
    verdict: str


@dataclass(frozen=True, slots=True)
class PageTable:
    """The whole table, and the choices of its filters."""

    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    categories: tuple[str, ...]
    schemes: tuple[str, ...]
    verdicts: tuple[str, ...]


def page_table(records: Sequence[Record], standings: Mapping[CaseId, Standing]) -> PageTable:
    """The table of ``records``, in their order; ``standings`` has each pair of them."""
    front = Column("Pareto", lambda record: _standing(standings.get(record.case_id)), is_number=False)
    columns = [c for c in (*COLUMNS, front) if not c.is_optional or any(c.cell(record).text for record in records)]
    rows = [
        TableRow(
            cells=tuple(column.cell(record) for column in columns),
            category=record.identity.category,
            scheme=record.setup.scheme,
            verdict=str(record.verdict or ""),
        )
        for record in records
    ]
    given = {row.verdict for row in rows}
    return PageTable(
        columns=tuple(columns),
        rows=tuple(rows),
        categories=tuple(sorted({row.category for row in rows})),
        schemes=tuple(dict.fromkeys(row.scheme for row in rows)),
        verdicts=tuple(str(status) for status in Status if status in given),
    )


def _shown(value: _Figure, form: Callable[[float], str], scale: float = 1.0) -> Callable[[Record], Cell]:
    """Makes cells of ``value``; ``form`` gets it divided by ``scale``, and the key is the figure as stored."""

    def cell(record: Record) -> Cell:
        found = value(record)
        return Cell("") if found is None else Cell(form(found / scale), found)

    return cell


def _interval(low: _Figure, high: _Figure, form: Callable[[float], str]) -> Callable[[Record], Cell]:
    def cell(record: Record) -> Cell:
        lowest, highest = low(record), high(record)
        if lowest is None or highest is None:
            return Cell("")
        return Cell(f"{form(lowest).removesuffix('x')} … {form(highest)}", lowest)

    return cell


def _but_fp32(value: _Figure) -> _Figure:
    """FP32's speedup and saving over itself are 1 and 0 by definition: no figures, and left empty."""
    return lambda record: None if record.setup.is_reference else value(record)


def _one_decimal(value: float) -> str:
    return f"{value:.1f}"


def _standing(standing: Standing | None) -> Cell:
    return Cell("" if standing is None else standing.shown)  # a callable stands among no others


def _scheme(record: Record) -> Cell:
    # Where launches set the time, it says little of the precision.
    return Cell(record.setup.scheme + (" (launch-bound)" if record.timing.launch_bound else ""))


def _prepared(record: Record) -> Cell:
    # Warm: a cache had some of what was compiled, so that it says little of a first start.
    preparation = record.preparation
    if preparation.prepare_s is None:
        return Cell("")
    cache = f" ({preparation.prepare_cache})" if preparation.prepare_cache else ""
    return Cell(figure(preparation.prepare_s) + cache, preparation.prepare_s)


def _verdict(record: Record) -> Cell:
    if record.verdict is None:
        return Cell("")
    return Cell(str(record.verdict), list(Status).index(record.verdict))


COLUMNS = (
    Column("model", lambda r: Cell(r.identity.model), is_number=False),
    Column("category", lambda r: Cell(r.identity.category), is_number=False),
    Column("scheme", _scheme, is_number=False),
    Column("verdict", _verdict, is_number=False, is_optional=True),
    Column("batch", _shown(lambda r: r.identity.batch, "{:.0f}".format)),
    Column("median ms", _shown(lambda r: r.timing.latency_ms, figure)),
    Column(
        "95 % interval, ms", _interval(lambda r: r.timing.latency_low_ms, lambda r: r.timing.latency_high_ms, figure)
    ),
    Column("speedup", _shown(_but_fp32(lambda r: r.timing.speedup), times)),
    Column(
        "95 % interval",
        _interval(_but_fp32(lambda r: r.timing.speedup_low), _but_fp32(lambda r: r.timing.speedup_high), times),
    ),
    Column("images/s", _shown(lambda r: r.timing.throughput_ips, figure), is_optional=True),
    Column("peak MiB", _shown(lambda r: r.memory.peak_memory_bytes, _one_decimal, _MIB)),
    Column("saved", _shown(_but_fp32(lambda r: r.memory.memory_reduction), plain_percent)),
    Column("size MiB", _shown(lambda r: r.memory.model_size_bytes, _one_decimal, _MIB)),
    Column("SQNR dB", _shown(lambda r: r.fidelity.sqnr_db, _one_decimal)),
    Column("accuracy", _shown(lambda r: r.fidelity.accuracy, "{:.1%}".format), is_optional=True),
    Column("mJ/image", _shown(lambda r: r.timing.energy_per_image_mj, figure), is_optional=True),
    Column("prepared in s", _prepared, is_optional=True),
    Column("graphs", _shown(lambda r: r.preparation.graphs, "{:.0f}".format), is_optional=True),
    Column("graph breaks", _shown(lambda r: r.preparation.graph_breaks, "{:.0f}".format), is_optional=True),
    Column("recompiles", _shown(lambda r: r.preparation.recompiles, "{:.0f}".format), is_optional=True),
    Column("graph pool MiB", _shown(lambda r: r.memory.graph_pool_bytes, _one_decimal, _MIB), is_optional=True),
)
