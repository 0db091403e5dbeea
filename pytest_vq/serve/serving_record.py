"""The figures of a serving row, out of what its processes saw. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from statistics import median

from pytest_vq.errors import MeasurementError
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.figures import Effort, MemoryFigures, TimedFigures
from pytest_vq.schema.load_run import LoadRun, percentile_ms
from pytest_vq.schema.record import Environment, PairSamples, Record, Samples
from pytest_vq.schema.served import ExecutedBatch, ServedFacts
from pytest_vq.schema.serving import OFFLINE, LoadEvidence, ServingEstimates, ServingFigures, ServingTerms
from pytest_vq.schema.setup import Setup
from pytest_vq.serve.serving_plans import errors_in_words
from pytest_vq.serve.serving_runs import PairUnderLoad, tail_claim
from pytest_vq.serve.tails import TailVerdict, judge_tail

_MIN_FOR_P95, _MIN_FOR_P99, _MIN_FOR_P995 = 60, 300, 600


def record_of(served: PairUnderLoad, setup: Setup, effort: Effort) -> Record:
    """The record of a pair under load, without a verdict.

    Raises MeasurementError where too few requests were answered for a median.
    """
    terms, facts = terms_of(setup), facts_of(served.alone)
    runs = served.loads or (served.alone,)
    return Record(
        identity=facts.identity,
        timing=_timing(runs, served),
        memory=MemoryFigures(*(None,) * 7),
        coverage=facts.coverage,
        fidelity=facts.fidelity,
        setup=setup,
        preparation=facts_of(runs[-1]).preparation,  # after the load: a recompilation during it counts
        effort=effort,
        serving=_figures(served, terms),
        disturbance=served.untold or _disturbance(runs),
        note="; ".join(filter(None, (facts.note, _note_on_fallback(served)))) or None,
        load=_evidence(runs, served, terms),
    )


def terms_of(setup: Setup) -> ServingTerms:
    """The terms of a serving row's setup. Raises ValueError for another row's."""
    if setup.serving is None:
        raise ValueError("only a serving row has terms")
    return setup.serving


def facts_of(run: LoadRun) -> ServedFacts:
    """What its service told. Raises MeasurementError where it told nothing."""
    if run.facts is None:
        raise MeasurementError("the service that was put under load told nothing of itself")
    return run.facts


def estimates_of_loads(record: Record, served: PairUnderLoad, environment: Environment) -> tuple[Estimates, ...]:
    """The estimates of every process that was judged; of the one that looked the pair over, where no rate was."""
    runs, figures = served.loads or (served.alone,), record.serving
    whole = Estimates.of(record, environment)
    return tuple(
        replace(
            whole,
            latency_ms=run.percentile_ms(50) or whole.latency_ms,
            latency_q10_ms=run.percentile_ms(10),
            latency_p95_ms=run.percentile_ms(95) if len(run.ended) >= _MIN_FOR_P95 else None,
            samples=len(run.ended),
            date_utc=facts_of(run).began_utc,
            serving=ServingEstimates(
                requests=len(run.ended),
                late=sum(run.violations()),
                target_qps=figures.target_qps,
                p995_ms=run.percentile_ms(99.5) if len(run.ended) >= _MIN_FOR_P995 else None,
                offline_qps=run.answered_per_s if run.plan.scenario == OFFLINE else figures.offline_qps,
                max_qps_low=figures.max_qps_low,
                max_qps_high=figures.max_qps_high,
            ),
        )
        for run in runs
    )


def samples_of_loads(served: PairUnderLoad) -> tuple[PairSamples, ...]:
    """Every latency of every process that was judged, from when a request was due; of answered ones, in their order."""
    return tuple(
        PairSamples(
            date_utc=facts_of(run).began_utc,
            subject=Samples((_latencies_ms(run),), _stop_reason(served), run.plan.warmup_requests),
            reference=None,
        )
        for run in served.loads or (served.alone,)
        if any(is_answered for _, is_answered in run.ended)
    )


def _latencies_ms(run: LoadRun) -> tuple[float, ...]:
    return tuple(ns / 1e6 for ns, is_answered in run.ended if is_answered)


def judged_tail(served: PairUnderLoad, terms: ServingTerms) -> TailVerdict | None:
    """The verdict on what is claimed; None where nothing is: no load was judged, or all requests came at once."""
    if not served.loads or terms.scenario == OFFLINE:
        return None
    return judge_tail([run.violations() for run in served.loads], _utilisation(served) or 0.0, tail_claim(terms))


def _utilisation(served: PairUnderLoad) -> float | None:
    if served.target_qps is None or served.offline_qps is None:
        return None
    return served.target_qps / served.offline_qps


def _figures(served: PairUnderLoad, terms: ServingTerms) -> ServingFigures:
    runs, tail = served.loads or (served.alone,), judged_tail(served, terms)
    ended = list(chain.from_iterable(run.ended for run in runs))
    batches = _batches(runs)
    waits_ms = [1e3 * wait for batch in batches for wait in batch.queue_s]
    took_ms = [1e3 * batch.execution_s for batch in batches]
    fallback = _trusted_fallback(served)
    offline_qps = median(run.answered_per_s for run in served.loads) if terms.scenario == OFFLINE else None
    return ServingFigures(
        scenario=terms.scenario,
        target_qps=served.target_qps,
        max_qps_low=served.bracket.low if served.bracket and not served.untold else None,
        max_qps_high=served.bracket.high if served.bracket and not served.untold else None,
        offline_qps=served.offline_qps if offline_qps is None else offline_qps,
        utilisation=_utilisation(served),
        p995_ms=percentile_ms(ended, 99.5) if len(ended) >= _MIN_FOR_P995 else None,
        violation_rate=tail.violation_rate if tail else None,
        violation_low=tail.violation_low if tail else None,
        violation_high=tail.violation_high if tail else None,
        variance_inflation=tail.inflation if tail else None,
        late_requests=tail.late if tail else None,
        unanswered_requests=sum(not answered for _, answered in ended),
        load_processes=len(served.loads),
        queue_ms=median(waits_ms) if waits_ms else None,
        queue_p99_ms=_quantile(waits_ms, 0.99),
        execution_ms=median(took_ms) if took_ms else None,
        execution_p99_ms=_quantile(took_ms, 0.99),
        mean_batch_size=len(waits_ms) / len(batches) if batches else None,
        fallback_p995_ms=fallback.percentile_ms(99.5) if fallback and len(fallback.ended) >= _MIN_FOR_P995 else None,
        fallback_violation_rate=sum(fallback.violations()) / len(fallback.ended) if fallback else None,
        fallback_memory_bytes=facts_of(served.fallback).fallback_bytes if served.fallback else None,
    )


def _trusted_fallback(served: PairUnderLoad) -> LoadRun | None:
    return served.fallback if served.fallback and not _disturbance([served.fallback]) else None


def _note_on_fallback(served: PairUnderLoad) -> str | None:
    why = _disturbance([served.fallback]) if served.fallback else None
    return f"the fallback's tail is not told: {why}" if why else None


def _timing(runs: Sequence[LoadRun], served: PairUnderLoad) -> TimedFigures:
    ended = list(chain.from_iterable(run.ended for run in runs))
    typical_ms = percentile_ms(ended, 50)
    if typical_ms is None:
        answered, said = sum(is_answered for _, is_answered in ended), errors_in_words(runs) or "the others too late"
        raise MeasurementError(f"only {answered} of {len(ended)} requests were answered: no median ({said})")
    return TimedFigures(
        latency_ms=typical_ms,
        latency_low_ms=None,  # requests depend on each other: intervals of their quantiles would be too narrow
        latency_high_ms=None,
        latency_q10_ms=percentile_ms(ended, 10),
        latency_p95_ms=percentile_ms(ended, 95) if len(ended) >= _MIN_FOR_P95 else None,
        latency_p99_ms=percentile_ms(ended, 99) if len(ended) >= _MIN_FOR_P99 else None,
        latency_cv=None,
        device_time_ms=None,
        throughput_ips=median(run.answered_per_s for run in runs),
        samples=len(ended),
        stop_reason=_stop_reason(served),
        launch_bound=None,
        speedup=None,
        speedup_low=None,
        speedup_high=None,
        sentinel_ms=None,
    )


def _stop_reason(served: PairUnderLoad) -> str:
    return "budget" if served.is_short else "protocol"


def _evidence(runs: Sequence[LoadRun], served: PairUnderLoad, terms: ServingTerms) -> LoadEvidence:
    sizes = Counter(str(batch.size) for batch in _batches(runs))
    probes = served.bracket.probes if served.bracket else {}
    return LoadEvidence(
        terms=terms,
        requests=len(runs[0].ended),
        batch_times=facts_of(served.alone).batch_times,
        batch_sizes=dict(sorted(sizes.items(), key=lambda found: int(found[0]))),
        outcomes=dict(Counter(outcome for run in runs for outcome in run.requests.outcome)),
        messages={outcome: message for run in runs for outcome, message in run.messages.items()},
        repeats=served.repeats,
        probes={f"{rate:.6g}": share for rate, share in sorted(probes.items())},
    )


def _batches(runs: Iterable[LoadRun]) -> list[ExecutedBatch]:
    return [batch for run in runs for batch in facts_of(run).executed]


def _disturbance(runs: Sequence[LoadRun]) -> str | None:
    """Why what was judged cannot be trusted: the first reason of the first process that has one."""
    return next((why for run in runs for why in (run.invalid, facts_of(run).disturbance) if why), None)


def _quantile(values: Sequence[float], share: float) -> float | None:
    return sorted(values)[int(share * len(values))] if len(values) >= _MIN_FOR_P99 else None
