"""The adapters against servers that others wrote. See docs/serving-load.md for how to install them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pytest_vq.errors import EndpointError
from pytest_vq.schema.load_run import OK, LoadPlan
from pytest_vq.serve.load import Served, run_load
from pytest_vq.serve.open_inference import OpenInferenceEndpoint, ServerModel

ROOT = Path(__file__).parents[2]
BATCH = np.arange(6, dtype=np.float32).reshape(3, 2)

RUNTIME = """
import asyncio
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Doubling(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        batch = NumpyCodec.decode_input(payload.inputs[0])
        if batch.flat[0] < 0:
            raise ValueError("no negative images")
        output = NumpyCodec.encode_output("y", 2 * batch)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""
MODEL = {
    "name": "double",
    "implementation": "runtime.Doubling",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
}


def interpreter_with(module: str, variable: str, command: str) -> str:
    """The Python named by ``variable``, this one, or that of ``command``, if it has ``module``; else skips."""
    beside = shutil.which(command)
    candidates = [os.environ.get(variable), sys.executable, beside and str(Path(beside).with_name("python"))]
    for python in filter(None, candidates):
        if subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0:
            return python
    pytest.skip(f"no {module} here: name an interpreter that has it in {variable}")


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + 90
    while time.monotonic() < ends and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.2)
    pytest.fail(f"the server did not become ready: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    python = interpreter_with("mlserver", "VQ_MLSERVER_PYTHON", "mlserver")
    folder = tmp_path_factory.mktemp("mlserver")
    http, grpc, metrics = free_ports(3)
    (folder / "runtime.py").write_text(RUNTIME)
    (folder / "model-settings.json").write_text(json.dumps(MODEL))
    ports = {"http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    settings = {"host": "127.0.0.1", "parallel_workers": 0, "metrics_dir": str(folder), **ports}
    (folder / "settings.json").write_text(json.dumps(settings))
    log = folder / "log"
    with log.open("wb") as file:
        command = [str(Path(python).with_name("mlserver")), "start", str(folder)]
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT)
    try:
        wait_for(f"http://127.0.0.1:{http}/v2/models/double/ready", process, log)
        yield f"http://127.0.0.1:{http}"
    finally:
        process.terminate()
        process.wait(30)


def test_mlserver_answers_a_batch_and_its_errors_are_quoted(mlserver: str) -> None:
    endpoint = OpenInferenceEndpoint(ServerModel(mlserver, "double"))
    np.testing.assert_array_equal(endpoint.infer(BATCH), 2 * BATCH)
    with pytest.raises(EndpointError, match=r"double at .* answered 500 .*no negative images"):
        endpoint.infer(-1 - BATCH)
    with pytest.raises(EndpointError, match=r"absent at .* answered 404"):
        OpenInferenceEndpoint(ServerModel(mlserver, "absent"))
    endpoint.close()


@pytest.mark.parametrize("scenario", ["Server", "Offline"])
def test_load_goes_to_mlserver(mlserver: str, scenario: str) -> None:
    plan = LoadPlan(scenario, 60, target_qps=60.0 if scenario == "Server" else None, warmup_requests=3)
    run = run_load(plan, Served("served:remote", {"url": mlserver, "model": "double"}))
    assert run.requests.outcome == (OK,) * 60


def test_the_deployment_of_the_docs_is_asked_over_http_and_through_its_handle(tmp_path: Path) -> None:
    python = interpreter_with("ray.serve", "VQ_RAY_PYTHON", "serve")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "serving-load.md").read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "@serve.deployment" in block]
    (tmp_path / "deployment.py").write_text(code)
    (port,) = free_ports(1)
    command = [python, str(ROOT / "tests" / "real_ray.py"), str(tmp_path / "deployment.py"), str(port)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        seen = json.loads(process.stdout.readline() or "{}")
        assert seen, log.read_text()[-3000:]
        plan = LoadPlan("Server", 60, target_qps=60.0, warmup_requests=3)
        run = run_load(plan, Served("served:remote", {"url": f"http://127.0.0.1:{port}", "model": "vit"}))
    finally:
        process.stdin.close()
        process.wait(60)
    assert (seen["http"], seen["handle"]) == ((2 * BATCH).tolist(),) * 2
    assert re.fullmatch(r"EndpointError: vit at .* answered 500 .*no negative images", seen["http error"])
    assert seen["handle error"] == (
        "EndpointError: the Ray Serve deployment Model.infer: ValueError: no negative images"
    )
    assert run.requests.outcome == (OK,) * 60
