"""Random weights for the catalog's models: seeded, quick, and of a trained network's scale."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

WEIGHT_STD = 0.02  # what ViT, DeiT, BEiT and DINOv2 are all initialised with, their linear layers included


def seed_of(text: str) -> int:
    """A seed that is the same in every process, unlike ``hash(text)``."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(text: str) -> torch.Generator:
    """A CPU generator seeded by ``text``: the global one is neither read nor moved."""
    return torch.Generator().manual_seed(seed_of(text))


def can_start_on_meta(model: nn.Module) -> bool:
    """True if no buffer's value would be lost with a model built on the meta device."""
    return all(isinstance(module, _BatchNorm) for module in model.modules() for _ in module.buffers(recurse=False))


@torch.no_grad()
def fill_transformer(model: nn.Module, seed: str, layer_scale: float) -> None:
    """Initialise every parameter of a vision transformer in place.

    Linear layers, convolutions and embeddings are normal with a standard deviation of 0.02, biases 0, norms the
    identity. ``layer_scale`` is the value of the one-dimensional parameters that are none of these.
    """
    drawn: list[nn.Parameter] = []
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()  # weight 1, bias 0
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias":
                parameter.zero_()
            elif parameter.ndim == 1:
                parameter.fill_(layer_scale)
            else:
                drawn.append(parameter)
    _draw(drawn, seed)


def _draw(parameters: list[nn.Parameter], seed: str) -> None:
    """Draw each of ``parameters`` from its own generator, so that threads can share the work and not change a bit."""

    def draw(index: int) -> None:
        with torch.no_grad():  # a thread starts without its parent's
            parameters[index].normal_(0.0, WEIGHT_STD, generator=generator_for(f"{seed}: {index}"))

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as threads:
        list(threads.map(draw, range(len(parameters))))


@torch.no_grad()
def fill_mobilevit(model: nn.Module, generator: torch.Generator, images: torch.Tensor) -> None:
    """Initialise every parameter and buffer of a MobileViT in place.

    Its own initialisation is degenerate: batch-norm weights of 0.02 shrink the signal at every layer, to logits of
    1e-41. Kaiming convolutions, Xavier linear layers and batch-norm statistics taken from one pass over ``images``
    ([n, 3, height, width]) keep it at the scale of a trained network.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight, generator=generator)
        elif isinstance(module, nn.LayerNorm | _BatchNorm):
            module.reset_parameters()
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter):
            bias.zero_()
    _take_statistics(model, images)


def _take_statistics(model: nn.Module, images: torch.Tensor) -> None:
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    model.eval()  # dropout would draw from the global generator
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # the statistics of this pass, not a mixture with the initial ones
    # In double precision, so that rounding to FP32 gives the same bits for any number of threads.
    model.double()(images.double())
    model.float().eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
