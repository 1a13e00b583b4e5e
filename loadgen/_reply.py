"""What comes back from a target, whichever transport carried it."""

from __future__ import annotations

from loadgen._h2_reply import Reply

__all__ = ["CANCELLED", "CODES", "UNAVAILABLE", "UNSENT", "Reply", "code_name"]

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
UNAVAILABLE = 14
#: Not gRPC's: the request was due and never sent.
UNSENT = -1


def code_name(code: int) -> str:
    """`14` -> `UNAVAILABLE`. What gRPC does not number is UNKNOWN."""
    return CODES[code] if 0 <= code < len(CODES) else "UNKNOWN"
