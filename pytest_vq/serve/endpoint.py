"""What can be served and put under load: an endpoint infers a batch, a service answers requests one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pytest_vq.errors import EndpointError

if TYPE_CHECKING:
    import torch
    from numpy import ndarray

    from pytest_vq.schema.served import ServedFacts


class Endpoint(Protocol):
    """A model, wherever it runs: here, behind an HTTP server, in a cluster."""

    def infer(self, batch: ndarray[Any, Any]) -> ndarray[Any, Any]:
        """The output ``[batch, …]`` of ``batch``, rows in order. It may be called from several threads.

        Raises:
            QueueFullError: it is too busy to take this batch.
            EndpointError: it could not be reached, or did not answer, or not with one row for each of the batch.
        """
        ...

    def close(self) -> None:
        """Let go of connections and memory."""
        ...


class Service(Protocol):
    """What a load is put on: it holds samples, and answers a request for one of them when it likes."""

    @property
    def sample_count(self) -> int:
        """How many samples it holds; a request names one by its index."""
        ...

    def submit(self, sample: int) -> Future[Any]:
        """The answer to come for one sample. Raises QueueFullError at once where it takes no more requests."""
        ...

    def close(self) -> None:
        """Stop its threads, and close what it serves."""
        ...


@runtime_checkable
class TellingService(Service, Protocol):
    """A service that tells of itself what nobody else knows: what it is, and what it executed together."""

    def begin(self) -> None:
        """The load begins: what was executed until now was to warm it up."""
        ...

    def facts(self) -> ServedFacts:
        """What there is to tell, once the load is over."""
        ...


@dataclass(frozen=True, slots=True)
class SampledService:
    """A service of samples and of whatever answers one of them: a batcher's ``submit``, an executor's."""

    samples: Sequence[Any]
    submit_row: Callable[[Any], Future[Any]]
    close_row: Callable[[], None]

    @property
    def sample_count(self) -> int:
        """See ``Service.sample_count``."""
        return len(self.samples)

    def submit(self, sample: int) -> Future[Any]:
        """See ``Service.submit``."""
        return self.submit_row(self.samples[sample])

    def close(self) -> None:
        """See ``Service.close``."""
        self.close_row()


def serve_unbatched(endpoint: Endpoint, samples: Sequence[Any], connections: int = 1) -> SampledService:
    """The service that gives ``endpoint`` each sample as a batch of one, up to ``connections`` of them at a time.

    For a model in this process that is one; for a server that batches by itself, as many as it may batch.
    """
    executor = ThreadPoolExecutor(connections, thread_name_prefix="vq-request")

    def submit_row(row: Any) -> Future[Any]:
        return executor.submit(lambda: endpoint.infer(row[None])[0])

    def close_row() -> None:
        executor.shutdown(wait=True, cancel_futures=True)
        endpoint.close()

    return SampledService(samples, submit_row, close_row)


class TorchEndpoint:
    """A model of torch in this process, quantized or not."""

    def __init__(self, model: Callable[[torch.Tensor], Any], device: str = "cpu") -> None:
        """Args: ``model`` returns one tensor [batch, …] or a transformers output; it is on ``device`` already."""
        self._model: Callable[[torch.Tensor], Any] | None = model
        self._device = device

    def infer(self, batch: ndarray[Any, Any]) -> ndarray[Any, Any]:
        """See ``Endpoint.infer``. The output is FP32: numpy has no BF16. Copying it back waits for the device."""
        import torch

        from pytest_vq.catalog.output import output_tensor

        if self._model is None:
            raise EndpointError("this model was served and closed: make a new endpoint for it")
        with torch.inference_mode():
            output = output_tensor(self._model(torch.from_numpy(batch).to(self._device)))
            answer: ndarray[Any, Any] = output.float().cpu().numpy()
        return checked_rows(answer, len(batch), "the model")

    def close(self) -> None:
        """See ``Endpoint.close``: the model is let go of."""
        self._model = None


def checked_rows(answer: ndarray[Any, Any], rows: int, who: str) -> ndarray[Any, Any]:
    """``answer`` as it is. Raises EndpointError naming ``who`` gave it, where that is not ``rows`` rows."""
    if answer.ndim == 0 or len(answer) != rows:
        raise EndpointError(f"{who} answered a batch of {rows} with an output of shape {list(answer.shape)}")
    return answer
