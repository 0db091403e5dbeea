"""The fixtures that tests use: ``vq_case``, ``vq_bench``, ``vq_gate``, ``vq_serve`` and ``gpu_timer``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vq.errors import MeasurementError, SelectionError, VqError

if TYPE_CHECKING:
    from pytest_vq.schema.cases import AnyCase, CallableCase
    from pytest_vq.schema.figures import Timing
    from pytest_vq.schema.outcome import Outcome
    from pytest_vq.schema.record import Record
    from pytest_vq.schema.spec import Case


@pytest.fixture
def vq_case(request: pytest.FixtureRequest) -> Case:
    """One pair of the selected matrix: this test runs once for each."""
    case: Case = request.param
    return case


@pytest.fixture
def vq_bench(request: pytest.FixtureRequest, benchmark: Any) -> Callable[[Case], Record]:
    """Measure a pair, record it, and fail the test where it is worse than its baseline. Returns the record."""

    def run(case: Case) -> Record:
        __tracebackhide__ = True
        return _gated(request.node, benchmark, case).record

    return run


@pytest.fixture
def vq_gate(request: pytest.FixtureRequest, benchmark: Any) -> Callable[..., Timing]:
    """Time any callable, record it, and fail the test where it is worse than its baseline, found by the test's id.

    It is called with the arguments that follow it, again and again. Returns the timing; a test may use this once.
    """
    item: pytest.Item = request.node
    used = False

    def run(function: object, /, *args: object, **kwargs: object) -> Timing:
        __tracebackhide__ = True
        nonlocal used
        if used:
            raise _failed_by(MeasurementError(f"{item.nodeid}: vq_gate was used twice. {_ONE_A_TEST}"))
        if not callable(function):
            given = f"vq_gate was given an object of class {type(function).__name__}"
            raise _failed_by(MeasurementError(f"{item.nodeid}: {given}: {_HOW_TO_CALL}"))
        used = True
        return _timing_of(_gated(item, benchmark, _callable_case(item, partial(function, *args, **kwargs))))

    return run


@pytest.fixture
def vq_serve(request: pytest.FixtureRequest, benchmark: Any) -> Callable[..., Record]:
    """Put a pair under load, record what became of it, and fail the test where too many requests were late.

    ``vq_serve(vq_case, scenario="Server", fallback=False)`` returns the record. ``@pytest.mark.vq_serving`` says what
    is promised: ``latency_bound_ms`` (10), ``percentile`` (99.5), ``max_batch_size`` (8),
    ``max_queue_delay_microseconds`` (0); of Server ``target_qps``, if not the baseline's rate is meant; of MultiStream
    ``samples_per_query``. With ``fallback`` FP32 is measured too, as a guard with an open circuit breaker answers.
    """
    item: pytest.Item = request.node
    used = False

    def run(case: Case, scenario: str = "Server", *, fallback: bool = False) -> Record:
        __tracebackhide__ = True
        from pytest_vq.plugin.serving_tests import serving_case

        nonlocal used
        if used:
            raise _failed_by(MeasurementError(f"{item.nodeid}: vq_serve was used twice: a test has one row"))
        used = True
        try:
            serving = serving_case(item, case, scenario, fallback=fallback)
        except VqError as error:
            raise _failed_by(error) from None
        return _gated(item, benchmark, serving).record

    return run


@pytest.fixture
def gpu_timer(request: pytest.FixtureRequest) -> Callable[..., Timing]:
    """Time any callable as the pairs are timed: CUDA events with ``--gpu``, the host's clock without."""
    from pytest_vq.plugin.session import SESSION

    session = request.config.stash[SESSION]

    def run(function: Callable[..., object], *args: object, **kwargs: object) -> Timing:
        return session.bench.time(lambda: function(*args, **kwargs))

    return run


_AS_AN_ARGUMENT = (
    "what is measured is counted before the first test runs, so vq_bench, vq_gate and vq_serve must be arguments of "
    "the test, or of fixtures that it names; request.getfixturevalue comes too late"
)
_HOW_TO_CALL = "pass it the function to call, and after it the arguments"
_ONE_A_TEST = (
    "Its baseline is found by the test's id, so that each test has one callable: parametrize the test, or write "
    "another one (gpu_timer may be used any number of times, and gates nothing)"
)


def _gated(item: pytest.Item, benchmark: Any, case: AnyCase) -> Outcome:
    """Measure ``case`` and judge it; raises what fails the test of ``item``."""
    __tracebackhide__ = True
    from pytest_vq.plugin.benchmark import TIMER, replay
    from pytest_vq.plugin.marker import tolerances_of
    from pytest_vq.plugin.session import OUTCOME, PROFILE_INSTEAD, SESSION
    from pytest_vq.plugin.xdist import id_without_group
    from pytest_vq.schema.cases import ServingCase

    node_id = id_without_group(item)
    if TIMER not in item.stash:
        raise _failed_by(SelectionError(f"{node_id}: {_AS_AN_ARGUMENT}"))
    session, profile_instead = item.config.stash[SESSION], item.config.stash.get(PROFILE_INSTEAD, None)
    try:
        if profile_instead is not None and not isinstance(case, ServingCase):
            profile_instead(session, case)  # ends the test
        # Stored before it is judged: a broken baseline must not lose what was measured.
        measured = item.stash[OUTCOME] = session.measure(case, node_id)
        outcome = item.stash[OUTCOME] = session.judge(case, node_id, measured, tolerances_of(item))
    except VqError as error:
        # With a cause the traceback leads to it; without one the message is all there is to say.
        if error.__cause__ is not None:
            raise
        raise _failed_by(error) from None
    replay(benchmark, item, outcome.samples_ms, outcome.record)
    if session.fails(outcome.record.verdict):
        lines = [f"{outcome.record.verdict}: {outcome.record.reason}"]
        if outcome.explanation:
            lines += ["what changed inside, one profiled call against the baseline's:"]
            lines += [f"  {sentence}" for sentence in outcome.explanation]
        pytest.fail("\n".join(lines), pytrace=False)
    return outcome


def _failed_by(error: VqError) -> BaseException:
    """What fails a test by the message of ``error`` alone; the report tells its class by the context."""
    failure = pytest.fail.Exception(f"{type(error).__name__}: {error}", pytrace=False)
    failure.__context__, failure.__suppress_context__ = error, True
    return failure


def _callable_case(item: pytest.Item, call: partial[object]) -> CallableCase:
    from pytest_vq.plugin.xdist import id_without_group
    from pytest_vq.schema.cases import CallableCase

    function: Any = call.func
    named = function if hasattr(function, "__qualname__") else type(function)  # an instance: a module of torch's, say
    module = getattr(named, "__module__", None)
    return CallableCase(id_without_group(item), ".".join(filter(None, (module, named.__qualname__))), call)


def _timing_of(outcome: Outcome) -> Timing:
    from pytest_vq.schema.figures import Timing

    timing, peak_bytes = outcome.record.timing, outcome.record.memory.peak_memory_bytes
    low, high, samples_ms = timing.latency_low_ms, timing.latency_high_ms, outcome.samples_ms
    return Timing(timing.latency_ms, low, high, samples_ms, peak_bytes, timing.stop_reason)


__all__ = ["gpu_timer", "vq_bench", "vq_case", "vq_gate", "vq_serve"]
