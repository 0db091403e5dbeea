"""What is known of the device that schemes are chosen for."""

from __future__ import annotations

import pytest
import torch

from pytest_vq.device import device
from pytest_vq.device.target import find_target
from pytest_vq.errors import DeviceUnavailableError
from pytest_vq.schema.spec import Target


def test_a_cpu_has_nothing_to_be_asked() -> None:
    assert find_target(gpu=False) == Target(is_accelerator=False)


def test_an_accelerator_is_asked_what_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "require_accelerator", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert find_target(gpu=True) == Target(is_accelerator=True, compute_capability=(9, 0))


def test_without_an_accelerator_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(DeviceUnavailableError, match="built without CUDA"):
        find_target(gpu=True)
