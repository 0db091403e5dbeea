"""The guard: faults injected into a tiny model, FP32's answers, and the breaker in virtual time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import pytest_vq
from pytest_vq.errors import DeviceLostError, OutputError
from pytest_vq.serve import guard as guard_module
from pytest_vq.serve import inject
from pytest_vq.serve.breaker import BreakerSettings, CircuitBreaker, Permit, State, Transition
from pytest_vq.serve.guard import Cause, Guarded, GuardedExecution

BATCH = torch.arange(24, dtype=torch.float32).reshape(8, 3)


class Time:
    """A clock that only goes when it is told to, or slept on."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def fp32(x: Tensor) -> Tensor:
    return x + 0.5


def quantized(x: Tensor) -> Tensor:
    """Near FP32's answer, and never equal to it."""
    return x + 0.25


class Setting:
    """A guard with all that is told of it."""

    def __init__(self, model: Callable[..., Any] = quantized, fallback: Callable[..., Any] = fp32, **settings: Any):
        self.time = settings.pop("time", None) or Time()
        self.told: list[GuardedExecution] = []
        self.changes: list[Transition] = []
        self.guarded = pytest_vq.guard(
            model,
            fallback=fallback,
            clock=self.time,
            on_execution=self.told.append,
            on_transition=self.changes.append,
            **settings,
        )


def test_the_answer_of_a_sound_model_is_its_own() -> None:
    setting = Setting()
    assert torch.equal(setting.guarded(BATCH), quantized(BATCH))
    assert setting.guarded.state is State.CLOSED
    assert setting.told == [GuardedExecution(8, 0, 0, None, 0.0)]


def nan_in(rows: list[int]) -> Callable[[Tensor], Tensor]:
    def model(x: Tensor) -> Tensor:
        answer = quantized(x)
        answer[rows] = torch.tensor([float("nan"), 1.0, float("-inf")])
        return answer

    return model


def test_rows_that_are_not_finite_are_fp32s_and_the_others_are_kept() -> None:
    seen: list[int] = []

    def fallback(x: Tensor) -> Tensor:
        seen.append(len(x))
        return fp32(x)

    setting = Setting(nan_in([2, 5]), fallback)
    expected = quantized(BATCH)
    expected[[2, 5]] = fp32(BATCH)[[2, 5]]
    assert torch.equal(setting.guarded(BATCH), expected)
    assert seen == [2]
    assert setting.told == [GuardedExecution(8, 2, 2, Cause.NON_FINITE, 0.0)]


class Heads(NamedTuple):
    logits: Tensor
    features: dict[str, list[Tensor]]


def test_rows_are_exchanged_in_whatever_tensors_are_in() -> None:
    def heads(model: Callable[[Tensor], Tensor]) -> Callable[..., Heads]:
        return lambda *, pixels, scale: Heads(model(pixels) * scale, {"last": [model(pixels)]})

    guarded = Setting(heads(nan_in([0])), heads(fp32)).guarded
    answer = guarded(pixels=BATCH, scale=2.0)
    assert torch.equal(answer.logits[0], fp32(BATCH)[0] * 2)
    assert torch.equal(answer.features["last"][0][0], fp32(BATCH)[0])
    assert torch.equal(answer.logits[1:], quantized(BATCH)[1:] * 2)


def test_what_overflowed_in_half_precision_does_not_overflow_again() -> None:
    def half(x: Tensor) -> Tensor:
        return (x * 1e4).half()

    answer = Setting(half, lambda x: x * 1e4).guarded(BATCH)
    assert torch.equal(answer[3:], BATCH[3:] * 1e4)
    assert torch.isfinite(answer).all()


def test_answers_whose_rows_cannot_be_exchanged_are_fp32s_as_a_whole() -> None:
    setting = Setting(nan_in([1]), lambda x: {"logits": fp32(x)})
    assert torch.equal(setting.guarded(BATCH)["logits"], fp32(BATCH))
    assert setting.told == [GuardedExecution(8, 1, 1, Cause.NON_FINITE, 0.0)]


FAULTS = {
    "nan": (lambda time: inject.nan(rate=1.0), Cause.NON_FINITE),
    "oom": (lambda time: inject.oom(rate=1.0), Cause.OUT_OF_MEMORY),
    "exception": (lambda time: inject.exception(rate=1.0), Cause.EXCEPTION),
    "slow": (lambda time: inject.slow(rate=1.0, delay_s=0.1, sleep=time.sleep), Cause.SLOW),
}


