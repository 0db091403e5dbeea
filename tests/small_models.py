"""Small models, and a layer that a user could have written, which several tests convert or measure."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import MobileViTConfig, MobileViTForImageClassification, ViTConfig, ViTForImageClassification

from pytest_vq.precision.layers import Copier


def small_vit(hidden: int, layers: int, heads: int, image: int) -> nn.Module:
    """A ViT of ten classes with the same weights every time. MLPs are four times as wide as the rest.

    Args:
        hidden: columns of its layers.
        layers: blocks.
        heads: of attention.
        image: pixels a side, in patches of 16.
    """
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        image_size=image,
        patch_size=16,
        num_labels=10,
    )
    return ViTForImageClassification(config).eval()


def small_mobilevit() -> nn.Module:
    """A MobileViT, some of whose linear layers have too few columns for NF4 on a CPU."""
    torch.manual_seed(0)
    config = MobileViTConfig(hidden_sizes=[64, 80, 96], neck_hidden_sizes=[16, 16, 24, 32, 32, 32, 64], image_size=64)
    return MobileViTForImageClassification(config).eval()


class RowLinear(nn.Module):
    """Codes of 8 bits and a scale a row, under names of its own."""

    def __init__(self, linear: nn.Linear, copier: Copier) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scales = weight.abs().amax(dim=1, keepdim=True) / 127
        self.register_buffer("codes", (weight / scales).round().to(copier.device, torch.int8))
        self.register_buffer("scales", scales.to(copier.device, copier.dtype))
        self.bias = None if linear.bias is None else copier.parameter(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.codes.to(x.dtype) * self.scales, self.bias)
