"""The one way from FP32 to a precision: convert, verify, and take what must be taken before the first forward."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pytest_vq.errors import PrecisionError
from pytest_vq.precision.building import build_layer, disable_fused_encoder
from pytest_vq.precision.converted import Converted, short_name
from pytest_vq.precision.layers import Copier, eligible_layers, tied_outside
from pytest_vq.precision.mixed import mix_layers
from pytest_vq.precision.size import file_bytes, stored_tensors
from pytest_vq.precision.tensors import wrappings
from pytest_vq.precision.verify import check_source, verify
from pytest_vq.schema.figures import Coverage
from pytest_vq.schema.spec import PrecisionSpec

_SAMPLE = 1024  # elements of each tensor's head and tail that go into its digest


def convert(
    source: nn.Module, spec: PrecisionSpec, *, device: torch.device, rest: torch.dtype, heads: Sequence[str]
) -> Converted:
    """A copy of ``source`` at ``spec`` on ``device``, verified, in eval mode and without gradients.

    Args:
        source: an FP32 model on the CPU; it is not changed.
        spec: the precision.
        device: where the copy is put.
        rest: the type of what a quantizing precision leaves unquantized (see ``Device.rest_for``).
        heads: dotted names of the modules (with all below them) whose linear layers stay unquantized.

    Raises:
        PrecisionError: the source is not an FP32 model on the CPU, or the result is not what the precision's name says.
    """
    check_source(source)
    with torch.no_grad():
        if spec.mix is not None:
            converted = mix_layers(source, spec, spec.mix, Copier(device, rest), heads)
        elif spec.layer is None:
            assert spec.dtype is not None  # a whole program is made otherwise (see ``opaque``)
            converted = _cast(source, spec, Copier(device, getattr(torch, spec.dtype)), heads)
        else:
            converted = _replace_layers(source, spec, Copier(device, rest), heads)
        converted.module.eval().requires_grad_(requires_grad=False)
        verify(converted, spec)
        tensors = stored_tensors(converted.module)
        fingerprint = _digest(tensors, converted.module)
        return dataclasses.replace(converted, model_size_bytes=file_bytes(tensors), fingerprint=fingerprint)


def _cast(source: nn.Module, spec: PrecisionSpec, copier: Copier, heads: Sequence[str]) -> Converted:
    """Every floating-point parameter and buffer in the copier's type; nothing is quantized."""
    coverage = Coverage(eligible=len(eligible_layers(source, heads)), quantized=0)
    return Converted(copier.model(source), spec.method or str(copier.dtype), copier.dtype, coverage)


def _replace_layers(source: nn.Module, spec: PrecisionSpec, copier: Copier, heads: Sequence[str]) -> Converted:
    """The copy of ``source`` with every layer quantized that can be; the others are named with their reason."""
    layers = eligible_layers(source, heads)
    left = dict.fromkeys(tied_outside(source, layers), "its weight is shared with a module that is not quantized")
    replacements: dict[nn.Module, nn.Module] = {}
    for name, layer in layers.items():
        if name in left:
            continue
        built = build_layer(layer, spec, copier)
        if isinstance(built, str):
            left[name] = built
        else:
            replacements[layer] = built
    module = copier.model(source, replacements)
    disable_fused_encoder(module)
    coverage = Coverage(eligible=len(layers), quantized=len(replacements), left=left)
    method = f"{spec.method or spec.name}, {short_name(copier.dtype)} rest"
    own_layers = frozenset(layers) - frozenset(left) if spec.is_local else frozenset()
    return Converted(module, method, copier.dtype, coverage, own_layers)


def _digest(tensors: dict[str, Tensor], module: nn.Module) -> str:
    """Each tensor's name, type, shape, and first and last few KiB: cheap enough for every conversion.

    And what is known of wrapped tensors beside their bytes: torchao's INT8 layers store the same ones, whether their
    activations are quantized or not.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().reshape(-1)
        for part in (flat[:_SAMPLE], flat[_SAMPLE:][-_SAMPLE:]):
            digest.update(part.contiguous().view(torch.uint8).cpu().numpy().tobytes())
    for name, parameter in module.named_parameters():
        for words in wrappings(name, parameter):
            digest.update(f"{words}\n".encode())
    return digest.hexdigest()


class SameBytesGuard:
    """Notices two quantizing precisions of one model that store the same, and so are one under two names.

    One that quantizes nothing has the bytes of its type, which is checked, and more than one may have that: TF32's are
    FP32's. And a recipe may well say what another precision does.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], str] = {}  # model, fingerprint -> precision

    def check(self, model_name: str, precision: PrecisionSpec, fingerprint: str) -> None:
        """Remember what ``precision`` of the model stores.

        Raises:
            PrecisionError: another precision of that model stores the same.
        """
        if not precision.quantizes:
            return
        other = self._seen.setdefault((model_name, fingerprint), precision.name)
        if other != precision.name:
            raise PrecisionError(
                f"{model_name}: {precision.name} stores the same bytes as {other}, so one of them was never applied: "
                "convert each from the FP32 model, and look at what the function that quantizes was given and returned"
            )
