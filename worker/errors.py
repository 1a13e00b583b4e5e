"""The exception tree of the worker: wrong input on the command line, and errors that a client gets as a status."""

from worker.wire import StatusCode

# A message quotes what the client sent, and travels in a header: a header of megabytes would end the connection.
_MESSAGE_LENGTH = 500


class WorkerError(Exception):
    """Base of all exceptions that the worker raises on purpose."""


class InputError(WorkerError):
    """Wrong input on the command line or in a file that it names: one line on stderr, and this exit code."""

    exit_code: int = 2


class ServiceError(WorkerError):
    """A request that is answered with a gRPC status code and a message instead of a result."""

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message if len(message) <= _MESSAGE_LENGTH else message[:_MESSAGE_LENGTH] + "…"


def invalid_argument(message: str) -> ServiceError:
    """Returns the error for a request that is wrong in itself: sending it again cannot help."""
    return ServiceError(StatusCode.INVALID_ARGUMENT, message)


def unavailable(message: str) -> ServiceError:
    """Returns the error for a request that another worker, or this one later, may answer."""
    return ServiceError(StatusCode.UNAVAILABLE, message)
