"""Page-locked host memory: a GPU copies from it directly, where other memory goes through a buffer of the driver's."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import Parameter

Pin = Callable[[torch.UntypedStorage], torch.UntypedStorage]

# What CUDA says where the system gives a process no more memory to lock. Any other error is one of the device's.
_REFUSED = ("out of memory", "OS call failed")


def pin_storages(module: nn.Module, pin: Pin = torch.UntypedStorage.pin_memory) -> bool:
    """Move what ``module``, a model on the CPU, holds into page-locked memory; True where all of it could be moved.

    Tensors that share memory still share it afterwards. Where the system refuses, the rest stays where it is: copying
    it is slower, and nothing else differs.
    """
    # Outside inference mode, whatever the caller's: a parameter that is given data inside it is no plain one any more.
    with torch.inference_mode(mode=False), torch.no_grad():
        for sharers in _by_storage(module):
            try:
                pinned = pin(sharers[0].untyped_storage())
            except RuntimeError as error:
                if not any(words in str(error) for words in _REFUSED):
                    raise
                return False
            for tensor in sharers:
                place = tensor.storage_offset(), tensor.size(), tensor.stride()
                tensor.data = torch.empty(0, dtype=tensor.dtype).set_(pinned, *place)
    return True


def release_pinned() -> None:
    """Give back page-locked memory that nothing refers to any more: torch keeps it for itself otherwise."""
    torch._C._host_emptyCache()


def _by_storage(module: nn.Module) -> list[list[Tensor]]:
    """The plain tensors of ``module``, those over the same memory together."""
    found: dict[int, list[Tensor]] = {}
    for tensor in chain(module.parameters(), module.buffers()):
        if type(tensor) in (Tensor, Parameter) and tensor.layout is torch.strided and tensor.numel():
            found.setdefault(tensor.untyped_storage().data_ptr(), []).append(tensor)
    return list(found.values())
