"""Memory of a forward: on the CPU as the kernel tells it, on an accelerator from a fake allocator (real: tests/gpu)."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch

from pytest_vq.device.memory import (
    AcceleratorMemory,
    CallMemory,
    HostMemory,
    MemoryReading,
    freeze_live_objects,
    measure_allocations,
    private_pool_bytes,
)

MIB = 2**20
SLACK = 16 * MIB  # what else a process does meanwhile
DEVICE = torch.device("cuda", 0)
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def filled(mib: int) -> torch.Tensor:
    return torch.ones(mib * MIB // 4)


def high_water_mark_bytes() -> int:
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@pytest.fixture
def meter() -> HostMemory:
    if not STATUS.is_file():
        pytest.skip("no /proc on this system")
    filled(96).sum()  # the allocator's and the thread pool's first use are not the call's
    return HostMemory()


@pytest.fixture
def peak_meter(meter: HostMemory) -> HostMemory:
    """A meter on a kernel that lets a process reset its high-water mark; some sandboxes' kernels do not."""
    filled(512).sum()
    before = high_water_mark_bytes()
    try:
        CLEAR_REFS.write_text("5")
    except OSError as error:
        pytest.skip(f"this kernel does not let a process reset its high-water mark: {error}")
    if high_water_mark_bytes() > before - 256 * MIB:
        pytest.skip("this kernel ignores a reset of the high-water mark")
    return meter


def test_what_is_held(meter: HostMemory) -> None:
    meter.mark()
    held = filled(128)
    reading = meter.measure(lambda: (filled(192) + 1).sum())
    assert held.nbytes == 128 * MIB
    assert reading.resting_bytes == pytest.approx(128 * MIB, abs=SLACK)
    assert reading.reserved_bytes is None


def test_what_a_call_adds_for_a_while(peak_meter: HostMemory) -> None:
    peak_meter.mark()
    held = filled(128)
    reading = peak_meter.measure(lambda: (filled(192) + 1).sum())  # two of them at a time
    assert held.nbytes == 128 * MIB
    assert reading.peak_bytes == pytest.approx((128 + 384) * MIB, abs=SLACK)
    assert reading.activation_bytes == pytest.approx(384 * MIB, abs=SLACK)


def test_what_was_there_before_is_not_held_by_the_model(meter: HostMemory) -> None:
    filled(512).sum()
    meter.mark()
    assert meter.measure(lambda: filled(32).sum()).resting_bytes == pytest.approx(0, abs=SLACK)


def test_an_earlier_peak_does_not_count(peak_meter: HostMemory) -> None:
    filled(512).sum()
    peak_meter.mark()
    assert peak_meter.measure(lambda: filled(32).sum()).peak_bytes < 32 * MIB + SLACK


def test_the_call_is_made_once(meter: HostMemory) -> None:
    calls: list[int] = []
    meter.mark()
    meter.measure(lambda: calls.append(1))
    assert calls == [1]


def test_one_call_is_measured_and_not_the_one_before(peak_meter: HostMemory) -> None:
    sizes = iter((512, 32))

    def call() -> torch.Tensor:
        return filled(next(sizes)).sum()

    peak_meter.mark()
    call()
    reading = peak_meter.measure(call)
    assert next(sizes, None) is None
    assert reading.peak_bytes < 32 * MIB + SLACK


def test_what_the_process_gave_back_meanwhile_is_no_negative_growth(meter: HostMemory) -> None:
    ballast = filled(128)
    meter.mark()
    assert ballast.numel()
    del ballast
    assert meter.measure(lambda: None).resting_bytes == 0


def test_what_the_process_gave_back_meanwhile_is_no_negative_peak(peak_meter: HostMemory) -> None:
    ballast = filled(128)
    peak_meter.mark()
    assert ballast.numel()
    del ballast
    assert peak_meter.measure(lambda: None).peak_bytes == 0


def test_what_a_call_returns_is_dropped(meter: HostMemory) -> None:
    returned: list[weakref.ref[torch.Tensor]] = []

    def call() -> torch.Tensor:
        answer = filled(128)
        returned.append(weakref.ref(answer))
        return answer

    meter.mark()
    meter.measure(call)
    assert returned[0]() is None
    assert meter.measure(lambda: None).resting_bytes < 64 * MIB


def test_garbage_in_cycles_is_no_part_of_the_state_before(meter: HostMemory) -> None:
    cycle: list[object] = [filled(256)]
    cycle.append(cycle)
    del cycle
    meter.mark()
    held = filled(128)
    # Were the garbage in the state before, it would be collected by now and hide what is held.
    assert meter.measure(lambda: held).resting_bytes == pytest.approx(128 * MIB, abs=SLACK)


