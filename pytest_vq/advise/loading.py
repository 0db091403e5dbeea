"""A verified quantized model, or FP32 and the reason: a scheme is validated on inputs before it is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pytest_vq.catalog.inputs import ModelInputs, bind_inputs, checked_inputs, move_inputs, move_tensor
from pytest_vq.catalog.output import output_tensor
from pytest_vq.device.device import Device, guarded, open_device
from pytest_vq.device.target import find_target
from pytest_vq.errors import ExecutionError, OutputError, PrecisionError
from pytest_vq.execution.executions import load_prepare
from pytest_vq.execution.prepared import Context, Prepared
from pytest_vq.execution.schemes import find_scheme, reference_scheme, refusal
from pytest_vq.measure.reference import forward
from pytest_vq.measure.workload import convert_on, naming_failures, switches_of
from pytest_vq.precision.convert import convert
from pytest_vq.precision.converted import Converted
from pytest_vq.precision.fidelity import check_output, measure_fidelity
from pytest_vq.precision.layers import eligible_layers
from pytest_vq.precision.mixed import check_names
from pytest_vq.precision.verify import check_source
from pytest_vq.schema.figures import present
from pytest_vq.schema.spec import FP32, Scheme


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What ``load`` returned, and how it compares with FP32 on the inputs given."""

    scheme: str  # that was loaded: "fp32" after a fallback
    method: str  # what runs in it
    sqnr_db: float | None  # of the scheme asked for, even where it was refused for that; None where it never answered
    cosine: float | None
    model_size_bytes: int  # of what was loaded, serialized
    fell_back_because: str | None = None


@dataclass(frozen=True, slots=True)
class _Candidate:
    model: LoadedModel
    converted: Converted


class LoadedModel(nn.Module):
    """A converted model that takes inputs as the FP32 one does: they are moved to its device and cast to its type."""

    def __init__(self, converted: Converted, prepared: Prepared, switches: Context, device: torch.device) -> None:
        super().__init__()
        self.module = converted.module
        self.training = False  # as the module inside
        self._prepared = prepared
        self._switches = switches
        self._fed = converted.dtype
        self._device = device

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own answer, in the type that it has."""
        cast = partial(_move, device=self._device, dtype=self._fed)
        with torch.no_grad(), self._switches(), self._prepared.context():
            return self._prepared.call(*map(cast, args), **{name: cast(value) for name, value in kwargs.items()})

    def close(self) -> None:
        """Give back what running it took beside the model: compiled code, a graph's pool."""
        self._prepared.close()


def load(  # noqa: PLR0913  # it is called once, by keyword
    model: nn.Module,
    scheme: str,
    *,
    inputs: ModelInputs | list[Tensor],
    min_sqnr_db: float | None = None,
    head: str | Sequence[str] | None = None,
    output: Callable[[Any], Tensor] = output_tensor,
    gpu: bool = False,
) -> tuple[nn.Module, LoadReport]:
    """``model`` at ``scheme``, verified and compared with FP32 on ``inputs``; or FP32, and the reason in the report.

    Args:
        model: an FP32 model on the CPU; it is not changed. What is returned is a copy in eval mode.
        scheme: as of ``--vq-precisions``: ``int8``, ``bf16+compile``, ``recipe:FILE``.
        inputs: FP32 ``[n, ...]`` on the CPU, as the model will see them: a tensor, several, or a dict of keyword
            arguments. For an execution that is made for one shape, all calls must have that shape.
        min_sqnr_db: the least that is good enough; by default what the suite expects of that precision at least.
        head: dotted name or names of the modules left unquantized, usually the classifier.
        output: what the model returns -> the tensor ``[n, ...]`` that is compared, where it is no tensor and no output
            of transformers.
        gpu: on the accelerator.

    Returns:
        The model that may be called as the FP32 one is, and the report.

    Raises:
        SelectionError: no such scheme, or the file is no recipe.
        PrecisionError: the model is not FP32 on the CPU, has no such head, or the recipe names layers it does not have.
        RegistrationError: the inputs are none that a model can be called with.
        OutputError: FP32's own answer cannot be compared with.
        DeviceUnavailableError: there is no accelerator.
    """
    wanted = find_scheme(scheme)
    check_source(model)
    heads = (head,) if isinstance(head, str) else tuple(head or ())
    layers = eligible_layers(model, heads)
    if wanted.precision.mix is not None:
        check_names(wanted.name, wanted.precision.mix, layers)
    device = open_device(gpu, torch.get_num_threads())
    return _Loader(model, heads, device, checked_inputs(inputs, "load: inputs"), output).load(wanted, min_sqnr_db)


