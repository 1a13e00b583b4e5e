"""What comes back from a target, whichever transport carried it."""

from __future__ import annotations

from typing import NamedTuple

#: gRPC's status codes by number (https://grpc.io/docs/guides/status-codes/).
CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
CANCELLED = 1
#: Not gRPC's: the request was due and never sent.
UNSENT = -1


class Reply(NamedTuple):
    """`code` as gRPC numbers it; `payload` is the serialized response message, None unless the code is 0."""

    code: int
    message: str
    payload: bytes | None


def code_name(code: int) -> str:
    """`14` -> `UNAVAILABLE`. What gRPC does not number is UNKNOWN."""
    return CODES[code] if 0 <= code < len(CODES) else "UNKNOWN"
