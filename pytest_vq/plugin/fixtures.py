"""The fixtures that tests use: ``vq_case``, ``vq_bench`` and ``gpu_timer``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
    from pytest_vq.plugin.session import OUTCOME, SESSION

    item: pytest.Item = request.node
    session = item.config.stash[SESSION]
    measure_afresh = partial(session.measure_afresh, item.nodeid)

    def run(case: Case) -> Record:
        __tracebackhide__ = True
        try:
            # Stored before it is judged: a broken baseline must not lose what was measured.
            item.stash[OUTCOME] = session.measure(case, measure_afresh)
            measured = item.stash[OUTCOME]
            outcome = item.stash[OUTCOME] = session.judge(case, measured, tolerances_of(item), measure_afresh)
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
