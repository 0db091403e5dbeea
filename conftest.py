"""What every run from the root shares: pytester, and the skip of tests that need a GPU where there is none.

pytest takes ``pytest_plugins`` from the conftest file of its root only.
"""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU, with what is missing as the reason."""
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    from pytest_vq.device.device import require_accelerator
    from pytest_vq.errors import DeviceUnavailableError

    try:
        require_accelerator()
    except DeviceUnavailableError as error:
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason=f"needs a GPU: {error}"))
