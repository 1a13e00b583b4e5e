"""What a gRPC client says first: its preface, and the header block of a request."""

import math

from loadgen.transport.http2._response import MAX_HEADER_LIST
from worker.wire.http2.frames import (
    ACCEPTED_ENCODINGS,
    DEFAULT_WINDOW,
    ENABLE_PUSH,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    OUR_FRAME,
    PRELUDE,
    WINDOW_UPDATE,
    frame,
    literal_block,
    settings_frame,
    u32,
)

PREFACE = b"".join(
    (
        PRELUDE,
        settings_frame(
            (HEADER_TABLE_SIZE, 0),
            (ENABLE_PUSH, 0),
            (INITIAL_WINDOW_SIZE, LARGEST_WINDOW),
            (MAX_FRAME_SIZE, OUR_FRAME),
            (MAX_HEADER_LIST_SIZE, MAX_HEADER_LIST),
        ),
        frame(WINDOW_UPDATE, 0, 0, u32.pack(LARGEST_WINDOW - DEFAULT_WINDOW)),
    )
)


def request_block(
    *, method: str, scheme: str, authority: str, token: str | None = None, timeout_s: float | None = None
) -> bytes:
    """The header block of a request, the same every time."""
    fields = [(":method", "POST"), (":scheme", scheme), (":path", method), (":authority", authority)]
    if timeout_s is not None:
        fields.append(("grpc-timeout", timeout_value(timeout_s)))
    fields += [
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-python-inferload/1"),
        ("grpc-accept-encoding", ACCEPTED_ENCODINGS),
    ]
    if token is not None:
        fields.append(("authorization", f"Bearer {token}"))
    return literal_block(fields)


def timeout_value(seconds: float) -> str:
    """`grpc-timeout`: at most 8 digits and a unit, rounded up, the finest unit that holds it."""
    if seconds > 99_999_998:
        return "99999999S"
    for unit, scale in (("n", 1e9), ("u", 1e6), ("m", 1e3), ("S", 1.0)):
        number = max(math.ceil(seconds * scale), 1)
        if number < 10**8:
            return f"{number}{unit}"
    return "99999999S"
