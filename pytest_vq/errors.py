"""The tree of errors this package raises on purpose.

Every message says what happened, where, and what to do next, because in CI the message is all the reader has.
"""


def first_line(error: BaseException) -> str:
    """What an error from elsewhere says first: hints follow, and a line of its own may be a command to a CI runner."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class VqError(Exception):
    """Base of every error raised on purpose by pytest-vq."""


class SelectionError(VqError):
    """A model, precision, batch or option value that does not exist; names the nearest valid ones."""


class RegistrationError(VqError):
    """A user's model, precision or execution that cannot be registered, or whose functions give no usable inputs."""


class BuildError(VqError):
    """A model could not be built or loaded: unreachable checkpoint, or one that does not fit its config."""


class PrecisionError(VqError):
    """A precision scheme did not do what its name says: no layer touched, wrong stored type, same bytes as another."""


class ExecutionError(VqError):
    """A model could not be made to run as its execution says: a graph break, a recompilation, a failed capture."""


class OutputError(VqError):
    """A forward pass gave something that cannot be compared: not a tensor, not finite, or degenerate."""


class MeasurementError(VqError):
    """A measurement could not be made, or cannot be trusted."""


class DeviceOutOfMemoryError(MeasurementError):
    """The device (or the host) ran out of memory while a pair was built or measured."""


class DeviceLostError(MeasurementError):
    """A kernel crashed and took the device context with it: nothing more can run on it in this process."""


class DeviceUnavailableError(VqError):
    """The accelerator that was asked for is not there."""


class BaselineError(VqError):
    """A baseline file is unreadable, truncated, of a newer schema, or cannot be written."""


class ResultsError(VqError):
    """Results cannot be written or read: directory not writable, disk full, or not a results file."""


class MissingExtraError(VqError):
    """What was asked for needs libraries that are installed with one of the package's extras; names it."""


class QueueFullError(VqError):
    """A server refused a request at once, because as many as it holds were waiting already."""


class BatcherClosedError(VqError):
    """A request came to a server that was closed, or whose thread had ended."""


class RolloutError(VqError):
    """A rollout's log is damaged, does not replay to its own decisions, or is of a rollout with other limits."""


class EndpointError(VqError):
    """A server could not be reached, answered too late or with an error, or with what its protocol does not allow."""
