"""The server's side of the Open Inference Protocol v2, for any framework: a request in, a reply out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from pytest_vq.errors import EndpointError, QueueFullError, first_line
from pytest_vq.serve.inference_protocol import LENGTH_HEADER, Message, decode, encode

if TYPE_CHECKING:
    from numpy import ndarray

_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back to the client."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class ProtocolModel:
    """One model that speaks the protocol: its name in addresses, and ``infer``, which answers a batch."""

    name: str
    infer: Callable[[ndarray[Any, Any]], Awaitable[ndarray[Any, Any]]]
    input_name: str = "x"
    output_name: str = "y"

    async def reply(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """The reply to any request. What ``infer`` raises is told to the client: 503 for a full queue, else 500."""
        path = path.rstrip("/")
        model = f"/v2/models/{self.name}"
        if method == "GET" and path in {"/v2/health/live", "/v2/health/ready", f"{model}/ready"}:
            return Reply(HTTPStatus.OK, _JSON, b"")
        if method == "GET" and path == "/v2":
            return _json({"name": "pytest-vq", "version": "2", "extensions": ["binary_tensor_data"]})
        if method == "GET" and path == model:
            return _json({"name": self.name, "platform": "torch", **self._tensors()})
        if (method, path) != ("POST", f"{model}/infer"):
            return _error(HTTPStatus.NOT_FOUND, f"{method} {path} is nothing here; the model is {self.name}")
        return await self._infer({name.lower(): value for name, value in headers.items()}, body)

    def _tensors(self) -> dict[str, Any]:
        names = {"inputs": self.input_name, "outputs": self.output_name}
        return {part: [{"name": name, "datatype": "FP32", "shape": [-1]}] for part, name in names.items()}

    async def _infer(self, headers: Mapping[str, str], body: bytes) -> Reply:
        length = headers.get(LENGTH_HEADER.lower())
        try:
            inputs = decode("inputs", Message(body, None if length is None else int(length)))
            batch = inputs[self.input_name]
        except (EndpointError, KeyError, ValueError) as error:
            return _error(HTTPStatus.BAD_REQUEST, f"it takes one input called {self.input_name}: {first_line(error)}")
        try:
            output = await self.infer(batch)
            answer = encode("outputs", {self.output_name: output}, length is not None, {"model_name": self.name})
        except QueueFullError as error:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, first_line(error))
        except Exception as error:  # noqa: BLE001  # it is the client's to know, and no reason to end the server
            return _error(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {first_line(error)}")
        return Reply(HTTPStatus.OK, answer.headers, answer.body)


def _json(value: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Reply:
    import msgspec

    return Reply(status, _JSON, msgspec.json.encode(value))


def _error(status: HTTPStatus, words: str) -> Reply:
    return _json({"error": words}, status)
