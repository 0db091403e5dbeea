"""A small server of the Open Inference Protocol v2, which shares no code with the client: it reads strictly.

The name of a model says what it does: ``double`` answers twice its input, the others are broken in one way each.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import numpy as np

TYPES = {"FP32": np.float32, "FP64": np.float64, "UINT8": np.uint8, "INT64": np.int64, "FP16": np.float16}
BROKEN = {
    "failing": (500, b'{"error": "CUDA error: out of memory"}'),
    "traced": (500, b"Traceback (most recent call last):\n  File x\nValueError: no such picture\n"),
    "busy": (503, b'{"error": "queue full"}'),
    "nonsense": (200, b"<html>welcome</html>"),
    "other": (200, b'{"outputs": [{"name": "other", "shape": [1], "datatype": "FP32", "data": [1.0]}]}'),
    "short": (200, b'{"outputs": [{"name": "y", "shape": [2, 3], "datatype": "FP32", "data": [1.0]}]}'),
    "words": (200, b'{"outputs": [{"name": "y", "shape": [1], "datatype": "BYTES", "data": ["cat"]}]}'),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open
    wbufsize = -1  # an answer leaves in one piece
    extensions: ClassVar[list[str]] = []
    seen: ClassVar[list[dict[str, Any]]] = []  # the requests for inference: their JSON
    connections: ClassVar[set[Any]] = set()

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        if self.path == "/v2":
            self.answer(200, json.dumps({"name": "test", "version": "1", "extensions": self.extensions}).encode())
        elif self.path == "/v2/models/nameless":
            self.answer(200, b'{"name": "nameless", "platform": "test", "inputs": [], "outputs": []}')
        elif self.path.endswith("/ready"):
            known = "/absent/" not in self.path
            self.answer(200 if known else 404, b"" if known else b'{"error": "Model absent not found"}')
        else:
            tensors = {"inputs": [{"name": "x"}], "outputs": [{"name": "y"}]}
            self.answer(200, json.dumps({"name": self.model(), "platform": "test", **tensors}).encode())

    def do_POST(self) -> None:
        self.connections.add(self.client_address)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.model() == "slow":
            time.sleep(1.5)
        if self.model() in BROKEN:
            self.answer(*BROKEN[self.model()])
            return
        batch, wants_binary = self.read(body)
        output = batch[:1] if self.model() == "rows" else 2 * batch
        self.write(output, wants_binary)
        if self.model() == "hangup":  # without a word of it, as a server does that closes what is idle
            self.close_connection = True

    def model(self) -> str:
        return self.path.split("/")[3]

    def read(self, body: bytes) -> tuple[np.ndarray, bool]:
        length = self.headers.get("Inference-Header-Content-Length")
        request = json.loads(body if length is None else body[: int(length)])
        self.seen.append(request)
        (tensor,) = request["inputs"]
        kind = TYPES[tensor["datatype"]]
        if length is None:
            assert self.headers["Content-Type"] == "application/json"
            flat = np.array(tensor["data"], kind)
        else:
            rest = body[int(length) :]
            assert tensor["parameters"]["binary_data_size"] == len(rest)
            flat = np.frombuffer(rest, kind)
        return flat.reshape(tensor["shape"]), request.get("parameters", {}).get("binary_data_output", False)

    def write(self, output: np.ndarray, binary: bool) -> None:
        names = {value: name for name, value in TYPES.items()}
        tensor = {"name": "y", "shape": list(output.shape), "datatype": names[output.dtype.type]}
        answer = {"model_name": self.model(), "outputs": [tensor]}
        if not binary:
            tensor["data"] = output.tolist()  # nested, as some servers answer
            self.answer(200, json.dumps(answer).encode())
            return
        tensor["parameters"] = {"binary_data_size": output.nbytes}
        text = json.dumps(answer).encode()
        self.answer(200, text + output.tobytes(), {"Inference-Header-Content-Length": str(len(text))})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def v2_server() -> Iterator[tuple[str, type[Handler]]]:
    """The address of a server on loopback, and the class that holds what it saw."""

    class Own(Handler):
        extensions: ClassVar[list[str]] = []
        seen: ClassVar[list[dict[str, Any]]] = []
        connections: ClassVar[set[Any]] = set()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    server.daemon_threads = True
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", Own
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
