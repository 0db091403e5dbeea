"""A pair as a service: requests of one image each, answered in batches. It lives in the process that loads it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from pytest_vq.catalog.inputs import ModelInputs, join_inputs, move_inputs, pad_inputs, split_inputs
from pytest_vq.device.device import guarded, open_device
from pytest_vq.device.telemetry import HostTelemetry, State
from pytest_vq.errors import OutputError
from pytest_vq.execution.prepared import Alteration
from pytest_vq.execution.schemes import reference_scheme
from pytest_vq.measure.reference import Judged, Reference, forward
from pytest_vq.measure.sections import identity_of
from pytest_vq.measure.workload import Workload, place, taking
from pytest_vq.options import Options
from pytest_vq.precision.fp32 import true_fp32
from pytest_vq.schema.cases import ServingCase
from pytest_vq.schema.figures import Fidelity
from pytest_vq.schema.served import BatchTime, ExecutedBatch, ServedFacts
from pytest_vq.serve.batching import Batcher, BatchingPolicy
from pytest_vq.serve.guard import guard, held_bytes

_SAMPLES = 32  # images that requests ask about
_ROUNDS = 20  # of one batch size, at most, when it is timed
_TIMED_S = 0.5  # of one batch size, unless so few rounds take less


@dataclass(frozen=True, slots=True)
class ServingManner:
    """What differs between the processes that serve one pair."""

    looks_over: bool = False  # its answers are judged, and its batches timed, before the load
    fallback_answers: bool = False  # a guard with an open circuit breaker: FP32 answers, the pair stands by
    max_queue_size: int = 1024


class CaseService:
    """See ``TellingService``. A batch larger than one request is one execution of the pair.

    What was made for a fixed number of images (compiled, recorded, a program of the user's) was made for
    ``max_batch_size``, and smaller batches are padded to that.

    Raises what building, converting and judging the pair raise.
    """

    def __init__(self, case: ServingCase, options: Options, alter: Alteration, manner: ServingManner) -> None:
        self._case, self._options = case, options
        self._device = open_device(options.gpu, options.threads)
        self._settings = contextlib.ExitStack()
        self._executed: list[ExecutedBatch] = []
        self._judged, self._batch_times = Judged(Fidelity()), list[BatchTime]()
        self._thread: int | None = None  # the batcher's, by the system's number
        self._before: tuple[State, State] | None = None
        with guarded(self._device, case.id), torch.inference_mode():
            self._place(alter, fallback_answers=manner.fallback_answers)
            if manner.looks_over:
                self._look_over()
        self._settings.enter_context(true_fp32())  # as long as it serves
        terms = case.terms
        policy = BatchingPolicy(terms.max_batch_size, terms.max_queue_delay_microseconds, manner.max_queue_size)
        self._batcher = Batcher(self._execute, policy, self._executed.append)
        self.submit(0).result()  # which warms its thread up, and raises here what goes wrong

    @property
    def sample_count(self) -> int:
        """See ``Service.sample_count``."""
        return len(self._samples)

    def submit(self, sample: int) -> Future[Any]:
        """See ``Service.submit``: the answer is a row of FP32 on the CPU."""
        return self._batcher.submit(self._samples[sample])

    def begin(self) -> None:
        """See ``TellingService.begin``."""
        self._executed.clear()
        self._before = self._read_state()

    def facts(self) -> ServedFacts:
        """See ``TellingService.facts``."""
        workload = self._workload
        return ServedFacts(
            identity=replace(identity_of(workload, self._reference, self._device, self._options), batch=1),
            coverage=workload.converted.coverage,
            preparation=workload.preparation,
            began_utc=self._device.environment.date_utc,
            disturbance=self._find_disturbance(),
            executed=tuple(self._executed),
            fallback_bytes=None if self._fallback is None else held_bytes(self._fallback.converted.module),
            fidelity=self._judged.fidelity,
            note=self._judged.note,
            batch_times=tuple(self._batch_times),
        )

    def close(self) -> None:
        """See ``Service.close``."""
        self._batcher.close()
        self._workload.prepared.close()
        self._settings.close()

    def _place(self, alter: Alteration, *, fallback_answers: bool) -> None:
        """Convert the pair, and FP32 where it is to answer."""
        case = replace(self._case.case, batch=self._case.terms.max_batch_size)
        self._reference = Reference.of(case.model, self._options.weights)
        self._samples = split_inputs(self._reference.example(_SAMPLES), 1)
        self._workload = place(case, self._reference, self._device, alter)
        self._fallback: Workload | None = None
        self._answer = self._answering(self._workload)
        if fallback_answers:
            fp32 = replace(case, scheme=reference_scheme())
            self._fallback = place(fp32, self._reference, self._device, alter)
            guarding = guard(self._answer, fallback=self._answering(self._fallback))
            guarding.force_open("to measure what FP32 alone would answer")
            self._answer = guarding

    def _answering(self, workload: Workload) -> Callable[[ModelInputs], Tensor]:
        """What gives inputs (FP32, on the CPU) to ``workload`` and returns the tensor that is compared."""

        def answer(inputs: ModelInputs) -> Tensor:
            fed = move_inputs(inputs, self._device.torch_device, workload.converted.dtype)
            return forward(workload.prepared.request(fed), fed, self._case.id, taking(workload.case))

        return answer

    def _look_over(self) -> None:
        case, reference = self._workload.case, self._reference
        self._judged = reference.judge(case, self._workload.answer(reference.images(case.batch)))
        self._batch_times = [self._time(size) for size in self._sizes()]

    def _time(self, size: int) -> BatchTime:
        requests, times_s = self._some(size), list[float]()
        self._execute(requests)
        while len(times_s) < _ROUNDS and sum(times_s) < _TIMED_S:
            started_s = time.perf_counter()
            self._execute(requests)
            times_s.append(time.perf_counter() - started_s)
        return BatchTime(size, 1e3 * median(times_s), size / median(times_s))

    def _sizes(self) -> list[int]:
        """1, 2, 4 …, and ``max_batch_size``."""
        most = self._case.terms.max_batch_size
        return [*(2**n for n in range((most - 1).bit_length())), most]

    def _warm_up(self) -> None:
        """Execute every size of batch once, on the thread that is to execute them.

        cuDNN's plans are kept for each thread and each shape: under load the first batch of a size would wait for its
        own. A CPU keeps none that is a thread's, and takes long for many sizes: there powers of two do.
        """
        if self._workload.prepared.batch is not None:
            sizes = [self._case.terms.max_batch_size]
        elif self._device.is_accelerator:
            sizes = list(range(1, self._case.terms.max_batch_size + 1))
        else:
            sizes = self._sizes()
        for size in sizes:
            self._execute(self._some(size))

    def _some(self, size: int) -> list[ModelInputs]:
        return [self._samples[n % len(self._samples)] for n in range(size)]

    def _execute(self, requests: Sequence[ModelInputs]) -> list[Tensor]:
        """A row for each request. Copying them back waits for the device."""
        if self._thread != threading.get_native_id():
            self._thread = threading.get_native_id()
            self._device.pin_threads()  # which is a setting of each thread's own
            self._warm_up()
        batch, inputs = self._workload.prepared.batch, join_inputs(requests)
        fed = inputs if batch is None else pad_inputs(inputs, batch)
        with torch.inference_mode():
            answer: Tensor = self._answer(fed)[: len(requests)].float().cpu()
        if not bool(torch.isfinite(answer).all()):
            raise OutputError(f"{self._case.id}: its output for a batch of {len(requests)} is not finite")
        return list(answer)

    def _read_state(self) -> tuple[State, State]:
        """The device's state, and how long the batcher's thread has waited for a processor."""
        return self._device.telemetry.read(), HostTelemetry(self._thread).read()

    def _find_disturbance(self) -> str | None:
        if self._before is None:
            return None
        device, host = zip(self._before, self._read_state(), strict=True)
        return self._device.telemetry.disturbance(*device) or HostTelemetry().disturbance(*host)
