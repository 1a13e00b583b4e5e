"""The two ways in which the worker says no: to the person who started it, and to a client."""

import grpc


class UsageError(Exception):
    """What was asked for cannot be had; its text is the one line on stderr, and the exit code is 2."""


# A message quotes what the client sent, and travels in a header: a header of megabytes would end the connection.
_LONGEST = 500


class Refused(Exception):
    """A request that is answered with a gRPC status instead of a result."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message if len(message) <= _LONGEST else message[:_LONGEST] + "…"


def invalid(message: str) -> Refused:
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, message)


def unavailable(message: str) -> Refused:
    return Refused(grpc.StatusCode.UNAVAILABLE, message)
