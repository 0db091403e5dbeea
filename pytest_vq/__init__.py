"""pytest-vq: quantized vision models benchmarked as pytest tests, gated against stored baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vq.catalog.models import register_model
    from pytest_vq.errors import VqError
    from pytest_vq.schema.record import Record, Timing

__all__ = ["Record", "Timing", "VqError", "__version__", "register_model"]
__version__ = "0.1.0"

_HOMES = {
    "Record": "pytest_vq.schema.record:Record",
    "Timing": "pytest_vq.schema.record:Timing",
    "VqError": "pytest_vq.errors:VqError",
    "register_model": "pytest_vq.catalog.models:register_model",
}


def __getattr__(name: str) -> object:
    # Imported when first asked for: every pytest run of an environment imports this package, few use it.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pkgutil import resolve_name

    value = globals()[name] = resolve_name(_HOMES[name])
    return value
