"""Trained weights: from the hub or its local cache, or those shipped with this package."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub
import torch
from huggingface_hub import constants
from transformers.utils import logging

from pytest_vq.errors import BuildError, first_line
from pytest_vq.schema.spec import ModelSpec
from pytest_vq.wording import listed

if TYPE_CHECKING:
    from torch import nn

CONNECT_TIMEOUT_S = 10.0
_SHOWN = 4  # tensors named in an error


def load_checkpoint(spec: ModelSpec, kind: Any, arguments: Mapping[str, Any], shapes: Mapping[str, Any]) -> nn.Module:
    """The model of class ``kind`` with the weights of ``spec.checkpoint`` (a hub id, or a folder), FP32, on the CPU.

    What is cached is taken as it is, so that weights do not change between runs; the hub is asked only for the rest.

    Args:
        spec: the model; ``spec.revision`` is the hub's commit, ``None`` its latest.
        kind: the transformers class.
        arguments: further arguments of the class.
        shapes: tensor name -> shape in the model built from the bundled config, which the checkpoint must equal.

    Raises:
        BuildError: not cached and not reachable, not loadable, weights missing, or of another architecture.
    """
    try:
        model, info = _fetch(spec, kind, arguments)
    except Exception as error:
        raise BuildError(
            f"{_who(spec)} could not be loaded: {type(error).__name__}: {first_line(error)}\n{_advice(spec)}"
        ) from error
    check_complete(_who(spec), info)
    found = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if found != shapes:
        differing = sorted(name for name in {*found, *shapes} if found.get(name) != shapes.get(name))
        told = (f"{name} {_size(found.get(name))} for {_size(shapes.get(name))}" for name in differing[:_SHOWN])
        raise BuildError(
            f"{_who(spec)} does not fit this package's config: {len(differing)} tensors differ ({'; '.join(told)})"
        )
    return model  # type: ignore[no-any-return]


def load_shipped(name: str, weights: Path, kind: Any, config: Any) -> nn.Module:
    """The model of class ``kind`` with the safetensors file ``weights`` of this package, FP32, on the CPU.

    It goes through transformers, which renames tensors where module names have changed between its releases.
    """
    from safetensors.torch import load_file

    with _quiet():
        model, info = kind.from_pretrained(
            None, config=config, state_dict=load_file(weights), dtype=torch.float32, output_loading_info=True
        )
    check_complete(f"{name} ({weights})", info)
    return model  # type: ignore[no-any-return]


def check_complete(who: str, info: Mapping[str, Any]) -> None:
    """Raise BuildError if ``info`` says that a weight was not in the checkpoint: it would be random without a word."""
    missing = sorted(map(str, info.get("missing_keys") or ())) + sorted(map(str, info.get("mismatched_keys") or ()))
    if missing:
        raise BuildError(
            f"{who} does not fit its config: no usable weights for {listed(missing, _SHOWN)}; "
            "is it a checkpoint of this architecture?"
        )


def _fetch(spec: ModelSpec, kind: Any, arguments: Mapping[str, Any]) -> tuple[Any, Any]:
    def load(*, cached: bool) -> tuple[Any, Any]:
        with _quiet():
            pair: tuple[Any, Any] = kind.from_pretrained(
                spec.checkpoint,
                revision=spec.revision or "main",
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
                local_files_only=cached,
                **arguments,
            )
        return pair

    if Path(str(spec.checkpoint)).is_dir():
        return load(cached=True)
    try:
        return load(cached=True)
    except OSError:
        if constants.HF_HUB_OFFLINE:
            raise
        # The hub's client retries for half a minute per file; ask once whether it is there at all.
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=CONNECT_TIMEOUT_S)
        return load(cached=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no report of unused tensors (a classifier that the headless model has no place for)."""
    control: Any = logging  # its functions are not annotated
    verbosity, bars = control.get_verbosity(), control.is_progress_bar_enabled()
    control.set_verbosity_error()
    control.disable_progress_bar()
    try:
        yield
    finally:
        control.set_verbosity(verbosity)
        if bars:
            control.enable_progress_bar()


def _who(spec: ModelSpec) -> str:
    revision = f" at {spec.revision}" if spec.revision else ""
    return f"{spec.name}: checkpoint {spec.checkpoint}{revision}"


def _advice(spec: ModelSpec) -> str:
    revision = f" --revision {spec.revision}" if spec.revision else ""
    return (
        f"With a connection, cache it once: hf download {spec.checkpoint}{revision} (into HF_HUB_CACHE, or under "
        f"HF_HOME; now {constants.HF_HUB_CACHE}), then run offline with HF_HUB_OFFLINE=1. "
        "Without, --vq-weights random needs no download."
    )


def _size(shape: Any) -> str:
    return "absent" if shape is None else "x".join(map(str, shape)) or "scalar"
