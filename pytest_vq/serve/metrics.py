"""What a service tells Prometheus: its requests, queue, batches and circuit breaker, and the GPUs it runs on.

A registry of its own, so that nothing else of the process is exported, and an endpoint that only this machine reaches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vq.device.telemetry import State, Telemetry
from pytest_vq.errors import MissingExtraError

if TYPE_CHECKING:
    from prometheus_client.core import Metric

DASHBOARD = Path(__file__).with_name("data") / "grafana-dashboard.json"

# Edges in seconds. 0.010 is the bound that production is held to: the share of requests within it is a ratio of two
# counters, and no estimate between edges.
DURATION_EDGES_S = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.010, 0.015, 0.025, 0.050, 0.100, 0.250, 0.500, 1.0, 2.5, 5.0)
BATCH_EDGES = (1, 2, 4, 8, 16, 32, 64, 128)
BREAKER_STATES = ("CLOSED", "OPEN", "HALF_OPEN")


@dataclass(frozen=True, slots=True)
class _GpuGauge:
    """One figure of a GPU: its name in Prometheus, its key in the state that telemetry reads, and what it times is."""

    name: str
    words: str
    key: str
    factor: float
    labels: Mapping[str, str]


_GPU_GAUGES = (
    _GpuGauge("vq_gpu_memory_used_bytes", "Memory in use on the GPU, by all processes", "device_memory_bytes", 1, {}),
    _GpuGauge("vq_gpu_temperature_celsius", "Temperature of the GPU", "temperature_c", 1, {}),
    _GpuGauge("vq_gpu_power_watts", "Power that the GPU draws", "power_mw", 1e-3, {}),
    _GpuGauge("vq_gpu_clock_hertz", "Clock of the GPU", "sm_clock_mhz", 1e6, {"clock": "sm"}),
    _GpuGauge("vq_gpu_clock_hertz", "Clock of the GPU", "memory_clock_mhz", 1e6, {"clock": "memory"}),
)


class ServingMetrics:
    """The metrics of one service. Every method may be called from any thread.

    Raises MissingExtraError where prometheus-client is not installed.
    """

    def __init__(self, gpus: Mapping[str, Telemetry] | None = None) -> None:
        """Args: ``gpus`` by the name that they are to have in ``gpu``; read through NVML at each scrape."""
        if find_spec("prometheus_client") is None:
            raise MissingExtraError("prometheus-client is not installed: pip install 'pytest-vq[serve]'")
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = registry = CollectorRegistry(auto_describe=False)
        self._duration = Histogram(
            "vq_request_duration_seconds", "From a request's arrival to its answer", ["variant"],
            registry=registry, buckets=DURATION_EDGES_S,
        )  # fmt: skip
        self._requests = Counter("vq_requests", "Requests that ended", ["variant", "outcome"], registry=registry)
        self._queue = Histogram(
            "vq_queue_duration_seconds", "From a request's arrival to its batch's start",
            registry=registry, buckets=DURATION_EDGES_S,
        )  # fmt: skip
        self._batch = Histogram("vq_batch_size", "Requests of a batch", registry=registry, buckets=BATCH_EDGES)
        self._breaker = Gauge(
            "vq_circuit_breaker_state", "1 for the state that the breaker is in", ["state"], registry=registry
        )
        self.set_breaker("CLOSED")
        if gpus:
            registry.register(_GpuCollector(gpus))

    def note_request(self, variant: str, outcome: str, duration_s: float) -> None:
        """Count a request that ``variant`` (``int8``, ``fp32``) answered, refused or failed. Only answers are timed."""
        self._requests.labels(variant, outcome).inc()
        if outcome == "ok":
            self._duration.labels(variant).observe(duration_s)

    def note_batch(self, size: int, queue_s: tuple[float, ...]) -> None:
        """Count a batch, and how long each of its requests had waited."""
        self._batch.observe(size)
        for waited_s in queue_s:
            self._queue.observe(waited_s)

    def set_breaker(self, state: str) -> None:
        """The circuit breaker's state from now on, one of ``BREAKER_STATES``. Raises ValueError for another."""
        if state not in BREAKER_STATES:
            raise ValueError(f"a circuit breaker is {', '.join(BREAKER_STATES)}, and not {state!r}")
        for each in BREAKER_STATES:
            self._breaker.labels(each).set(each == state)

    def serve(self, port: int = 0) -> MetricsServer:
        """Start answering scrapes on ``port`` of loopback; 0 takes a free one. Raises OSError where it is taken."""
        from prometheus_client import start_http_server

        return MetricsServer(*start_http_server(port, addr="127.0.0.1", registry=self.registry))


class MetricsServer:
    """Answers scrapes until it is closed; a context manager that closes it at the end."""

    def __init__(self, server: Any, thread: Any) -> None:
        self._server, self._thread = server, thread

    @property
    def url(self) -> str:
        """What Prometheus scrapes."""
        return f"http://127.0.0.1:{self._server.server_port}/metrics"

    def close(self) -> None:
        """Stop, and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _GpuCollector:
    """Reads the GPUs when it is scraped. What a GPU or its driver does not tell is left out, and not made up."""

    def __init__(self, gpus: Mapping[str, Telemetry]) -> None:
        self._gpus = dict(gpus)

    def collect(self) -> Iterator[Metric]:
        """The gauges of all GPUs, as of now."""
        from prometheus_client.core import GaugeMetricFamily

        states: dict[str, State] = {name: telemetry.read() for name, telemetry in self._gpus.items()}
        families: dict[str, GaugeMetricFamily] = {}
        for gauge in _GPU_GAUGES:
            family = families.get(gauge.name)
            if family is None:
                labels = ["gpu", *gauge.labels]
                family = families[gauge.name] = GaugeMetricFamily(gauge.name, gauge.words, labels=labels)
            for name, state in states.items():
                if (value := state.get(gauge.key)) is not None:
                    family.add_metric([name, *gauge.labels.values()], value * gauge.factor)
        yield from families.values()