def test_without_a_mark_that_can_be_reset_there_is_no_peak(meter: HostMemory, monkeypatch) -> None:
    def refuse(path: Path, text: str) -> None:
        raise PermissionError(f"{path} cannot be written with {text}")

    monkeypatch.setattr(Path, "write_text", refuse)
    meter.mark()
    held = filled(128)
    reading = meter.measure(lambda: None)
    assert held is not None
    assert reading.resting_bytes == pytest.approx(128 * MIB, abs=SLACK)
    assert (reading.peak_bytes, reading.activation_bytes) == (None, None)


def test_figures_that_are_not_there_are_not_subtracted() -> None:
    assert MemoryReading(10, 25, None).activation_bytes == 15
    assert MemoryReading(10, None, None).activation_bytes is None
    assert MemoryReading(None, 25, None).activation_bytes is None


@pytest.mark.parametrize(
    ("peak_bytes", "fp32_peak_bytes", "saved"),
    [
        (300, 400, 0.25),
        (400, 400, 0.0),
        (500, 400, -0.25),  # it needs more than FP32
        (0, 400, 1.0),
        (300, 399, None),  # FP32's own figure is near the resolution: a ratio of two such figures says nothing
        (None, 400, None),
        (300, None, None),
    ],
)
def test_what_is_saved_of_fp32s_peak(peak_bytes: int | None, fp32_peak_bytes: int | None, saved: float | None) -> None:
    assert MemoryReading(10, peak_bytes, None).saved_of(fp32_peak_bytes, resolution_bytes=100) == saved


def test_where_there_is_no_such_system_file_it_is_said(monkeypatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: "Name:\tpytest\n")
    with pytest.raises(OSError, match=r"status has no VmRSS$"):
        HostMemory().mark()


@pytest.mark.usefixtures("real_unfreeze")
def test_what_lives_is_taken_out_of_later_collections() -> None:
    gc.unfreeze()
    living: list[list[object]] = [[] for _ in range(1000)]
    for each in living:
        each.append(each)  # only a collection lets go of it
    freeze_live_objects()
    frozen = gc.get_freeze_count()
    assert frozen > len(living)
    del living, each
    freeze_live_objects()  # and what has died meanwhile is let go
    assert gc.get_freeze_count() < frozen - 900


class FakeAllocator:
    """What is requested of it, and the larger blocks that it gives; cuBLAS takes its workspace at the first product."""

    BLOCK, WORKSPACE = 2 * MIB, 32 * MIB

    def __init__(self, backend: str = "native") -> None:
        self.backend = backend
        self.held: dict[str, int] = {}
        self.peak = 0
        self.retries = 0

    def take(self, name: str, requested: int) -> None:
        self.held[name] = requested
        self.peak = max(self.peak, sum(self.held.values()))

    def drop(self, name: str) -> None:
        self.held.pop(name, None)

    def multiply(self) -> None:
        if "workspace" not in self.held:
            self.take("workspace", self.WORKSPACE)

    def forward(self, activations: int) -> None:
        self.multiply()
        self.take("activations", activations)
        self.drop("activations")

    def stats(self, *_: object) -> dict[str, int]:
        requested = {"requested_bytes.all.current": sum(self.held.values()), "requested_bytes.all.peak": self.peak}
        blocks = sum(-(-size // self.BLOCK) * self.BLOCK for size in self.held.values())
        return {
            **(requested if self.backend == "native" else dict.fromkeys(requested, 0)),
            "allocated_bytes.all.current": blocks,
            "allocated_bytes.all.peak": blocks,
            "num_alloc_retries": self.retries,
        }

    def reset_peak(self, *_: object) -> None:
        self.peak = sum(self.held.values())


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch):
    """A meter on a fake allocator."""

    def make(backend: str = "native") -> tuple[AcceleratorMemory, FakeAllocator]:
        allocator = FakeAllocator(backend)
        for name in ("synchronize", "empty_cache"):
            monkeypatch.setattr(torch.cuda, name, lambda *_: None)
        monkeypatch.setattr(torch.cuda, "memory_stats", allocator.stats)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", allocator.reset_peak)
        monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda *_: 1024 * MIB)
        monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: allocator.backend)
        clear = "_cuda_clearCublasWorkspaces"
        monkeypatch.setattr(torch._C, clear, lambda: allocator.drop("workspace"), raising=False)
        return AcceleratorMemory(torch.device("cuda", 0)), allocator

    return make


