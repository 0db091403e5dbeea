"""Reads what this package wrote, and checks that it is JSON of a schema that this version knows."""

from __future__ import annotations

from typing import Any

from pytest_vq.errors import VqError
from pytest_vq.schema.spec import EAGER


class NotJsonError(ValueError):
    """Bytes that are not JSON at all."""


class NoSchemaError(ValueError):
    """JSON without a schema version: not one of ours."""


def upgraded_setup(setup: Any, version: int) -> Any:
    """The stored ``setup`` of a file of ``version`` as today's has it.

    Version 1 had neither execution nor type of the rest: all ran eagerly, and what INT8 and INT4 left was BF16 on a
    CPU and FP16 on a GPU.
    """
    if version > 1 or not isinstance(setup, dict):
        return setup
    quantizes = setup.get("precision") in ("int8", "int4")
    rest = ("fp16" if setup.get("threads") is None else "bf16") if quantizes else None
    return {"execution": EAGER, "rest": rest} | setup


def read_versioned(data: bytes, name: str, newest: int, error: type[VqError]) -> tuple[dict[str, Any], int]:
    """The JSON object in ``data`` and its schema version, at most ``newest``.

    ``name`` is what messages call the file. Raises NotJsonError and NoSchemaError, on which each kind of file has its
    own advice, and ``error`` for a schema of a newer version of this package.
    """
    import msgspec

    try:
        raw = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as raised:
        raise NotJsonError(f"{name} is not JSON ({raised})") from raised
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise NoSchemaError("it has no schema_version")
    if version > newest:
        raise error(f"{name} has schema version {version}, this pytest-vq reads up to {newest}: upgrade pytest-vq")
    return raw, version
