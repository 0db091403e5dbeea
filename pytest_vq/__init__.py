"""pytest-vq: quantized vision models benchmarked as pytest tests, gated against stored baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vq.advise.loading import LoadReport, load
    from pytest_vq.catalog.models import register_model
    from pytest_vq.errors import VqError
    from pytest_vq.execution.own_executions import register_execution
    from pytest_vq.execution.prepared import Prepared
    from pytest_vq.precision.opaque import Opaque
    from pytest_vq.precision.own_precisions import register_precision
    from pytest_vq.schema.figures import Timing
    from pytest_vq.schema.record import Record
    from pytest_vq.serve.guard import guard

__all__ = [
    "LoadReport",
    "Opaque",
    "Prepared",
    "Record",
    "Timing",
    "VqError",
    "__version__",
    "guard",
    "load",
    "register_execution",
    "register_model",
    "register_precision",
]
__version__ = "0.1.0"

_HOMES = {
    "guard": "pytest_vq.serve.guard:guard",
    "LoadReport": "pytest_vq.advise.loading:LoadReport",
    "load": "pytest_vq.advise.loading:load",
    "Record": "pytest_vq.schema.record:Record",
    "Timing": "pytest_vq.schema.figures:Timing",
    "VqError": "pytest_vq.errors:VqError",
    "Opaque": "pytest_vq.precision.opaque:Opaque",
    "Prepared": "pytest_vq.execution.prepared:Prepared",
    "register_execution": "pytest_vq.execution.own_executions:register_execution",
    "register_model": "pytest_vq.catalog.models:register_model",
    "register_precision": "pytest_vq.precision.own_precisions:register_precision",
}


def __getattr__(name: str) -> object:
    # Imported when first asked for: every pytest run of an environment imports this package, few use it.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pkgutil import resolve_name

    value = globals()[name] = resolve_name(_HOMES[name])
    return value
