"""A model moved into page-locked memory, with copies in the place of that memory: there is none without a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pytest_vq import register_model
from pytest_vq.catalog.models import find_model, isolated
from pytest_vq.device.device import Device, open_device
from pytest_vq.device.pinned import pin_storages
from pytest_vq.execution.schemes import find_scheme
from pytest_vq.measure import reference as reference_module
from pytest_vq.measure.reference import Reference
from pytest_vq.measure.workload import place
from pytest_vq.schema.spec import Case


class Pin:
    """Copies a storage, as often as it is allowed to, and then refuses with ``error``."""

    def __init__(self, allowed: int = 1000, error: str = "CUDA error: out of memory") -> None:
        self.allowed, self.error = allowed, error
        self.made: set[int] = set()

    def __call__(self, storage: torch.UntypedStorage) -> torch.UntypedStorage:
        if len(self.made) == self.allowed:
            raise RuntimeError(self.error)
        copy = storage.clone()
        self.made.add(copy.data_ptr())
        return copy

    def holds(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self.made


class Net(nn.Module):
    """Weights of its own, one shared as a parameter, one shared as memory only, a part of another, and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(4, 4, bias=False) for _ in range(3))
        self.second.weight = self.first.weight
        self.third.weight.data = self.first.weight.data.t()
        self.part = nn.Parameter(self.first.weight.data[1:3])
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("empty", torch.empty(0))
        self.register_buffer("nothing", None)


@pytest.fixture
def net() -> nn.Module:
    return Net().eval().requires_grad_(False)


def tensors(net: nn.Module) -> list[Tensor]:
    return [t for t in (*net.parameters(), *net.buffers()) if t.numel()]


def test_everything_is_moved_and_nothing_changed(net: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    parameters = list(net.parameters())
    pin = Pin()
    assert pin_storages(net, pin)
    assert all(map(pin.holds, tensors(net)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    assert not any(tensor.requires_grad for tensor in net.parameters())


def test_what_shares_memory_still_shares_it_and_is_moved_once(net: nn.Module) -> None:
    pin = Pin()
    pin_storages(net, pin)
    shared = [net.first.weight, net.second.weight, net.third.weight, net.part]
    assert len({tensor.untyped_storage().data_ptr() for tensor in shared}) == 1
    assert len(pin.made) == 1 + len([*net.norm.parameters(), *net.norm.buffers()])
    net.first.weight.data[1, 2] = 42.0
    assert (net.second.weight[1, 2], net.third.weight[2, 1], net.part[0, 2]) == (42.0, 42.0, 42.0)


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_where_the_system_refuses_the_rest_stays_where_it_is(net: nn.Module, allowed: int) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    pin = Pin(allowed)
    assert not pin_storages(net, pin)
    assert len(pin.made) == allowed
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert len({t.untyped_storage().data_ptr() for t in (net.first.weight, net.third.weight, net.part)}) == 1


def test_an_error_of_the_device_is_not_taken_for_a_refusal(net: nn.Module) -> None:
    with pytest.raises(RuntimeError, match="device-side assert"):
        pin_storages(net, Pin(1, "CUDA error: device-side assert triggered"))


def test_parameters_stay_plain_ones_in_inference_mode(net: nn.Module) -> None:
    with torch.inference_mode():
        pin_storages(net, Pin())
    assert not any(tensor.is_inference() for tensor in tensors(net))


class Accelerator(Device):
    """A CPU that is taken for an accelerator."""

    is_accelerator = True

    def synchronize(self) -> None:
        """Nothing is ever under way."""


@pytest.mark.parametrize(("kind", "times"), [(Device, 0), (Accelerator, 1)])
@torch.inference_mode()
def test_a_source_is_moved_once_for_all_precisions_and_for_an_accelerator_only(
    kind: type[Device], times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[nn.Module] = []
    monkeypatch.setattr(reference_module, "pin_storages", moved.append)
    monkeypatch.setattr(reference_module, "release_pinned", lambda: None)
    plain = open_device(gpu=False, threads=1)
    device = kind(**{name: getattr(plain, name) for name in Device.__slots__})
    with isolated():
        register_model("tiny", input_shape=(3, 8, 8))(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 64)))
        reference = Reference.of(find_model("tiny"), "random")
        for scheme in ("fp32", "fp16", "int8"):
            place(Case(reference.model, find_scheme(scheme)), reference, device)
    assert moved == [reference.source] * times