@pytest.mark.parametrize("clean", [0, 10_000])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_opens_within_3_executions_and_recovers_when_it_is_gone(fault: str, clean: int) -> None:
    time = Time()
    make, cause = FAULTS[fault]
    faulty = make(time)(quantized)
    model = [quantized]
    limits = {"slow_call_duration_threshold": 0.05, "wait_duration_in_open_state": 30.0}
    setting = Setting(lambda x: model[0](x), time=time, **limits)
    for _ in range(clean):
        setting.guarded(BATCH)
    model[0] = faulty
    executions = 3 if clean else 2  # without a past, two that fail wholly are evidence enough
    for _ in range(executions):
        assert setting.guarded.state is State.CLOSED
        assert torch.equal(setting.guarded(BATCH), fp32(BATCH))
    assert setting.guarded.state is State.OPEN
    assert setting.told[-1].cause is cause
    assert torch.equal(setting.guarded(BATCH), fp32(BATCH))
    assert setting.told[-1] == GuardedExecution(8, 0, 8, None, None)  # the quantized model was not called
    time.sleep(30.0)
    assert torch.equal(setting.guarded(BATCH), fp32(BATCH))  # the first probe fails
    assert setting.guarded.state is State.OPEN
    model[0] = quantized
    time.sleep(29.0)
    assert torch.equal(setting.guarded(BATCH), fp32(BATCH))
    time.sleep(1.0)
    for _ in range(10):
        assert torch.equal(setting.guarded(BATCH), quantized(BATCH))
    assert setting.guarded.state is State.CLOSED
    assert [change.after for change in setting.changes] == ["OPEN", "HALF_OPEN", "OPEN", "HALF_OPEN", "CLOSED"]
    assert (setting.changes[0].reason == "3 executions in a row failed wholly") is (clean > 0)


@pytest.mark.parametrize("kind", ["nan", "oom", "exception"])
def test_faults_fall_at_their_rate_and_no_caller_sees_one(kind: str) -> None:
    setting = Setting(getattr(inject, kind)(rate=0.02, seed=1)(quantized), failure_rate_threshold=0.2)
    answers = torch.stack([setting.guarded(BATCH) for _ in range(500)])
    assert torch.isfinite(answers).all()
    failed = sum(execution.failed for execution in setting.told) / 4000
    assert 0.01 < failed < 0.03
    assert setting.guarded.state is State.CLOSED


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_rates_of_faults_are_shares(rate: float) -> None:
    with pytest.raises(ValueError, match="no share"):
        inject.nan(rate=rate)


def test_rows_that_fp32_cannot_answer_either_are_not_held_against_the_model() -> None:
    broken = BATCH.clone()
    broken[4] = float("nan")
    setting = Setting()
    for _ in range(200):
        answer = setting.guarded(broken)
    assert torch.isnan(answer[4]).all()
    assert setting.told[-1] == GuardedExecution(8, 0, 1, Cause.NON_FINITE, 0.0)
    assert setting.guarded.state is State.CLOSED


def test_an_input_that_fp32_refuses_too_is_its_senders_error() -> None:
    def refusing(x: Tensor) -> Tensor:
        if x.shape[1] != 3:
            raise ValueError("three channels")
        return x

    setting = Setting(refusing, refusing)
    for _ in range(5):
        with pytest.raises(ValueError, match="three channels"):
            setting.guarded(torch.zeros(8, 2))
    assert setting.guarded.state is State.CLOSED
    assert setting.told == []


def test_memory_that_fp32_lacks_too_is_held_against_the_model() -> None:
    setting = Setting(inject.oom(rate=1.0)(quantized), inject.oom(rate=1.0)(fp32))
    for _ in range(3):
        with pytest.raises(torch.OutOfMemoryError):
            setting.guarded(BATCH)
    assert setting.guarded.state is State.OPEN


def test_answers_without_rows_are_refused_by_name() -> None:
    with pytest.raises(OutputError, match="a list without a tensor"):
        Setting(lambda x: [1], lambda x: [1]).guarded(BATCH)
    with pytest.raises(OutputError, match=r"8 rows with a tensor of shape \[\]"):
        Setting(torch.sum, torch.sum).guarded(BATCH)


def test_an_empty_batch_is_fp32s_and_teaches_nothing() -> None:
    setting = Setting()
    assert setting.guarded(BATCH[:0]).shape == (0, 3)
    assert setting.told == [GuardedExecution(0, 0, 0, None, None)]


def test_a_crashed_kernel_asks_for_a_restart_in_which_fp32_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def crashed(x: Tensor) -> Tensor:
        raise RuntimeError("CUDA error: device-side assert triggered\nhints follow")

    monkeypatch.setattr(guard_module, "device_is_lost", lambda: True)
    setting = Setting(crashed, wait_duration_in_open_state=5.0)
    with pytest.raises(DeviceLostError, match=r'assert triggered\).*state="OPEN"'):
        setting.guarded(BATCH)
    assert setting.guarded.needs_restart
    setting.time.sleep(1e6)
    assert torch.equal(setting.guarded(BATCH), fp32(BATCH))  # it is never tried again here
    assert setting.guarded.state is State.OPEN
    restarted = Setting(state="OPEN", wait_duration_in_open_state=5.0)
    assert torch.equal(restarted.guarded(BATCH), fp32(BATCH))
    restarted.time.sleep(5.0)
    assert torch.equal(restarted.guarded(BATCH), quantized(BATCH))
    assert restarted.guarded.state is State.HALF_OPEN


