"""Monitoring: what a real scrape over loopback gives, and the dashboard that is drawn from it."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pytest_vq.device import telemetry as telemetry_module
from pytest_vq.device.telemetry import GpuTelemetry, HostTelemetry
from pytest_vq.errors import MissingExtraError
from pytest_vq.serve import metrics as metrics_module
from pytest_vq.serve.metrics import DASHBOARD, ServingMetrics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class NVMLError(Exception):
    pass


def refuse(*_: object) -> Any:
    raise NVMLError("Not Supported")


# An idle H100's figures in the driver's units; memory's clock it does not tell.
NVML = SimpleNamespace(
    NVMLError=NVMLError,
    NVML_CLOCK_SM=1,
    NVML_CLOCK_MEM=2,
    NVML_TEMPERATURE_GPU=0,
    NVML_PERF_POLICY_THERMAL=1,
    nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
    nvmlDeviceGetClockInfo=lambda gpu, clock: 1980 if clock == 1 else refuse(),
    nvmlDeviceGetTemperature=lambda gpu, sensor: 41,
    nvmlDeviceGetPowerUsage=lambda gpu: 123_456,
    nvmlDeviceGetCurrentClocksEventReasons=refuse,
    nvmlDeviceGetViolationStatus=refuse,
    nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(used=2**31),
    nvmlDeviceGetComputeRunningProcesses=refuse,
)


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> ServingMetrics:
    monkeypatch.setattr(telemetry_module, "open_nvml", lambda: NVML)
    made = ServingMetrics({"0": GpuTelemetry("GPU-1"), "cpu": HostTelemetry()})
    made.note_request("int8", "ok", 0.0099)
    made.note_request("int8", "ok", 0.0101)
    made.note_request("fp32", "refused", 0.0)
    made.note_batch(3, (0.0, 0.001, 0.004))
    made.set_breaker("HALF_OPEN")
    return made


def scrape(url: str) -> Samples:
    with urllib.request.urlopen(url, timeout=5) as response:
        text = response.read().decode()
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


@pytest.fixture
def samples(metrics: ServingMetrics) -> Iterator[Samples]:
    with metrics.serve() as server:
        yield scrape(server.url)


def test_a_scrape_over_loopback_tells_what_was_noted(samples: Samples) -> None:
    assert samples["vq_requests_total", (("outcome", "ok"), ("variant", "int8"))] == 2
    assert samples["vq_requests_total", (("outcome", "refused"), ("variant", "fp32"))] == 1
    assert samples["vq_request_duration_seconds_bucket", (("le", "0.01"), ("variant", "int8"))] == 1
    assert samples["vq_request_duration_seconds_count", (("variant", "int8"),)] == 2
    assert ("vq_request_duration_seconds_count", (("variant", "fp32"),)) not in samples
    assert samples["vq_queue_duration_seconds_count", ()] == 3
    assert samples["vq_queue_duration_seconds_sum", ()] == pytest.approx(0.005)
    assert (samples["vq_batch_size_sum", ()], samples["vq_batch_size_bucket", (("le", "2.0"),)]) == (3, 0)


def test_the_breaker_is_in_one_state_and_in_no_other_word(metrics: ServingMetrics, samples: Samples) -> None:
    states = {labels[0][1]: value for (name, labels), value in samples.items() if name == "vq_circuit_breaker_state"}
    assert states == {"CLOSED": 0, "OPEN": 0, "HALF_OPEN": 1}
    with pytest.raises(ValueError, match="and not 'half-open'"):
        metrics.set_breaker("half-open")


def test_gpus_are_told_in_base_units_and_what_they_do_not_tell_is_left_out(samples: Samples) -> None:
    gpus = {(name, labels): value for (name, labels), value in samples.items() if name.startswith("vq_gpu_")}
    assert gpus == {
        ("vq_gpu_memory_used_bytes", (("gpu", "0"),)): 2**31,
        ("vq_gpu_temperature_celsius", (("gpu", "0"),)): 41,
        ("vq_gpu_power_watts", (("gpu", "0"),)): pytest.approx(123.456),
        ("vq_gpu_clock_hertz", (("clock", "sm"), ("gpu", "0"))): 1.98e9,
    }


def test_nothing_else_of_the_process_is_exported(samples: Samples) -> None:
    assert {name for name, _ in samples if not name.startswith("vq_")} == set()


def test_every_metric_that_the_dashboard_names_is_exported_with_the_labels_it_asks_for(samples: Samples) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    exported = {name for name, _ in samples}
    named = {name for expression in expressions for name in re.findall(r"\bvq_\w+", expression)}
    assert named <= exported
    labels = {name: {label for n, pairs in samples if n == name for label, _ in pairs} for name in exported}
    for expression in expressions:
        grouped = {
            label for by in re.findall(r"by \(([^)]*)\)", expression) for label in by.replace(" ", "").split(",")
        }
        (name, *_) = re.findall(r"\bvq_\w+", expression)
        assert grouped <= labels[name], expression


def test_the_dashboard_judges_by_the_edge_that_the_histogram_has(samples: Samples) -> None:
    selected = set(re.findall(r'le=\\"([0-9.]+)\\"', DASHBOARD.read_text()))
    edges = {dict(labels)["le"] for name, labels in samples if name == "vq_request_duration_seconds_bucket"}
    assert selected == {"0.01"}
    assert selected <= edges


def test_the_dashboard_can_be_imported_with_any_prometheus() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids) > 0
    assert [variable["query"] for variable in dashboard["templating"]["list"]] == ["prometheus"]
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {"${datasource}"}


def test_a_closed_endpoint_answers_no_more(metrics: ServingMetrics) -> None:
    with metrics.serve() as server:
        url = server.url
    with pytest.raises(urllib.error.URLError, match="refused"):
        scrape(url)


def test_the_endpoint_is_on_loopback_alone(metrics: ServingMetrics) -> None:
    with metrics.serve() as server:
        assert server.url.startswith("http://127.0.0.1:")


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pytest-vq\[serve\]'"):
        ServingMetrics()
