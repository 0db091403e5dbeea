"""The Open Inference Protocol v2 over HTTP, in bytes: tensors to a request or an answer, and back. Pure.

Both sides of it are here, so that a server of one's own, such as a Ray Serve deployment, takes few lines.
The protocol is KServe's "Open Inference Protocol (V2)"; its extension for binary data is Triton's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pytest_vq.errors import EndpointError

if TYPE_CHECKING:
    from numpy import ndarray

    Tensors = Mapping[str, ndarray[Any, Any]]

LENGTH_HEADER = "Inference-Header-Content-Length"  # of the JSON in front of binary data
BINARY_EXTENSION = "binary_tensor"  # what the names begin with under which servers list that they take binary data

_NUMPY_TYPES = {
    "BOOL": "bool",
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
}

Part = Literal["inputs", "outputs"]


@dataclass(frozen=True, slots=True)
class Message:
    """A request or an answer. ``json_bytes`` is the length of the JSON that binary data follows; None: all is JSON."""

    body: bytes
    json_bytes: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What a server or a client must be told of ``body`` beside its length."""
        if self.json_bytes is None:
            return {"Content-Type": "application/json"}
        return {"Content-Type": "application/octet-stream", LENGTH_HEADER: str(self.json_bytes)}


def encode(part: Part, tensors: Tensors, binary: bool, about: Mapping[str, Any] | None = None) -> Message:
    """The message that holds ``tensors`` as its ``part``; ``about`` are more fields of it (``model_name``, ``id``)."""
    import msgspec

    blobs: list[bytes] = []
    described = [_encode_tensor(name, tensor, blobs if binary else None) for name, tensor in tensors.items()]
    fields: dict[str, Any] = {**(about or {}), part: described}
    if binary and part == "inputs":
        fields["parameters"] = {"binary_data_output": True}
    text = msgspec.json.encode(fields)
    return Message(text + b"".join(blobs), len(text)) if binary else Message(text)


def _encode_tensor(name: str, tensor: ndarray[Any, Any], blobs: list[bytes] | None) -> dict[str, Any]:
    import numpy as np

    datatype = datatype_of(tensor)
    described: dict[str, Any] = {"name": name, "shape": list(tensor.shape), "datatype": datatype}
    if blobs is None:
        if datatype == "FP16":
            raise EndpointError(f"{name} is FP16, which the protocol's JSON cannot hold: send FP32, or binary data")
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise EndpointError(f"{name} holds values that are not finite, which JSON cannot: send finite ones")
        return {**described, "data": tensor.ravel().tolist()}
    blobs.append(tensor.astype(_NUMPY_TYPES[datatype], order="C", copy=False).tobytes())
    return {**described, "parameters": {"binary_data_size": len(blobs[-1])}}


def datatype_of(tensor: ndarray[Any, Any]) -> str:
    """The protocol's name for the type of ``tensor``. Raises EndpointError where it has none."""
    import numpy as np

    for name, numpy_type in _NUMPY_TYPES.items():
        if tensor.dtype.newbyteorder("<") == np.dtype(numpy_type):
            return name
    raise EndpointError(f"the Open Inference Protocol has no datatype for {tensor.dtype}")


def decode(part: Part, message: Message) -> dict[str, ndarray[Any, Any]]:
    """The tensors that ``message`` holds as its ``part``, by name, in its order.

    Raises EndpointError, saying what is wrong, where it is no message of the protocol.
    """
    text = message.body[: message.json_bytes]
    try:
        fields = _read_json(text)
        described = fields[part]
        names = [tensor["name"] for tensor in described]
    except (ValueError, KeyError, TypeError) as error:
        beginning = text[:80].decode(errors="replace")
        raise EndpointError(f"no message of the protocol with {part}: it begins with {beginning!r}") from error
    tensors, offset = {}, len(text)
    for name, tensor in zip(names, described, strict=True):
        size = (tensor.get("parameters") or {}).get("binary_data_size")
        blob = None if size is None else message.body[offset : offset + size]
        offset += size or 0
        try:
            tensors[name] = _decode_tensor(tensor, blob)
        except (KeyError, TypeError, ValueError) as error:
            raise EndpointError(f"{part[:-1]} {name} is not what it says: {type(error).__name__}: {error}") from error
    return tensors


def _read_json(text: bytes) -> Any:
    """What ``text`` says. Servers written in Python say NaN and Infinity, which are no JSON, and must not be missed."""
    import msgspec

    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return json.loads(text)


def _decode_tensor(described: Mapping[str, Any], blob: bytes | None) -> ndarray[Any, Any]:
    import numpy as np

    if (numpy_type := _NUMPY_TYPES.get(described["datatype"])) is None:
        raise ValueError(f"its datatype {described['datatype']} is no number's")
    if blob is None:
        values: ndarray[Any, Any] = np.asarray(described["data"], dtype=numpy_type)
    else:
        values = np.frombuffer(blob, dtype=numpy_type)
    return values.reshape(described["shape"])
