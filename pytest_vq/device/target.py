"""What a scheme may need of the device that measures it. Loads torch only where there is an accelerator to ask."""

from __future__ import annotations

from pytest_vq.schema.spec import Target


def find_target(*, gpu: bool) -> Target:
    """The CPU, or the accelerator with what it can compute.

    Raises:
        DeviceUnavailableError: there is no accelerator.
    """
    if not gpu:
        return Target(is_accelerator=False)
    import torch

    from pytest_vq.device.device import require_accelerator

    require_accelerator()
    return Target(is_accelerator=True, compute_capability=torch.cuda.get_device_capability())
