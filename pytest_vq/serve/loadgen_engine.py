"""Load by MLPerf's LoadGen: its schedule, its sending and its trace of every request."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pytest_vq.errors import MeasurementError
from pytest_vq.schema.load_run import LoadPlan, LoadRun, Requests, why_invalid
from pytest_vq.serve.endpoint import Service
from pytest_vq.serve.ledger import Entry, Ledger

# One line each in a file that is no valid JSON (LoadGen quotes some strings twice).
_REQUEST = re.compile(
    rb'^\{"name":"Sample","cat":"default","ph":"b",.*?"ts":(\d+)\.(\d{3}),"args":\{"sample_seq":(\d+),"query_seq":(\d+),'
    rb'"sample_idx":(\d+),"issue_start_ns":(-?\d+),"complete_ns":(-?\d+)\}\}',
    re.MULTILINE,
)
_ORIGIN = re.compile(rb'^"ts":(\d+)\.(\d{3}),$', re.MULTILINE)
_VERSION = re.compile(r'"key": "loadgen_version", "value": "([^" ]+)')


def run_loadgen(plan: LoadPlan, service: Service, logs: Path) -> LoadRun:
    """One run of ``plan``.

    LoadGen's own files are left in ``logs``. Raises MeasurementError where they do not say of every request what
    became of it.
    """
    import mlperf_loadgen as loadgen

    def complete(key: int) -> None:
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(key, 0, 0)])

    # LoadGen's clock is the system's: on it, what is noted here and what is traced there can be compared.
    with Ledger(service, plan, time.time_ns, complete) as ledger:
        sut = loadgen.ConstructSUT(_sender(ledger), lambda: None)
        library = loadgen.ConstructQSL(service.sample_count, service.sample_count, lambda _: None, lambda _: None)
        # A file audit.config where the process happens to run would change the run: none is read.
        no_audit = str(logs / "no-audit.config")
        loadgen.StartTestWithLogSettings(sut, library, _settings(loadgen, plan), _log_settings(loadgen, logs), no_audit)
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(sut)
    requests = read_trace((logs / "mlperf_log_trace.json").read_bytes(), ledger.entries)
    version = _version((logs / "mlperf_log_detail.txt").read_text())
    return LoadRun(plan, "loadgen", version, requests, ledger.messages, why_invalid(plan, requests))


def _sender(ledger: Ledger) -> Callable[[Sequence[Any]], None]:
    return lambda samples: ledger.send([(sample.id, sample.index) for sample in samples])


def _settings(loadgen: Any, plan: LoadPlan) -> Any:
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, plan.scenario)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_query_count = plan.queries  # as many queries, however long they take
    settings.min_duration_ms = 0
    settings.multi_stream_samples_per_query = plan.samples_per_query
    settings.server_target_qps = plan.target_qps or 1.0  # of Server only
    settings.server_target_latency_ns = int(plan.latency_bound_ms * 1e6)
    settings.server_target_latency_percentile = plan.percentile / 100
    settings.schedule_rng_seed, settings.sample_index_rng_seed, settings.qsl_rng_seed = seeds(plan)
    return settings


def _log_settings(loadgen: Any, logs: Path) -> Any:
    settings = loadgen.LogSettings()
    settings.enable_trace = True
    settings.log_output.outdir = str(logs)
    settings.log_output.copy_summary_to_stdout = False
    return settings


def seeds(plan: LoadPlan) -> tuple[int, int, int]:
    """The seeds of the schedule, of the choice of samples, and of their order: different ones for every plan's seed."""
    return 3 * plan.seed, 3 * plan.seed + 1, 3 * plan.seed + 2


def read_trace(trace: bytes, entries: Sequence[Entry]) -> Requests:
    """Every request that ``trace`` tells of, with the outcomes of ``entries``, which are in the order sent.

    Raises MeasurementError where the two do not tell of the same requests, or one did not end.
    """
    origin = _ORIGIN.search(trace)
    events = sorted((tuple(map(int, line)) for line in _REQUEST.findall(trace)), key=lambda event: event[2])
    traced = [(sequence, sample) for _, _, sequence, _, sample, *_ in events]
    if origin is None or traced != [(i, entry.sample) for i, entry in enumerate(entries)]:
        raise MeasurementError(
            f"LoadGen's trace tells of {len(traced)} requests, and not of the {len(entries)} that it sent: its form is "
            "another in this version of mlcommons-loadgen; install the one that constraints.txt of pytest-vq names"
        )
    origin_ns = int(origin[1]) * 1000 + int(origin[2])
    columns = [_columns(event, entry, origin_ns) for event, entry in zip(events, entries, strict=True)]
    return Requests(*zip(*columns, strict=True))


def _columns(event: tuple[int, ...], entry: Entry, origin_ns: int) -> tuple[int, int, int, int, int, str]:
    scheduled_us, scheduled_rest_ns, _, query, sample, issued_ns, latency_ns = event
    scheduled_ns = scheduled_us * 1000 + scheduled_rest_ns
    # What LoadGen calls issued is before its call reaches Python; the service has it later.
    sent_ns = max(entry.sent_ns - origin_ns, scheduled_ns + issued_ns)
    if entry.outcome is None or sent_ns > scheduled_ns + latency_ns + 1_000_000:
        raise MeasurementError(
            f"request {query} was answered before it was sent, or never: was the system's clock set? Run again"
        )
    return query, sample, scheduled_ns, sent_ns, scheduled_ns + latency_ns, entry.outcome


def _version(detail: str) -> str:
    found = _VERSION.search(detail)
    return found[1] if found else "unknown"
