"""The measured pairs of a run as candidates for deployment, each with what it is compared with. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_vq.report.latency_interval import latency_interval, noise_of_run
from pytest_vq.report.scheme_order import SchemePlace, setup_place
from pytest_vq.report.serving_rows import ordered_serving
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import CaseId
from pytest_vq.store.results import Row, estimates_of, rows_of_pairs
from pytest_vq.store.samples import SamplesLine


@dataclass(frozen=True, slots=True)
class Candidate:
    """One measured pair."""

    record: Record
    reference: Record | None  # eager FP32 of the same model, batch and weights; itself for FP32
    latency_interval_ms: tuple[float, float] | None  # 95 %, of the median; None below 6 samples
    processes: int  # that measured it
    samples_ms: tuple[float, ...] = ()  # every stored time of a request, of all of those
    served: tuple[Record, ...] = ()  # its rows under load, in traffic of some rate

    @property
    def name(self) -> str:
        """The pair's id."""
        return self.record.id

    @property
    def short_name(self) -> str:
        """That without the model: ``int8``, ``int8-b8``."""
        setup = self.record.setup
        return setup.scheme if setup.batch == 1 else f"{setup.scheme}-b{setup.batch}"

    @property
    def model(self) -> str:
        """Its model's name."""
        return self.record.identity.model

    @property
    def is_reference(self) -> bool:
        """True for eager FP32."""
        return self.record.setup.is_reference


def candidates_of(rows: Sequence[Row], samples: Iterable[SamplesLine] = ()) -> tuple[Candidate, ...]:
    """The pairs in ``rows``, model by model in the order of the run, each model's in the catalog's order.

    Of a pair that was measured more than once the last row counts, with all processes that measured it the same way.
    Callables are left out, for none is another one's reference. Rows under load stand with their pair: their times are
    of another kind.
    """
    served = served_rows(row.record for row in rows)
    rows = [row for row in rows if row.record.setup.is_pair]
    times: dict[CaseId, list[float]] = {}
    for line in samples:
        times.setdefault(line.case_id, []).extend(line.samples.subject.times_ms)
    pairs, noise = rows_of_pairs(rows), noise_of_run(rows)
    references = {_likeness(row.record): row.record for row in rows if row.record.setup.is_reference}
    found = []
    for case_id, record in {row.record.case_id: row.record for row in rows}.items():
        processes = estimates_of(pairs[case_id, record.setup])
        interval, stored = latency_interval(record, processes, noise), tuple(times.get(case_id, ()))
        own = tuple(one for one in served if is_same_pair(one, record))
        found.append(Candidate(record, references.get(_likeness(record)), interval, len(processes), stored, own))
    models = {model: place for place, model in enumerate(dict.fromkeys(row.record.identity.model for row in rows))}
    return tuple(sorted(found, key=lambda candidate: (models[candidate.model], *_order(candidate.record))))


def by_model(candidates: Iterable[Candidate]) -> Mapping[str, tuple[Candidate, ...]]:
    """``candidates`` under their models' names."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.model, []).append(candidate)
    return {model: tuple(group) for model, group in groups.items()}


def served_rows(records: Iterable[Record]) -> list[Record]:
    """Those of ``records`` that are of a pair in traffic of some rate, each once."""
    return [
        one for one in ordered_serving(list(records)) if one.setup.serving is not None and one.setup.serving.has_rate
    ]


def is_same_pair(served: Record, record: Record) -> bool:
    """Whether a row under load is of the pair that ``record`` is of, whatever batch that was measured at by itself.

    A request under load is one image; how many go into a batch is what the service decides.
    """
    return _under_load(served) == _under_load(record)


def _under_load(record: Record) -> tuple[CaseId, str | None]:
    return replace(record.case_id, batch=1, serving=True), record.setup.weights


def _likeness(record: Record) -> tuple[str, int, str | None]:
    return record.identity.model, record.setup.batch, record.setup.weights


def _order(record: Record) -> tuple[int, SchemePlace]:
    return record.setup.batch, setup_place(record.setup)
