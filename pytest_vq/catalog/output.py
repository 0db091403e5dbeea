"""The one tensor that stands for a model's output: what fidelity and accuracy are computed from."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pytest_vq.errors import OutputError
from pytest_vq.registering import qualname
from pytest_vq.schema.spec import ModelSpec


def taken_output(spec: ModelSpec, output: Any) -> Tensor:
    """The tensor in ``output``, what a model of ``spec`` returned: by the user's own function, where there is one.

    Raises:
        OutputError: it gave no tensor; or as ``output_tensor``. What the user's function raises is raised as it is.
    """
    if spec.output is None:
        return output_tensor(output)
    taken: object = spec.output(output)
    if not isinstance(taken, Tensor):
        raise OutputError(
            f"its function {qualname(spec.output)} returned a {type(taken).__name__}; it must return one tensor "
            "[batch, ...]"
        )
    return taken


def output_tensor(output: Any) -> Tensor:
    """The tensor in ``output`` that two precisions of a model are compared by, of shape ``[batch, ...]``.

    A tensor is taken as it is; of a transformers ``ModelOutput``, the first there is of ``logits``,
    ``pooler_output``, and the first token of ``last_hidden_state``.

    Raises:
        OutputError: for anything else (a tuple, a dict), because which part counts would be a guess.
    """
    if isinstance(output, Tensor):
        return output
    if not _is_model_output(output):
        raise OutputError(
            f"the model returned a {type(output).__name__}, which cannot be compared between precisions: return one "
            "tensor [batch, ...], or a transformers ModelOutput with logits, pooler_output or last_hidden_state; or "
            "give output= (of register_model, or of load), a function that makes one tensor of it"
        )
    for name in ("logits", "pooler_output"):
        value = getattr(output, name, None)
        if isinstance(value, Tensor):
            return value
    hidden = getattr(output, "last_hidden_state", None)
    if isinstance(hidden, Tensor):
        return hidden[:, 0]
    raise OutputError(
        f"the model's {type(output).__name__} has {', '.join(output) or 'nothing'}: none of logits, pooler_output and "
        "last_hidden_state is a tensor; return one of them, or one tensor [batch, ...]"
    )


def _is_model_output(output: Any) -> bool:
    # Slow to import, and a user's plain torch model does without it.
    from transformers.utils import ModelOutput  # type: ignore[attr-defined]

    return isinstance(output, ModelOutput)
