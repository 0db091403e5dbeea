"""The one way from FP32 to a precision: convert, verify, and take what must be taken before the first forward."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pytest_vq.errors import PrecisionError
from pytest_vq.precision.converted import Converted
from pytest_vq.precision.precisions import load_handler
from pytest_vq.precision.size import file_bytes, stored_tensors
from pytest_vq.precision.verify import check_source, verify
from pytest_vq.schema.spec import PrecisionSpec

__all__ = ["Converted", "SameBytesGuard", "convert", "fingerprint", "verify"]

_SAMPLE = 1024  # elements of each tensor's head and tail that go into its digest


def convert(source: nn.Module, spec: PrecisionSpec, *, device: torch.device, heads: Sequence[str]) -> Converted:
    """A copy of ``source`` at ``spec`` on ``device``, verified, in eval mode and without gradients.

    Args:
        source: an FP32 model on the CPU; it is not changed.
        spec: the scheme.
        device: where the copy is put.
        heads: dotted names of the modules (with all below them) whose linear layers stay unquantized.

    Raises:
        PrecisionError: the source is not an FP32 model on the CPU, or the result is not what the scheme's name says.
    """
    check_source(source)
    with torch.no_grad():
        converted = load_handler(spec)(source, device=device, heads=heads)
        converted.module.eval().requires_grad_(requires_grad=False)
        verify(converted, spec)
        tensors = stored_tensors(converted.module)
        return dataclasses.replace(converted, model_size_bytes=file_bytes(tensors), fingerprint=_digest(tensors))


def fingerprint(module: nn.Module) -> str:
    """A digest of ``module``'s stored state: each tensor's name, type, shape, and first and last few KiB.

    Cheap enough for every conversion. Like the size, it is only meaningful before the first forward.
    """
    return _digest(stored_tensors(module))


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().reshape(-1)
        for part in (flat[:_SAMPLE], flat[_SAMPLE:][-_SAMPLE:]):
            digest.update(part.contiguous().view(torch.uint8).cpu().numpy().tobytes())
    return digest.hexdigest()


class SameBytesGuard:
    """Notices two schemes of one model that store the same bytes, and so are one scheme under two names."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], str] = {}  # model, fingerprint -> precision

    def check(self, model_name: str, precision: str, fingerprint: str) -> None:
        """Remember what ``precision`` of the model stores.

        Raises:
            PrecisionError: another precision of that model stores the same.
        """
        other = self._seen.setdefault((model_name, fingerprint), precision)
        if other != precision:
            raise PrecisionError(
                f"{model_name}: {precision} stores the same bytes as {other}, so one of them was never applied: "
                "convert each from the FP32 model, and look at what the handler replaced"
            )
