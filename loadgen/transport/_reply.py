"""How one call ended, whichever transport carried it: Reply, and gRPC's status codes by number and name."""

from __future__ import annotations

from typing import NamedTuple

#: In the order of their numbers (https://grpc.io/docs/guides/status-codes/).
CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED = range(8)
RESOURCE_EXHAUSTED, FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = range(8, 15)
DATA_LOSS, UNAUTHENTICATED = 15, 16
#: Not gRPC's: the request was due and never sent.
UNSENT = -1
#: Not gRPC's: the server said OK, and the answer is not the right one.
WRONG_OUTPUT = -2


class Reply(NamedTuple):
    """A tuple, not a dataclass: one is made for every request, and this is three times cheaper."""

    code: int
    """The gRPC status, 0 to 16."""
    message: str
    """The server's words (percent-decoded), or ours where the call ended on this side."""
    payload: bytes | None = None
    """The serialized response message; None unless the code is OK."""


class Unsettled(Reply):
    """UNAVAILABLE that no server said: there is no connection, or it went away. The target itself is in question."""

    __slots__ = ()


class Lost(Unsettled):
    """The connection went away, or something between lost it, with the call in flight: it may have been run."""

    __slots__ = ()


def code_name(code: int) -> str:
    """`14` -> `UNAVAILABLE`. What gRPC does not number is UNKNOWN."""
    if code == WRONG_OUTPUT:
        return "WRONG_OUTPUT"
    return CODES[code] if 0 <= code < len(CODES) else "UNKNOWN"