@dataclass(frozen=True, slots=True)
class _Loader:
    source: nn.Module
    heads: tuple[str, ...]
    device: Device
    inputs: ModelInputs
    output: Callable[[Any], Tensor]

    def load(self, scheme: Scheme, min_sqnr_db: float | None) -> tuple[nn.Module, LoadReport]:
        with guarded(self.device, scheme.name), torch.no_grad():
            expected = self._expected()
            try:
                candidate = self._candidate(scheme)
            except (PrecisionError, ExecutionError, OutputError) as error:
                return self._fallback(str(error))
            return self._judged(scheme, candidate, expected, min_sqnr_db)

    def _judged(
        self, scheme: Scheme, candidate: _Candidate, expected: Tensor, min_sqnr_db: float | None
    ) -> tuple[nn.Module, LoadReport]:
        try:
            answer = self._answer(candidate.model, scheme.name)
            check_output(answer, scheme.name, like=expected)
        except (ExecutionError, OutputError) as error:
            candidate.model.close()
            return self._fallback(str(error))
        fidelity = measure_fidelity(expected, answer)
        sqnr_db = present(fidelity.sqnr_db)
        least_db = scheme.precision.min_sqnr_db if min_sqnr_db is None else min_sqnr_db
        if least_db is not None and sqnr_db < least_db:
            candidate.model.close()
            reason = f"{scheme.name} answers with {sqnr_db:.1f} dB, where at least {least_db:g} dB are asked for"
            return self._fallback(reason, sqnr_db, fidelity.cosine)
        converted = candidate.converted
        size_bytes = converted.model_size_bytes
        report = LoadReport(scheme.name, converted.method, sqnr_db, fidelity.cosine, size_bytes)
        return candidate.model, report

    def _fallback(
        self, reason: str, sqnr_db: float | None = None, cosine: float | None = None
    ) -> tuple[nn.Module, LoadReport]:
        fp32 = self._candidate(reference_scheme())
        size_bytes, method = fp32.converted.model_size_bytes, fp32.converted.method
        return fp32.model, LoadReport(FP32, method, sqnr_db, cosine, size_bytes, reason)

    def _candidate(self, scheme: Scheme) -> _Candidate:
        """The model at ``scheme``, converted and verified. Raises PrecisionError where it cannot be had."""
        refused = refusal(scheme, find_target(gpu=self.device.is_accelerator))
        if refused:
            raise PrecisionError(f"{scheme.name} cannot run here: {refused}")
        device, switches = self.device.torch_device, switches_of(scheme.precision)
        converted = convert_on(self.device, self.source, scheme.precision, self.heads, self.inputs)
        with naming_failures(scheme.name), switches():
            prepared = load_prepare(scheme.execution)(converted, move_inputs(self.inputs, device, converted.dtype))
        return _Candidate(LoadedModel(converted, prepared, switches, device), converted)

    def _expected(self) -> Tensor:
        """What a copy of the FP32 model answers, on the CPU whatever the device."""
        fp32 = reference_scheme().precision
        copy = convert(self.source, fp32, device=torch.device("cpu"), rest=torch.float32, heads=self.heads).module
        expected = self._answer(copy, FP32)
        check_output(expected, FP32)
        return expected

    def _answer(self, model: nn.Module, what: str) -> Tensor:
        # A copy: a CUDA graph writes its next answer over this one.
        return forward(bind_inputs(model, self.inputs), self.inputs, what, self._take).clone()

    def _take(self, answer: object) -> Tensor:
        """The tensor that is compared; a program may return it as it is."""
        return answer if isinstance(answer, Tensor) else self.output(answer)


def _move(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """``value`` as the model is fed it; anything but a tensor as it is."""
    return move_tensor(value, device, dtype) if isinstance(value, Tensor) else value
