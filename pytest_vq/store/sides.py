"""Reads what a user names on the command line as a side of a comparison: a run, baselines, or ``study``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from pytest_vq.catalog.models import all_models
from pytest_vq.errors import BaselineError
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.serving import ServingFigures
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.side import Side, SideKind, SidePair, SideServing, entry_of
from pytest_vq.schema.spec import CALLABLE, CaseId, ModelSpec
from pytest_vq.store.baseline_format import baseline_files
from pytest_vq.store.baselines import BaselineStore
from pytest_vq.store.published import STUDY_NAME, published_study
from pytest_vq.store.results import STUDY, TABLE, Results, Row, estimates_of, read_results, rows_of_pairs
from pytest_vq.wording import listed

_VERSIONS_FIRST = ("driver", "torch", "transformers", "bitsandbytes")
_SHOWN = 3  # values of one fact; of more, the rest is counted


def read_side(argument: str, label: str) -> Side:
    """The side that ``argument`` names: ``study``, a run's directory or study.json, or a directory of baselines.

    Raises ResultsError or BaselineError where there is nothing of the kind, or where it cannot be read or trusted.
    """
    if argument == STUDY_NAME:
        return published_study(label)
    path = Path(argument)
    # A run that lost its study.json is still a run: its table says so, and the error is about the right file.
    is_run = not path.is_dir() or any((path / name).exists() for name in (STUDY, TABLE))
    found = None if is_run else _find_baselines(path)
    return _run_side(read_results(path), argument, label) if found is None else _baselines_side(*found, argument, label)


def _find_baselines(path: Path) -> tuple[BaselineStore, str] | None:
    """The store and the device of a directory of baselines: of one device, or the root of exactly one."""
    devices = BaselineStore(path).devices()
    if len(devices) > 1:
        choices = ", ".join(str(path / slug) for slug in devices)
        raise BaselineError(f"{path} holds the baselines of {len(devices)} devices: name one of {choices}")
    if devices:
        return BaselineStore(path), devices[0]
    if any(baseline_files(path)):
        whole = path.resolve() if path.name in ("", "..") else path  # "." is named by where it is
        return BaselineStore(whole.parent), whole.name
    return None


def _run_side(results: Results, name: str, label: str) -> Side:
    everything = _run_pairs(results.rows, name)
    device = _values(row.environment.device_slug for row in results.rows)
    facts = {"device": device} | _facts(everything) | ({} if results.complete else {"run": "interrupted"})
    failures = tuple(f"{failure.id} ({failure.error})" for failure in results.failures)
    # Of a pair that was put under load twice in the same way, the last row counts.
    last = {(record.case_id, record.setup): record.serving for record in results.records if record.setup.serving}
    served = tuple(SideServing(*key, figures) for key, figures in last.items())
    return Side(label, name, SideKind.RUN, facts, _alone(everything), failures, serving=served)


def _run_pairs(rows: Iterable[Row], name: str) -> tuple[SidePair, ...]:
    """Each pair with the processes of all its rows."""
    pairs = []
    for (case_id, setup), taken in rows_of_pairs(rows).items():
        entry = entry_of(setup, estimates_of(taken), name)
        doubts = [row.record.disturbance for row in taken if row.record.disturbance]
        category = taken[0].record.identity.category
        pairs.append(SidePair.of(case_id, category, entry, doubts[0] if doubts else None))
    return tuple(pairs)


def _baselines_side(store: BaselineStore, device: str, name: str, label: str) -> Side:
    known = all_models()
    everything = tuple(
        SidePair.of(_case_id(model, entry), _category(known.get(model), entry.setup), entry)
        for model, entries in store.all_entries(device).items()
        for entry in entries
    )
    served = tuple(_stored_serving(pair.case_id, pair.entry) for pair in everything if pair.entry and _is_served(pair))
    facts = {"device": device} | _facts(everything)
    return Side(label, name, SideKind.BASELINES, facts, _alone(everything), serving=served)


def _alone(pairs: Iterable[SidePair]) -> tuple[SidePair, ...]:
    """Those that were not put under load."""
    return tuple(pair for pair in pairs if not _is_served(pair))


def _is_served(pair: SidePair) -> bool:
    return pair.setup is not None and pair.setup.serving is not None


def _stored_serving(case_id: CaseId, entry: Entry) -> SideServing:
    """What the processes of a baseline come to, of those that were sent the rate that the last one was."""
    taken = [process.serving for process in entry.processes if process.serving is not None]
    same = [one for one in taken if one.target_qps == taken[-1].target_qps]
    searched = [one for one in taken if one.max_qps_low is not None]
    requests, late = sum(one.requests for one in same), sum(one.late for one in same)
    figures = ServingFigures(
        scenario=None if entry.setup.serving is None else entry.setup.serving.scenario,
        target_qps=taken[-1].target_qps if taken else None,
        max_qps_low=searched[-1].max_qps_low if searched else None,
        max_qps_high=searched[-1].max_qps_high if searched else None,
        offline_qps=_median(one.offline_qps for one in same),
        p995_ms=_median(one.p995_ms for one in same),
        violation_rate=late / requests if requests else None,
        late_requests=late,
        load_processes=len(same),
    )
    return SideServing(case_id, entry.setup, figures)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _category(model: ModelSpec | None, setup: Setup) -> str | None:
    if setup.is_callable:
        return CALLABLE
    return None if model is None else model.category


def _case_id(model: str, entry: Entry) -> CaseId:
    return CaseId(model, entry.setup.scheme, entry.setup.batch, serving=entry.setup.serving is not None)


def _facts(pairs: Sequence[SidePair]) -> dict[str, str]:
    """What the processes of ``pairs`` ran on and with; several values where they differ among themselves."""
    processes = [process for pair in pairs for process in pair.processes]
    setups = [pair.setup for pair in pairs if pair.setup is not None]
    versions = sorted({name for process in processes for name in process.versions} - set(_VERSIONS_FIRST))
    limits = sorted({process.power_limit_mw for process in processes if process.power_limit_mw is not None})
    facts = {
        "device uuid": _values(process.device_uuid for process in processes),
        "power limit": _values(f"{limit / 1000:.0f} W" for limit in limits),
        **{name: _values(p.versions.get(name) for p in processes) for name in (*_VERSIONS_FIRST, *versions)},
        "protocol": _values(setup.protocol for setup in setups),
        "weights": _values(setup.weights for setup in setups),
        "threads": _values(None if setup.threads is None else str(setup.threads) for setup in setups),
        "TF32": _values("on" if setup.tf32 else "off" for setup in setups),
        "type of the rest": _values(setup.rest for setup in setups),
        "batch": _values(str(setup.batch) for setup in setups),
        "processes a pair": _span([str(n) for n in sorted({len(pair.processes) for pair in pairs})]),
        "date": _span(_dates(processes)),
        "commit": _values(process.commit for process in processes),
    }
    return {name: value for name, value in facts.items() if value}


def _dates(processes: Sequence[Estimates]) -> list[str]:
    return sorted({process.date_utc for process in processes})


def _span(ordered: Sequence[str]) -> str:
    return f"{ordered[0]} … {ordered[-1]}" if len(ordered) > 1 else "".join(ordered)


def _values(values: Iterable[str | None]) -> str:
    return listed(sorted({value for value in values if value}), _SHOWN)
