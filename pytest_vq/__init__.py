"""pytest-vq: quantized vision models benchmarked as pytest tests, gated against stored baselines."""

from __future__ import annotations

from pytest_vq.catalog import register_model
from pytest_vq.errors import VqError
from pytest_vq.record import Record, Timing

__all__ = ["Record", "Timing", "VqError", "__version__", "register_model"]
__version__ = "0.1.0"
