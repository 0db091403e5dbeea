"""The size of a model as it would be stored: what safetensors writes, computed without writing it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pytest_vq.precision.tensors import plain_tensors

# The order in which safetensors lays tensors out: widest type first (the last here), then by name. It matters for the
# size because offsets stand in the header as decimal digits.
_NAMES: Mapping[torch.dtype, str] = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.int64: "I64",
}
_RANK = {dtype: rank for rank, dtype in enumerate(_NAMES)}


def stored_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The plain tensors of ``module``'s state (weights, buffers, quantization state) by name; shared ones once.

    A tensor made of others, as torchao's are, is taken apart: ``weight.qdata``, ``weight.scale``.

    Take them before the first forward: on some CPUs bitsandbytes repacks NF4 weights there, and asking for their state
    afterwards packs them back (``Converted.model_size_bytes`` was taken in time).
    """
    tensors = {}
    seen = set()
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor):  # a module's own extra state is not a tensor's
            continue
        for part, tensor in plain_tensors(name, value):
            place = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
            if tensor.numel() and place in seen:
                continue
            seen.add(place)
            tensors[part] = tensor
    return tensors


def file_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of a safetensors file: 8 for the header's length, the header in JSON padded to 8, then the data.

    Raises:
        KeyError: a tensor of a type that safetensors files do not have.
    """
    header = {}
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-_RANK[item[1].dtype], item[0])):
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return 8 + -(-len(text) // 8) * 8 + end