class TestAccelerator:
    def test_the_workspace_is_part_of_neither_figure_and_told_apart(self, accelerator) -> None:
        meter, allocator = accelerator()
        allocator.take("sentinel", 7 * MIB)
        allocator.multiply()  # an earlier model's
        meter.mark()
        allocator.take("weights", 25 * MIB)
        allocator.forward(10 * MIB)
        reading = meter.measure(lambda: allocator.forward(10 * MIB))
        assert reading == MemoryReading(25 * MIB, 35 * MIB, 1024 * MIB, workspace_bytes=32 * MIB)
        assert "workspace" not in allocator.held

    def test_a_scheme_that_needs_no_workspace_gives_the_same_figures(self, accelerator) -> None:
        meter, allocator = accelerator()
        meter.mark()
        allocator.take("weights", 25 * MIB)

        def forward() -> None:
            allocator.take("activations", 10 * MIB)
            allocator.drop("activations")

        reading = meter.measure(forward)
        assert reading == MemoryReading(25 * MIB, 35 * MIB, 1024 * MIB, workspace_bytes=0)

    def test_figures_are_what_was_requested_and_not_the_blocks_that_hold_it(self, accelerator) -> None:
        meter, allocator = accelerator()
        meter.mark()
        allocator.take("weights", 25 * MIB + 4)
        allocator.multiply()
        reading = meter.measure(lambda: allocator.forward(3))
        assert (reading.resting_bytes, reading.activation_bytes) == (25 * MIB + 4, 3)

    def test_an_earlier_peak_does_not_count(self, accelerator) -> None:
        meter, allocator = accelerator()
        meter.mark()
        allocator.forward(500 * MIB)
        assert meter.measure(lambda: allocator.forward(10 * MIB)).peak_bytes == 10 * MIB

    def test_an_allocation_that_was_retried_makes_no_peak(self, accelerator) -> None:
        meter, allocator = accelerator()
        meter.mark()
        allocator.take("weights", 25 * MIB)

        def forward() -> None:
            allocator.retries += 1

        reading = meter.measure(forward)
        assert (reading.resting_bytes, reading.peak_bytes, reading.workspace_bytes) == (25 * MIB, None, 0)

    def test_an_allocator_that_does_not_count_requests_gives_no_figures(self, accelerator) -> None:
        meter, allocator = accelerator(backend="cudaMallocAsync")
        meter.mark()
        allocator.take("weights", 25 * MIB)
        reading = meter.measure(lambda: allocator.forward(10 * MIB))
        assert reading == MemoryReading(None, None, 1024 * MIB, None)


class TestRecorded:
    """A CUDA graph: what it took when it was recorded is its peak, because replaying it allocates nothing."""

    def test_the_peak_is_the_recordings(self, accelerator) -> None:
        meter, allocator = accelerator()
        allocator.take("sentinel", 7 * MIB)
        meter.mark()
        allocator.take("weights", 25 * MIB)
        allocator.multiply()
        recorded = measure_allocations(DEVICE, lambda: allocator.forward(10 * MIB))
        assert recorded == CallMemory((7 + 25 + 10) * MIB, workspace_bytes=32 * MIB)
        assert "workspace" not in allocator.held
        reading = meter.measure(lambda: None, recorded)
        assert reading == MemoryReading(25 * MIB, 35 * MIB, 1024 * MIB, workspace_bytes=32 * MIB)

    def test_a_replay_that_takes_more_counts(self, accelerator) -> None:
        meter, allocator = accelerator()
        meter.mark()
        reading = meter.measure(lambda: allocator.take("held", 50 * MIB), CallMemory(10 * MIB, 0))
        assert reading.peak_bytes == 50 * MIB

    def test_a_recording_whose_peak_is_not_valid_gives_none(self, accelerator) -> None:
        meter, allocator = accelerator()
        meter.mark()

        def retried() -> None:
            allocator.retries += 1

        recorded = measure_allocations(DEVICE, retried)
        assert recorded == CallMemory(None, 0)
        allocator.take("weights", 25 * MIB)
        reading = meter.measure(lambda: None, recorded)
        assert (reading.resting_bytes, reading.peak_bytes) == (25 * MIB, None)

    def test_an_allocator_that_does_not_count_requests_gives_none(self, accelerator) -> None:
        _, allocator = accelerator(backend="cudaMallocAsync")
        assert measure_allocations(DEVICE, lambda: allocator.forward(MIB)) == CallMemory(None, None)

    @pytest.mark.parametrize(
        ("one", "other", "larger"),
        [
            (CallMemory(10, 5), CallMemory(20, 2), CallMemory(20, 5)),
            (CallMemory(None, 5), CallMemory(20, 2), CallMemory(None, 5)),
            (CallMemory(10, None), CallMemory(20, 2), CallMemory(20, None)),
        ],
    )
    def test_of_two_the_larger(self, one: CallMemory, other: CallMemory, larger: CallMemory) -> None:
        assert one.larger(other) == larger
        assert other.larger(one) == larger

    def test_a_pool_is_what_is_reserved_under_its_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        segments = [{"segment_pool_id": [0, 3], "total_size": 2}, {"segment_pool_id": (0, 3), "total_size": 20}]
        segments += [{"segment_pool_id": (0, 0), "total_size": 500}, {"segment_pool_id": (3, 0), "total_size": 90}]
        monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)
        assert private_pool_bytes((0, 3)) == 22
        assert private_pool_bytes((0, 4)) == 0


def test_a_cpu_has_no_workspace(meter: HostMemory) -> None:
    meter.mark()
    assert meter.measure(lambda: None).workspace_bytes is None
