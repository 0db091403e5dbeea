"""The measured pairs of a run as candidates for deployment, each with what it is compared with. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytest_vq.precision.precisions import precision_place
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import EAGER, CaseId
from pytest_vq.store.samples import SamplesLine


@dataclass(frozen=True, slots=True)
class Candidate:
    """One measured pair."""

    record: Record
    reference: Record | None  # eager FP32 of the same model, batch and weights; itself for FP32
    samples_ms: tuple[float, ...] = ()  # every stored time of a request, of all the processes that measured it

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


def candidates_of(records: Sequence[Record], samples: Iterable[SamplesLine] = ()) -> tuple[Candidate, ...]:
    """``records`` as candidates, model by model in the order of the run, each model's in the catalog's order."""
    models = list(dict.fromkeys(record.identity.model for record in records))
    times: dict[CaseId, list[float]] = {}
    for line in samples:
        times.setdefault(line.case_id, []).extend(line.samples.subject.times_ms)
    references = {_likeness(record): record for record in records if record.setup.is_reference}
    ordered = sorted(records, key=lambda record: (models.index(record.identity.model), *_order(record)))
    return tuple(
        Candidate(record, references.get(_likeness(record)), tuple(times.get(record.case_id, ()))) for record in ordered
    )


def by_model(candidates: Iterable[Candidate]) -> Mapping[str, tuple[Candidate, ...]]:
    """``candidates`` under their models' names."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.model, []).append(candidate)
    return {model: tuple(group) for model, group in groups.items()}


def _likeness(record: Record) -> tuple[str, int, str]:
    return record.identity.model, record.setup.batch, record.setup.weights


def _order(record: Record) -> tuple[int, int, bool, str]:
    setup = record.setup
    return setup.batch, precision_place(setup.precision), setup.execution != EAGER, setup.scheme
