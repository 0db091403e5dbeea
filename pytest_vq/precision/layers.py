"""A model's linear layers, and a copy of a model in which some of them are replaced."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pytest_vq.errors import PrecisionError, first_line


def eligible_layers(model: nn.Module, heads: Sequence[str]) -> dict[str, nn.Linear]:
    """The linear layers of ``model`` outside ``heads``, by dotted name; one that has several names, once.

    Only exactly ``nn.Linear``: a subclass does something else with its weight (``nn.MultiheadAttention`` reads its
    ``out_proj``'s without calling it).

    Raises:
        PrecisionError: a head that the model does not have, because then the real one would be quantized.
    """
    names: dict[nn.Linear, list[str]] = {}
    everything = set()
    for name, module in model.named_modules(remove_duplicate=False):
        everything.add(name)
        if type(module) is nn.Linear:
            names.setdefault(module, []).append(name)
    for head in heads:
        if head not in everything:
            same = sorted(name for name in everything if name.rpartition(".")[2] == head.rpartition(".")[2])
            near = same[:3] or difflib.get_close_matches(head, everything)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise PrecisionError(f"the model has no module {head!r} to leave unquantized{hint}")
    return {found[0]: layer for layer, found in names.items() if not any(_inside(name, heads) for name in found)}


def _inside(name: str, heads: Sequence[str]) -> bool:
    return any(name == head or name.startswith(f"{head}.") for head in heads)


def tied_outside(model: nn.Module, layers: Mapping[str, nn.Linear]) -> set[str]:
    """The names in ``layers`` whose weight another module uses too (a tied embedding or head)."""
    inside = set(layers.values())
    others = {id(p) for module in model.modules() if module not in inside for p in module.parameters(recurse=False)}
    return {name for name, layer in layers.items() if id(layer.weight) in others}


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


class Copier:
    """Copies tensors to a device and a type, each once, so that what is shared in the source is shared in the copy."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype  # of everything floating that is not quantized
        self._memo: dict[int, object] = {}
        self._made: dict[tuple[int, object], Any] = {}

    def parameter(self, tensor: Tensor, dtype: torch.dtype | None = None) -> nn.Parameter:
        """The copy of a parameter, frozen: of ``dtype`` where a layer's arithmetic asks for a type of its own."""
        if dtype not in (None, self.dtype):
            own: nn.Parameter = self.once(
                tensor, lambda t: _frozen(t.detach().to(self.device, dtype, copy=True)), dtype
            )
            return own
        if id(tensor) not in self._memo:
            self._memo[id(tensor)] = _frozen(self._cast(tensor))
        found = self._memo[id(tensor)]
        assert isinstance(found, nn.Parameter)
        return found

    def once(self, tensor: Tensor, make: Callable[[Tensor], Any], kind: object = "quantized") -> Any:
        """What ``make`` makes of ``tensor``, made once for each ``kind`` however many layers share the tensor."""
        key = (id(tensor), kind)
        if key not in self._made:
            self._made[key] = make(tensor)
        return self._made[key]

    def _cast(self, tensor: Tensor) -> Tensor:
        dtype = self.dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.detach().to(self.device, dtype, copy=True)

    def model(self, source: nn.Module, replacements: Mapping[nn.Module, nn.Module] | None = None) -> nn.Module:
        """A copy of ``source`` with ``replacements`` put in, on the device.

        Tensors are never held twice: ``deepcopy`` finds their copies, and the replaced modules, in its memo and copies
        the rest (the structure) only. For a model of 632M parameters this saves a full FP32 copy.

        Raises:
            PrecisionError: the model holds something that cannot be copied.
        """
        memo = self._memo
        memo.update({id(old): new for old, new in (replacements or {}).items()})
        for module in source.modules():
            if id(module) in memo:  # replaced: what it holds is not needed
                continue
            for parameter in module.parameters(recurse=False):
                self.parameter(parameter)
            for buffer in module.buffers(recurse=False):
                if id(buffer) not in memo:
                    memo[id(buffer)] = self._cast(buffer)
        try:
            return copy.deepcopy(source, memo)
        except (TypeError, RuntimeError) as error:
            raise PrecisionError(
                f"{type(source).__name__} cannot be copied, and every precision needs its own copy "
                f"({first_line(error)}): keep handles, locks and tensors with a gradient history out of the module"
            ) from error
