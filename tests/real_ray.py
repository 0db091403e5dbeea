"""Run by an interpreter that has ray: the deployment of docs/serving-load.md, asked in both ways. Prints JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import ray
from ray import serve

from pytest_vq.errors import EndpointError
from pytest_vq.serve.open_inference import OpenInferenceEndpoint, ServerModel
from pytest_vq.serve.ray_serve import RayServeEndpoint


class Doubling:
    def infer(self, batch):
        if batch[0, 0] < 0:
            raise ValueError("no negative images")
        return 2 * batch


def main(code: Path, port: int) -> None:
    module = ModuleType("__main__")  # replicas get it by value
    exec(compile(code.read_text(), str(code), "exec"), module.__dict__)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(module.Model.bind(Doubling))
    batch = np.arange(6, dtype=np.float32).reshape(3, 2)
    endpoints = {
        "http": OpenInferenceEndpoint(ServerModel(f"http://127.0.0.1:{port}", "vit")),
        "handle": RayServeEndpoint(serve.get_app_handle("default")),
    }
    seen = {}
    for name, endpoint in endpoints.items():
        seen[name] = endpoint.infer(batch).tolist()
        try:
            endpoint.infer(-1 - batch)
        except EndpointError as error:
            seen[f"{name} error"] = f"{type(error).__name__}: {error}"
    sys.stdout.write(json.dumps(seen) + "\n")
    sys.stdout.flush()
    sys.stdin.read()  # stay, until whoever started this closes its input
    serve.shutdown()
    ray.shutdown()


main(Path(sys.argv[1]), int(sys.argv[2]))
