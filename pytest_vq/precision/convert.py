"""The one way from FP32 to a precision: convert, verify, and take what must be taken before the first forward."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pkgutil import resolve_name

import torch
from torch import Tensor, nn

from pytest_vq.errors import PrecisionError
from pytest_vq.precision.converted import Converted, LayerBuilder, short_name
from pytest_vq.precision.layers import Copier, eligible_layers, tied_outside
from pytest_vq.precision.size import file_bytes, stored_tensors
from pytest_vq.precision.trial import fault_of_shape
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
        rest: the type of what a quantizing precision leaves unquantized, as the device computes it best.
        heads: dotted names of the modules (with all below them) whose linear layers stay unquantized.

    Raises:
        PrecisionError: the source is not an FP32 model on the CPU, or the result is not what the precision's name says.
    """
    check_source(source)
    with torch.no_grad():
        if spec.layer is None:
            converted = _cast(source, Copier(device, getattr(torch, spec.dtype or "float32")), heads)
        else:
            converted = _replace_layers(source, spec, Copier(device, rest), heads)
        converted.module.eval().requires_grad_(requires_grad=False)
        verify(converted, spec)
        tensors = stored_tensors(converted.module)
        return dataclasses.replace(converted, model_size_bytes=file_bytes(tensors), fingerprint=_digest(tensors))


def _cast(source: nn.Module, copier: Copier, heads: Sequence[str]) -> Converted:
    """Every floating-point parameter and buffer in the copier's type; nothing is quantized."""
    coverage = Coverage(eligible=len(eligible_layers(source, heads)), quantized=0)
    return Converted(copier.model(source), str(copier.dtype), copier.dtype, coverage)


def _replace_layers(source: nn.Module, spec: PrecisionSpec, copier: Copier, heads: Sequence[str]) -> Converted:
    """The copy of ``source`` with every layer quantized that can be; the others are named with their reason."""
    builder: LayerBuilder = resolve_name(str(spec.layer))
    layers = eligible_layers(source, heads)
    left = dict.fromkeys(tied_outside(source, layers), "its weight is shared with a module that is not quantized")
    replacements: dict[nn.Module, nn.Module] = {}
    for name, layer in layers.items():
        if name in left:
            continue
        built = _fault(builder, layer, spec, copier) or builder(layer, copier)
        if isinstance(built, str):
            left[name] = built
        else:
            replacements[layer] = built
    module = copier.model(source, replacements)
    _disable_fused_encoder(module)
    coverage = Coverage(eligible=len(layers), quantized=len(replacements), left=left)
    method = f"{spec.method or spec.name}, {short_name(copier.dtype)} rest"
    return Converted(module, method, copier.dtype, coverage)


def _fault(builder: LayerBuilder, layer: nn.Linear, spec: PrecisionSpec, copier: Copier) -> str:
    if spec.min_layer_sqnr_db is None:
        return ""
    shape = layer.in_features, layer.out_features
    return fault_of_shape(builder, shape, copier.device, copier.dtype, spec.min_layer_sqnr_db)


def _disable_fused_encoder(module: nn.Module) -> None:
    # torch's fused encoder layer reads linear1.weight and linear2.weight itself; this turns that path off.
    for layer in module.modules():
        if isinstance(layer, nn.TransformerEncoderLayer):
            layer.activation_relu_or_gelu = 0


def _digest(tensors: dict[str, Tensor]) -> str:
    """Each tensor's name, type, shape, and first and last few KiB: cheap enough for every conversion."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().reshape(-1)
        for part in (flat[:_SAMPLE], flat[_SAMPLE:][-_SAMPLE:]):
            digest.update(part.contiguous().view(torch.uint8).cpu().numpy().tobytes())
    return digest.hexdigest()


class SameBytesGuard:
    """Notices two precisions of one model that store the same bytes, and so are one precision under two names."""

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
                "convert each from the FP32 model, and look at what the layer builder replaced"
            )
