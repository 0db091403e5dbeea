"""A model behind a server that speaks the Open Inference Protocol v2: KServe, Triton, MLServer, or one of one's own."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from pytest_vq.errors import EndpointError, QueueFullError, first_line
from pytest_vq.serve.endpoint import checked_rows
from pytest_vq.serve.inference_protocol import BINARY_EXTENSION, LENGTH_HEADER, Message, decode, encode

if TYPE_CHECKING:
    from numpy import ndarray

# What a server answers that has no room: its queue is full, or a proxy before it has nobody to give the request to.
_TOO_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class ServerModel:
    """A model on a server, and the names of the one tensor it takes and the one that it is judged by.

    Where a name is None, it is the first that the server's metadata tell.
    """

    url: str  # http://host:port, or https
    name: str
    version: str | None = None
    input_name: str | None = None
    output_name: str | None = None


class OpenInferenceEndpoint:
    """Infers batches on a server, one connection a thread, kept open between them.

    Images go as binary data where the server lists that extension, and as JSON otherwise.
    """

    def __init__(self, model: ServerModel, timeout_s: float = 10.0, binary: bool | None = None) -> None:
        """Ask the server for its metadata. Args: ``binary`` decides over what the server lists.

        Raises EndpointError where the server or the model is not there, or is not ready.
        """
        parts = urlsplit(model.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise EndpointError(f"{model.url!r} is no address of a server: give one such as http://127.0.0.1:8080")
        self._model, self._timeout_s, self._scheme, self._host = model, timeout_s, parts.scheme, parts.netloc
        version = "" if model.version is None else f"/versions/{quote(model.version, safe='')}"
        self._path = f"{parts.path.rstrip('/')}/v2/models/{quote(model.name, safe='')}{version}"
        self._local = threading.local()
        self._opened: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._request("GET", f"{self._path}/ready")
        metadata = self._json(f"{self._path}")
        input_name = model.input_name or _first_name(metadata, "inputs")
        if input_name is None:
            raise EndpointError(f"{self._who} does not say what its input is called: give the name, input_name=")
        self._input = input_name
        self._output = model.output_name or _first_name(metadata, "outputs")  # None: the first that it answers with
        if binary is None:
            extensions = self._json(f"{parts.path.rstrip('/')}/v2").get("extensions") or []
            binary = any(str(extension).startswith(BINARY_EXTENSION) for extension in extensions)
        self.binary = binary

    def infer(self, batch: ndarray[Any, Any]) -> ndarray[Any, Any]:
        """See ``Endpoint.infer``."""
        message = encode("inputs", {self._input: batch}, self.binary)
        answer = self._request("POST", f"{self._path}/infer", message)
        outputs = decode("outputs", answer)
        name = self._output or next(iter(outputs), None)
        if name not in outputs:
            raise EndpointError(f"{self._who} answered with {', '.join(outputs) or 'no output'}, and not with {name}")
        return checked_rows(outputs[name], len(batch), self._who)

    def close(self) -> None:
        """See ``Endpoint.close``: its connections, of all threads."""
        with self._lock:
            for connection in self._opened:
                connection.close()
            self._opened.clear()

    @property
    def _who(self) -> str:
        return f"{self._model.name} at {self._model.url}"

    def _json(self, path: str) -> Mapping[str, Any]:
        import msgspec

        try:
            return msgspec.json.decode(self._request("GET", path).body, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise EndpointError(f"{self._who}: {path} gives no metadata: {error}") from error

    def _request(self, method: str, path: str, message: Message | None = None) -> Message:
        """The answer with status 200. A connection that the server closed while it was idle is opened again, once."""
        body, headers = (None, {}) if message is None else (message.body, message.headers)
        connection, is_used = self._connection()
        try:
            try:
                connection.request(method, path, body, headers)
                response = connection.getresponse()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                if not is_used:
                    raise
                connection.close()
                connection.request(method, path, body, headers)
                response = connection.getresponse()
            content = response.read()
        except TimeoutError as error:
            connection.close()
            raise EndpointError(f"{self._who} did not answer within {self._timeout_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise EndpointError(
                f"{self._who} cannot be reached: {type(error).__name__}: {first_line(error)}"
            ) from error
        if response.status != HTTPStatus.OK:
            kind = QueueFullError if response.status in _TOO_BUSY else EndpointError
            raise kind(f"{self._who} answered {response.status} {response.reason} to {path}: {_error_in(content)}")
        length = response.getheader(LENGTH_HEADER)
        return Message(content, int(length) if length and length.isdecimal() else None)

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """This thread's connection, and whether it has been used before."""
        known: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if known is not None:
            return known, known.sock is not None
        kind = http.client.HTTPSConnection if self._scheme == "https" else http.client.HTTPConnection
        self._local.connection = connection = kind(self._host, timeout=self._timeout_s)
        with self._lock:
            self._opened.append(connection)
        return connection, False


def _first_name(metadata: Mapping[str, Any], part: str) -> str | None:
    """The name of the first tensor in ``part`` of a model's metadata; None where it names none, as some servers do."""
    try:
        return str(metadata[part][0]["name"])
    except (KeyError, IndexError, TypeError):
        return None


def _error_in(content: bytes) -> str:
    """What a server says is wrong: the protocol's field ``error``, or the beginning of whatever it sent."""
    import msgspec

    try:
        text = str(msgspec.json.decode(content)["error"])
    except (msgspec.MsgspecError, KeyError, TypeError):
        text = content.decode(errors="replace")
    lines = text.strip().splitlines() or ["without a word"]
    # MLServer answers with a whole traceback, whose last line says what it was.
    return lines[-1] if lines[0].startswith("Traceback ") else lines[0]
