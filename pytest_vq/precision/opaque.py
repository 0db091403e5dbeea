"""A whole program in a model's place, by a user's function: of another library, whose layers nobody can look into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pytest_vq.errors import PrecisionError, VqError, first_line
from pytest_vq.precision.converted import Converted
from pytest_vq.precision.layers import Copier
from pytest_vq.precision.verify import check_source
from pytest_vq.registering import qualname
from pytest_vq.schema.figures import Coverage
from pytest_vq.schema.spec import PrecisionSpec

NOT_INSPECTABLE = "not inspectable"


@dataclass(frozen=True, slots=True)
class Opaque:
    """A model as a program of its own, with what can only be stated of it."""

    call: Callable[..., object]  # takes what the model does (FP32, on the device); returns that, or the tensor compared
    model_size_bytes: int  # serialized: the bytes of the file that it can be loaded from
    fingerprint: str  # a digest of what it stores: two precisions with the same one are one under two names


class OpaqueProgram(nn.Module):
    """The program as a module, so that it is run and timed as every model is. It has no tensors of its own."""

    def __init__(self, call: Callable[..., object]) -> None:
        super().__init__()
        self._call = call

    def forward(self, *args: Tensor, **kwargs: Tensor) -> object:
        """What the program answers."""
        return self._call(*args, **kwargs)


def convert_opaque(source: nn.Module, spec: PrecisionSpec, device: torch.device, example: Any) -> Converted:
    """The program that the user's function of ``spec`` makes of a copy of ``source`` on ``device``.

    Args:
        source: an FP32 model on the CPU; it is not changed.
        spec: the precision.
        device: what it is to run on.
        example: the inputs of the timed request, FP32 on the CPU.

    Raises:
        PrecisionError: the source is not an FP32 model on the CPU, or the function raised or returned no ``Opaque``.
    """
    assert spec.program is not None
    check_source(source)
    # Exporters trace: they take no tensors of inference mode, and gradients are of no use to them.
    with torch.inference_mode(mode=False), torch.no_grad():
        model = Copier(device, torch.float32).model(source).eval().requires_grad_(requires_grad=False)
        try:
            made: object = spec.program(model, _on_device(example, device), device)
        except (VqError, torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except Exception as error:
            what = f"its function {qualname(spec.program)} raised {type(error).__name__}: {first_line(error)}"
            raise PrecisionError(f"{spec.name}: {what}") from error
    program = _checked(made, spec)
    return Converted(
        module=OpaqueProgram(program.call).eval(),
        method=f"{spec.method}, {NOT_INSPECTABLE}",
        dtype=torch.float32,
        coverage=Coverage(eligible=None, quantized=None),
        model_size_bytes=program.model_size_bytes,
        fingerprint=program.fingerprint,
    )


def _checked(made: object, spec: PrecisionSpec) -> Opaque:
    whose = f"{spec.name}: its function {qualname(spec.program)}"
    if not isinstance(made, Opaque):
        raise PrecisionError(
            f"{whose} returned a {type(made).__name__}; it must return pytest_vq.Opaque(call, model_size_bytes=..., "
            "fingerprint=...)"
        )
    if not callable(made.call):
        raise PrecisionError(f"{whose}: Opaque.call is a {type(made.call).__name__}, and cannot be called")
    if type(made.model_size_bytes) is not int or made.model_size_bytes <= 0:
        raise PrecisionError(
            f"{whose}: Opaque.model_size_bytes is {made.model_size_bytes!r}; state the bytes that it is stored in"
        )
    if not isinstance(made.fingerprint, str) or not made.fingerprint:
        raise PrecisionError(
            f"{whose}: Opaque.fingerprint is {made.fingerprint!r}; give a digest of what it stores, as "
            "hashlib.sha256(data).hexdigest(), so that one program under two names is found out"
        )
    return made


def _on_device(inputs: Any, device: torch.device) -> Any:
    """Copies of all tensors of ``inputs``, whatever holds them."""
    return torch.utils._pytree.tree_map_only(Tensor, lambda tensor: tensor.detach().clone().to(device), inputs)