def test_what_the_fallback_costs_can_be_told() -> None:
    layer = nn.Linear(3, 5)
    setting = Setting(layer, layer)
    assert setting.guarded.fallback_bytes == (15 + 5) * 4
    assert Setting().guarded.fallback_bytes is None
    setting.guarded.force_open()
    setting.time.sleep(1e6)
    setting.guarded(BATCH)
    assert setting.told[-1].quantized_s is None
    assert setting.guarded.state is State.OPEN


def test_a_probe_that_was_interrupted_is_not_waited_for() -> None:
    def interrupted(x: Tensor) -> Tensor:
        raise KeyboardInterrupt

    model = [interrupted]
    limits = {"wait_duration_in_open_state": 0.0, "permitted_number_of_calls_in_half_open_state": 2}
    setting = Setting(lambda x: model[0](x), state="OPEN", **limits)
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            setting.guarded(BATCH)
    model[0] = quantized
    for _ in range(2):
        assert torch.equal(setting.guarded(BATCH), quantized(BATCH))
    assert setting.guarded.state is State.CLOSED


def test_many_threads_may_call_it() -> None:
    setting = Setting(inject.exception(rate=0.5, seed=2)(quantized), wait_duration_in_open_state=0.0)
    wrong: list[Tensor] = []

    def call() -> None:
        for _ in range(100):
            answer = setting.guarded(BATCH)
            if not (torch.equal(answer, fp32(BATCH)) or torch.equal(answer, quantized(BATCH))):
                wrong.append(answer)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(setting.told) == 800
    assert all(a.after is b.before for a, b in zip(setting.changes, setting.changes[1:], strict=False))


def breaker(**settings: Any) -> CircuitBreaker:
    return CircuitBreaker(BreakerSettings(**settings))


def permitted(one: CircuitBreaker, now_s: float) -> Permit:
    permit = one.permit(now_s)
    assert permit is not None
    return permit


def opened(**settings: Any) -> CircuitBreaker:
    one = breaker(**settings)
    for _ in range(2):
        one.record(permitted(one, 0.0), 1, 1, 0.0)
    assert one.state is State.OPEN
    return one


def test_an_execution_of_an_earlier_period_teaches_nothing() -> None:
    one = breaker()
    late = permitted(one, 0.0)
    for _ in range(2):
        one.record(permitted(one, 0.0), 8, 8, 0.0)
    probe = permitted(one, 60.0)
    one.record(late, 8, 8, 60.0)
    assert one.state is State.HALF_OPEN
    one.record(probe, 8, 1, 61.0)
    assert one.state is State.OPEN


def test_no_more_probes_than_permitted_are_under_way() -> None:
    one = opened(permitted_number_of_calls_in_half_open_state=2)
    probes = [permitted(one, 60.0), permitted(one, 60.0)]
    assert one.permit(60.0) is None
    one.forget(probes[0])  # its input was nobody's
    probes[0] = permitted(one, 60.0)
    for probe in probes:
        assert one.state is State.HALF_OPEN
        one.record(probe, 8, 0, 61.0)
    assert one.state is State.CLOSED


def test_a_steady_excess_opens_by_the_test_and_says_so() -> None:
    changes: list[Transition] = []
    one = CircuitBreaker(BreakerSettings(), on_transition=changes.append)
    for number in range(1000):
        if one.state is State.CLOSED:
            one.record(permitted(one, float(number)), 8, number % 3 == 0, float(number))
    assert one.state is State.OPEN
    assert "more than 1 % of rows fail: evidence" in changes[0].reason


@pytest.mark.parametrize(
    "settings",
    [
        {"failure_rate_threshold": 1.0},
        {"slow_call_duration_threshold": 0.0},
        {"wait_duration_in_open_state": -1.0},
        {"permitted_number_of_calls_in_half_open_state": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        pytest_vq.guard(quantized, fallback=fp32, **settings)


def test_records_that_make_no_sense_are_refused() -> None:
    one = breaker()
    with pytest.raises(ValueError, match="9 failed of 8 rows"):
        one.record(permitted(one, 0.0), 8, 9, 0.0)


def test_a_loaded_model_can_be_guarded() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 4))
    inputs = torch.randn(8, 64)
    int8, report = pytest_vq.load(model, "int8", inputs=inputs, min_sqnr_db=10)
    assert report.scheme == "int8"
    reference, _ = pytest_vq.load(model, "fp32", inputs=inputs)
    guarded = pytest_vq.guard(inject.nan(rate=0.5, seed=3)(int8), fallback=reference)
    assert isinstance(guarded, Guarded)
    answer = guarded(inputs)
    assert torch.isfinite(answer).all()
    assert (answer == reference(inputs)).all(dim=1).any()
