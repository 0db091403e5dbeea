"""One layer from FP32 to a precision, or why it stays as it is; and what a model of replaced layers needs besides."""

from __future__ import annotations

from pkgutil import resolve_name

from torch import nn

from pytest_vq.precision.bits import bits_fault
from pytest_vq.precision.converted import LayerBuilder
from pytest_vq.precision.layers import Copier
from pytest_vq.precision.own_layers import build_own_layer
from pytest_vq.precision.trial import fault_of_shape
from pytest_vq.schema.spec import PrecisionSpec


def build_layer(linear: nn.Linear, spec: PrecisionSpec, copier: Copier) -> nn.Module | str:
    """What replaces ``linear`` at ``spec``, a precision with a layer builder; a text where it cannot: why not."""
    if not isinstance(spec.layer, str):
        return build_own_layer(linear, spec, copier)
    builder: LayerBuilder = resolve_name(spec.layer)
    fault = _fault_of_trial(builder, linear, spec, copier)
    if fault:
        return fault
    built = builder(linear, copier)
    if isinstance(built, str):
        return built
    return bits_fault(built, spec.max_bits) or built


def _fault_of_trial(builder: LayerBuilder, linear: nn.Linear, spec: PrecisionSpec, copier: Copier) -> str:
    if spec.min_layer_sqnr_db is None:
        return ""
    shape = linear.in_features, linear.out_features
    return fault_of_shape(builder, shape, copier.device, copier.dtype, spec.min_layer_sqnr_db)


def disable_fused_encoder(module: nn.Module) -> None:
    """Turn off torch's fused encoder layer, which reads the weights of ``linear1`` and ``linear2`` itself."""
    for layer in module.modules():
        if isinstance(layer, nn.TransformerEncoderLayer):
            layer.activation_relu_or_gelu = 0
