"""What each scheme does to the models of each category: the study's six, then any others. Pure.

An aggregate says of how many pairs it is, how far they spread, and which it leaves out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from pytest_vq.catalog.models import all_models
from pytest_vq.report.chart_data import ordered_pairs
from pytest_vq.report.document_blocks import NOT_MEASURED, Table
from pytest_vq.schema.outcome import Failure
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import CaseId
from pytest_vq.store.results import Results
from pytest_vq.wording import plain_percent, times

STUDY_CATEGORIES = ("foundation", "self-supervised", "masked-autoencoder", "production", "edge", "specialized")
_HEADERS = (
    "category",
    "scheme",
    "pairs",
    "speedup (geometric mean)",
    "range",
    "peak memory saved (median)",
    "range",
    "lowest SQNR",
    "left out of the speedup",
)
_ALIGN = ("left", "left", "right", "right", "left", "right", "left", "right", "left")


@dataclass(frozen=True, slots=True)
class SchemeSummary:
    """One scheme on the models of one category. Fractions and ratios; SQNR in dB."""

    category: str
    scheme: str
    speedups: tuple[float, ...]
    saved: tuple[float, ...]
    sqnr_db: tuple[float, ...]
    left_out: tuple[str, ...]  # pairs without a speedup, with the error of those that failed

    @property
    def speedup(self) -> float | None:
        """The geometric mean; None of no pair."""
        return math.exp(fmean(map(math.log, self.speedups))) if self.speedups else None


def summarize_categories(results: Results) -> list[SchemeSummary]:
    """Each category's schemes but FP32, from the widest to the narrowest; the study's categories first."""
    pairs = ordered_pairs(results.records)
    return [
        _summary(category, scheme, results)
        for category in _categories(results)
        for scheme in dict.fromkeys(r.setup.scheme for r in pairs if not r.setup.is_reference)
        if any(r.identity.category == category for r in pairs)
    ]


def _categories(results: Results) -> list[str]:
    found = {record.identity.category for record in ordered_pairs(results.records)}
    return [*STUDY_CATEGORIES, *sorted(found - set(STUDY_CATEGORIES))]


def _summary(category: str, scheme: str, results: Results) -> SchemeSummary:
    pairs = ordered_pairs(results.records)
    pairs = [r for r in pairs if r.identity.category == category and r.setup.scheme == scheme]
    failed = [f"{f.id} ({f.error})" for f in results.failures if _is_of(f, category, scheme, results.records)]
    return SchemeSummary(
        category=category,
        scheme=scheme,
        speedups=tuple(r.timing.speedup for r in pairs if r.timing.speedup is not None and r.timing.speedup > 0),
        saved=tuple(r.memory.memory_reduction for r in pairs if r.memory.memory_reduction is not None),
        sqnr_db=tuple(r.fidelity.sqnr_db for r in pairs if r.fidelity.sqnr_db is not None),
        left_out=(*(r.id for r in pairs if not r.timing.speedup), *failed),
    )


def _is_of(failure: Failure, category: str, scheme: str, records: Sequence[Record]) -> bool:
    """Whether what failed is a pair of this category and scheme: told by the ids that such pairs have."""
    known = all_models()
    of_model = [record.identity.category for record in records if record.identity.model == failure.model]
    if failure.model in known:
        of_model.append(known[failure.model].category)
    batches = {record.setup.batch for record in records}
    ids = {str(CaseId(failure.model, scheme, batch)) for batch in batches} if failure.model else set()
    return category in of_model and failure.id in ids


def categories_table(results: Results) -> Table:
    """That as a table; a category of the study's that was not measured says so."""
    rows: list[tuple[str, ...]] = []
    summaries = summarize_categories(results)
    for category in _categories(results):
        own = [summary for summary in summaries if summary.category == category]
        rows += _rows(own) if own else [(category, NOT_MEASURED, "0", "", "", "", "", "", "")]
    return Table(_HEADERS, _ALIGN, tuple(rows))


def _rows(summaries: Sequence[SchemeSummary]) -> Iterator[tuple[str, ...]]:
    for number, summary in enumerate(summaries):
        speedup, saved = summary.speedup, summary.saved
        yield (
            summary.category if number == 0 else "",
            summary.scheme,
            str(len(summary.speedups)),
            "" if speedup is None else times(speedup),
            _range([times(v) for v in (min(summary.speedups), max(summary.speedups))] if summary.speedups else []),
            plain_percent(median(saved)) if saved else "",
            _range([plain_percent(v) for v in (min(saved), max(saved))] if saved else []),
            f"{min(summary.sqnr_db):.1f} dB" if summary.sqnr_db else "",
            ", ".join(summary.left_out),
        )


def _range(ends: Sequence[str]) -> str:
    return " … ".join(dict.fromkeys(ends))
