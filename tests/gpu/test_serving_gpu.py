"""Load on a model on the GPU, and the GPU's own figures in a scrape."""

from __future__ import annotations

import urllib.request

import pytest

from pytest_vq.device.device import open_device
from pytest_vq.schema.load_run import OK, LoadPlan
from pytest_vq.serve.load import Served, run_load
from pytest_vq.serve.metrics import ServingMetrics

pytestmark = pytest.mark.gpu


def test_every_request_to_a_model_on_the_gpu_is_answered() -> None:
    run = run_load(LoadPlan("Server", 200, target_qps=200.0), Served("served:on_gpu"))
    assert run.requests.outcome == (OK,) * 200


def test_a_scrape_tells_the_gpus_memory_temperature_power_and_clocks() -> None:
    metrics = ServingMetrics({"0": open_device(gpu=True, threads=1).telemetry})
    with metrics.serve() as server, urllib.request.urlopen(server.url, timeout=10) as response:
        lines = [line for line in response.read().decode().splitlines() if line.startswith("vq_gpu_")]
    told = {line.split("{")[0]: float(line.split()[-1]) for line in lines}
    assert set(told) == {
        "vq_gpu_memory_used_bytes", "vq_gpu_temperature_celsius", "vq_gpu_power_watts", "vq_gpu_clock_hertz"
    }  # fmt: skip
    assert min(told.values()) > 0
