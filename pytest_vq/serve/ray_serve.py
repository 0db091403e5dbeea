"""A model that Ray Serve runs, called through its handle from inside the cluster. Over HTTP, see `open_inference`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_vq.errors import EndpointError, QueueFullError, first_line
from pytest_vq.serve.endpoint import checked_rows

if TYPE_CHECKING:
    from numpy import ndarray

# Ray's own name for "as many requests as max_queued_requests are waiting"; told by name, so that no ray is needed here.
_REFUSAL = "BackPressureError"


class RayServeEndpoint:
    """Infers batches by a deployment's method, through a handle (``ray.serve.get_app_handle``)."""

    def __init__(self, handle: Any, method: str = "infer", timeout_s: float = 10.0) -> None:
        """Args: ``method`` of the deployment takes a batch and returns its output, both numpy arrays."""
        self._method, self._timeout_s = getattr(handle, method), timeout_s
        self._who = f"the Ray Serve deployment {getattr(handle, 'deployment_name', type(handle).__name__)}.{method}"

    def infer(self, batch: ndarray[Any, Any]) -> ndarray[Any, Any]:
        """See ``Endpoint.infer``."""
        try:
            answer: ndarray[Any, Any] = self._method.remote(batch).result(timeout_s=self._timeout_s)
        except TimeoutError as error:
            raise EndpointError(f"{self._who} did not answer within {self._timeout_s:g} s") from error
        except Exception as error:
            cause = getattr(error, "cause", None) or error  # Ray's own says in which process, in many lines
            kind = QueueFullError if type(error).__name__ == _REFUSAL else EndpointError
            raise kind(f"{self._who}: {type(cause).__name__}: {first_line(cause)}") from error
        return checked_rows(answer, len(batch), self._who)

    def close(self) -> None:
        """See ``Endpoint.close``: the deployment is not this endpoint's to end."""
