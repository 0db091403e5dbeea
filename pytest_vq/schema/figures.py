"""The figures of one measured pair, or callable, in sections; every quantity names its unit.

``None`` means "not measured": of a callable, all that takes a model, stored weights or FP32 beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_vq.schema.spec import EAGER

# What a figure of memory may be off by. On a CPU libraries and the C allocator keep about this much, or give it back,
# as they like; an accelerator's allocator counts what was requested of it.
CPU_RESOLUTION_BYTES = 4 * 2**20
ACCELERATOR_RESOLUTION_BYTES = 1


def memory_reduction(peak_bytes: int | None, fp32_peak_bytes: int | None, resolution_bytes: int) -> float | None:
    """1 - peak / FP32's peak; no ratio of figures near the resolution."""
    if peak_bytes is None or fp32_peak_bytes is None or fp32_peak_bytes < 4 * resolution_bytes:
        return None
    return 1 - peak_bytes / fp32_peak_bytes


def present(figure: float | None) -> float:
    """``figure``, where those without it were sorted out before. Raises ValueError where they were not."""
    if figure is None:
        raise ValueError("a figure that this comparison needs was not measured")
    return figure


@dataclass(frozen=True, slots=True)
class Identity:
    """What a row is of."""

    model: str  # of a callable: the id of its test
    category: str
    architecture: str | None
    parameters: int | None
    precision: str
    method: str  # what really ran: "bitsandbytes LLM.int8, fp16 rest"
    device: str
    batch: int | None
    weights: str | None


@dataclass(frozen=True, slots=True)
class TimedFigures:
    """What timing one pair gave."""

    latency_ms: float
    latency_low_ms: float | None
    latency_high_ms: float | None
    latency_q10_ms: float | None  # the steadier estimate that gates use on a shared machine
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    latency_cv: float | None
    device_time_ms: float | None
    throughput_ips: float | None
    samples: int
    stop_reason: str
    launch_bound: bool | None
    speedup: float | None
    speedup_low: float | None
    speedup_high: float | None
    sentinel_ms: float | None  # the fixed reference workload interleaved with this pair (its 25 % quantile)
    reference_latency_ms: float | None = None  # FP32's median in the same process, which the speedup is over
    sentinel_median_ms: float | None = None  # what a median or a 95 % quantile is compared beside
    device_time_method: str | None = None  # "blocked queue"; empty where ``device_time_ms`` is
    device_speedup: float | None = None  # FP32's device time / this one's, in the same process
    energy_per_image_mj: float | None = None  # by NVML's counter, calls back to back
    sm_clock_mhz: float | None = None  # median while timing
    power_mw: float | None = None  # median while timing


@dataclass(frozen=True, slots=True)
class MemoryFigures:
    """What the model holds, at rest, at the peak of a forward, and stored."""

    resting_memory_bytes: int | None
    peak_memory_bytes: int | None
    activation_memory_bytes: int | None
    reserved_memory_bytes: int | None
    device_memory_bytes: int | None  # NVML's figure for the whole device
    model_size_bytes: int | None
    memory_reduction: float | None  # 1 - peak / FP32's peak
    workspace_bytes: int | None = None  # what cuBLAS keeps beside the model: part of neither figure above
    graph_pool_bytes: int | None = None  # reserved for what a CUDA graph replays in, beside the peak of one forward


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a scheme really did to a model's linear layers."""

    eligible: int | None  # linear layers outside the head
    quantized: int | None  # of those, the ones the scheme holds now
    left: Mapping[str, str] = field(default_factory=dict)  # eligible layer left alone -> why


@dataclass(frozen=True, slots=True)
class Fidelity:
    """A candidate's output against the reference's, same weights and inputs. All empty for the reference itself."""

    cosine: float | None = None  # mean over the rows, -1 ... 1
    sqnr_db: float | None = None  # signal to quantization noise
    max_abs_error: float | None = None  # in the output's own unit
    top1_agreement: float | None = None  # fraction of rows with the same largest feature
    accuracy: float | None = None  # fraction of labelled images whose largest output is their label's
    labelled_images: int | None = None


@dataclass(frozen=True, slots=True)
class Preparation:
    """How the converted model was made ready to run. All empty for eager execution, which prepares nothing."""

    execution: str | None = EAGER
    prepare_s: float | None = None  # from the converted model to its first answer: compiling, capturing
    prepare_cache: str | None = None  # "cold" where all of it was compiled anew, "warm" where a cache had some
    graphs: int | None = None  # that were compiled, those compiled anew while it was measured included
    graph_breaks: int | None = None
    recompiles: int | None = None  # graphs that were compiled because the first did not fit a call


@dataclass(frozen=True, slots=True)
class Effort:
    """What measuring a row took: shards are balanced by it, and it tells where a run's time goes."""

    build_s: float | None = None  # for the FP32 source; None where the pair before had built it
    device_held_s: float | None = None  # while no other process could measure on the device


@dataclass(frozen=True, slots=True)
class Timing:
    """What ``gpu_timer`` and ``vq_gate`` return: the median time of a call, its 95 % interval, and its peak memory."""

    latency_ms: float
    latency_low_ms: float | None
    latency_high_ms: float | None
    samples_ms: tuple[float, ...]
    peak_memory_bytes: int | None
    stop_reason: str
