"""A pair as a service: what it answers, in which batches, and what it tells of itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_vq.catalog.inputs import join_inputs
from pytest_vq.device.telemetry import HostTelemetry
from pytest_vq.errors import OutputError
from pytest_vq.execution.prepared import Alteration, Prepared, unaltered
from pytest_vq.execution.schemes import find_scheme
from pytest_vq.options import Options
from pytest_vq.schema.cases import ServingCase
from pytest_vq.schema.serving import ServingTerms
from pytest_vq.schema.spec import Case, ModelSpec, Scheme
from pytest_vq.serve.case_service import CaseService, ServingManner

ALONE = ServingManner()


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 10)).eval()


def expected_of(service: CaseService, sample: int) -> Tensor:
    with torch.inference_mode():
        answer: Tensor = build()(service._samples[sample])
    return answer


@contextmanager
def served(
    scheme: str = "fp32", most: int = 4, manner: ServingManner = ALONE, alter: Alteration = unaltered
) -> Iterator[CaseService]:
    model = ModelSpec("net", "local", "Net", (3, 4, 4), None, ("3",), build=build)
    case = ServingCase(Case(model, find_scheme(scheme)), ServingTerms("Server", "builtin", max_batch_size=most))
    service = CaseService(case, Options(), alter, manner)
    try:
        yield service
    finally:
        service.close()


def noting_batches(sizes: list[int], **changes: Any) -> Alteration:
    """What notes the size of every batch that reaches the pair's model, and on which thread."""

    def alter(_: Scheme, prepared: Prepared) -> Prepared:
        def call(images: Tensor) -> object:
            sizes.append(len(images))
            return prepared.call(images)

        return Prepared(call, batch=changes.get("batch"))

    return alter


def test_each_request_is_answered_with_its_own_row() -> None:
    with served() as service:
        answers = [service.submit(n).result() for n in range(service.sample_count)]
        expected = torch.cat([expected_of(service, n) for n in range(service.sample_count)])
    torch.testing.assert_close(torch.stack(answers), expected)


def test_answers_are_fp32_on_the_cpu_whatever_computed_them() -> None:
    with served("bf16") as service:
        answer = service.submit(0).result()
    assert (answer.dtype, answer.device.type, answer.shape) == (torch.float32, "cpu", (10,))


def test_what_is_told_are_the_batches_under_load_and_not_those_before() -> None:
    with served() as service:
        service.submit(0).result()
        service.begin()
        pending = [service.submit(n) for n in range(5)]
        for future in pending:
            future.result()
        facts = service.facts()
    assert sum(batch.size for batch in facts.executed) == 5
    assert max(batch.size for batch in facts.executed) <= 4
    assert facts.identity.model == "net"
    assert (facts.identity.batch, facts.identity.precision) == (1, "fp32")


def test_a_pair_that_is_looked_over_is_judged_and_its_batches_timed() -> None:
    with served("bf16", most=6, manner=ServingManner(looks_over=True)) as service:
        facts = service.facts()
    assert facts.fidelity.sqnr_db is not None
    assert facts.fidelity.sqnr_db > 30
    assert [time.batch for time in facts.batch_times] == [1, 2, 4, 6]
    time = facts.batch_times[-1]
    assert time.images_per_s == pytest.approx(6e3 / time.execution_ms)


def test_a_pair_that_is_not_looked_over_was_not_judged() -> None:
    with served("bf16") as service:
        facts = service.facts()
    assert (facts.fidelity.sqnr_db, facts.batch_times) == (None, ())


def test_sizes_are_warm_before_the_first_request() -> None:
    sizes: list[int] = []
    with served(most=6, alter=noting_batches(sizes)):
        assert sizes == [1, 2, 4, 6, 1]  # the last is the request that has its thread warmed up


def test_what_was_made_for_one_batch_gets_every_batch_padded_to_it() -> None:
    sizes: list[int] = []
    with served(most=4, alter=noting_batches(sizes, batch=4)) as service:
        answer = service.submit(3).result()
        expected = expected_of(service, 3)[0]
    assert set(sizes) == {4}
    torch.testing.assert_close(answer, expected)


def test_an_answer_that_is_not_finite_is_an_error_before_any_load() -> None:
    def alter(_: Scheme, prepared: Prepared) -> Prepared:
        return Prepared(lambda images: prepared.call(images) * float("nan"))  # type: ignore[operator]

    refused = pytest.raises(OutputError, match="net-fp32-serving: its output for a batch of 1 is not finite")
    with refused, served(alter=alter):
        pass


def test_with_the_breaker_open_fp32_answers_and_the_pair_stands_by() -> None:
    sizes: list[int] = []

    def alter(scheme: Scheme, prepared: Prepared) -> Prepared:
        return prepared if scheme.is_reference else noting_batches(sizes)(scheme, prepared)

    with served("bf16", manner=ServingManner(fallback_answers=True), alter=alter) as service:
        answer = service.submit(2).result()
        expected = expected_of(service, 2)[0]
        facts = service.facts()
    torch.testing.assert_close(answer, expected)
    assert sizes == []
    assert facts.fallback_bytes == 4 * (48 * 64 + 64 + 64 * 10 + 10)


def test_the_batchers_thread_is_watched_and_no_other() -> None:
    with served() as service:
        service.begin()
        assert service._thread not in (None, threading.main_thread().native_id)
        assert service.facts().disturbance is None


def test_a_thread_that_waited_for_a_processor_is_told_from_the_first() -> None:
    found: dict[str, Any] = {}

    def work() -> None:
        found["id"] = threading.get_native_id()
        found["state"] = HostTelemetry(found["id"]).read()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found["id"] != os.getpid()
    assert "waiting_s" in found["state"]
    assert "waiting_s" not in HostTelemetry(2**30).read()  # which is no thread's number


@pytest.mark.parametrize("form", [lambda x: x, lambda x: (x, x + 1), lambda x: {"a": x, "b": x + 1}])
def test_parts_are_joined_in_their_order_whatever_inputs_are(form: Any) -> None:
    rows = torch.arange(6.0).reshape(3, 2)
    parts = [form(rows[:1]), form(rows[1:])]
    joined, whole = join_inputs(parts), form(rows)
    assert type(joined) is type(whole)
    tensors = [
        list(x.values()) if isinstance(x, dict) else list(x) if isinstance(x, tuple) else [x] for x in (joined, whole)
    ]
    assert all(map(torch.equal, *tensors))
