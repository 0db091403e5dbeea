"""The fixtures that tests use: ``vq_case``, ``vq_bench`` and ``gpu_timer``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vq.errors import VqError

if TYPE_CHECKING:
    from pytest_vq.schema.record import Record, Timing
    from pytest_vq.schema.spec import Case


@pytest.fixture
def vq_case(request: pytest.FixtureRequest) -> Case:
    """One pair of the selected matrix: this test runs once for each."""
    case: Case = request.param
    return case


@pytest.fixture
def vq_bench(request: pytest.FixtureRequest, benchmark: Any) -> Callable[[Case], Record]:
    """Measure a pair, record it, and fail the test where it is worse than its baseline. Returns the record."""
    from pytest_vq.plugin.benchmark import replay
    from pytest_vq.plugin.marker import tolerances_of
    from pytest_vq.plugin.session import OUTCOME, PROFILE_INSTEAD, SESSION

    item: pytest.Item = request.node
    session, profile_instead = item.config.stash[SESSION], item.config.stash.get(PROFILE_INSTEAD, None)

    def run(case: Case) -> Record:
        __tracebackhide__ = True
        try:
            if profile_instead is not None:
                profile_instead(session, case)  # ends the test
            # Stored before it is judged: a broken baseline must not lose what was measured.
            measured = item.stash[OUTCOME] = session.measure(case, item.nodeid)
            outcome = item.stash[OUTCOME] = session.judge(case, item.nodeid, measured, tolerances_of(item))
        except VqError as error:
            # With a cause the traceback leads to it; without one the message is all there is to say.
            if error.__cause__ is not None:
                raise
            raise pytest.fail.Exception(f"{type(error).__name__}: {error}", pytrace=False) from None
        replay(benchmark, item, outcome.samples_ms, outcome.record)
        if session.fails(outcome.record.verdict):
            lines = [f"{outcome.record.verdict}: {outcome.record.reason}"]
            if outcome.explanation:
                lines += ["what changed inside, one profiled call against the baseline's:"]
                lines += [f"  {sentence}" for sentence in outcome.explanation]
            pytest.fail("\n".join(lines), pytrace=False)
        return outcome.record

    return run


@pytest.fixture
def gpu_timer(request: pytest.FixtureRequest) -> Callable[..., Timing]:
    """Time any callable as the pairs are timed: CUDA events with ``--gpu``, the host's clock without."""
    from pytest_vq.plugin.session import SESSION

    session = request.config.stash[SESSION]

    def run(function: Callable[..., object], *args: object, **kwargs: object) -> Timing:
        return session.bench.time(lambda: function(*args, **kwargs))

    return run


__all__ = ["gpu_timer", "vq_bench", "vq_case"]
