"""BEiT's relative positions, from a buffer on the model's device instead of a table copied from the CPU at every call.

transformers makes each layer's index table on the CPU, keeps it there, and copies it to the device in every forward.
The copy waits for the device, so that a forward cannot be hidden behind a blocked queue, nor recorded in a CUDA graph.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.models.beit.modeling_beit import BeitRelativePositionBias

_INDEX = "relative_position_index"


class BufferedRelativePositionBias(BeitRelativePositionBias):
    """The same bias, bit for bit, whose index for the window that the model was built for is a buffer."""

    relative_position_index: Tensor

    def generate_relative_position_index(self, window_size: tuple[int, int]) -> Tensor:
        """The index of each pair of patches in the table of biases, on the model's device for its own window."""
        if tuple(window_size) == tuple(self.window_size):
            return self.relative_position_index
        index: Tensor = super().generate_relative_position_index(window_size)
        return index


def buffer_relative_positions(model: nn.Module) -> None:
    """Give every layer of ``model`` with relative positions its index as a buffer; other models are left as they are.

    The buffer is not stored with the model: its file and its size are what they were. Layers of one window share it.
    """
    shared: dict[tuple[int, int], Tensor] = {}
    for module in model.modules():
        if type(module) is BeitRelativePositionBias:
            window = (int(module.window_size[0]), int(module.window_size[1]))
            if window not in shared:
                with torch.device("cpu"):
                    shared[window] = module.generate_relative_position_index(window).clone()
            module.__class__ = BufferedRelativePositionBias
            module.register_buffer(_INDEX, shared[window], persistent=False)
