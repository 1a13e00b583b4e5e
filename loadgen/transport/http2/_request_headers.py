"""What a gRPC client sends before its messages: the preface of a connection, and the header block of a request."""

import math

from worker.wire.http2 import (
    ACCEPTED_ENCODINGS,
    CLIENT_PREFACE,
    DEFAULT_WINDOW,
    ENABLE_PUSH,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    WINDOW_UPDATE,
    PeerLimits,
    encode_frame,
    encode_settings,
    literal_block,
    u32,
)

LIMITS = PeerLimits(
    stream_window=LARGEST_WINDOW, connection_window=LARGEST_WINDOW, header_list_bytes=65536, unread_answers=10000
)
"""What a server may cost a client: replies are limited by their size alone."""

OPENING_BYTES = b"".join(
    (
        CLIENT_PREFACE,
        encode_settings(
            (HEADER_TABLE_SIZE, 0),
            (ENABLE_PUSH, 0),
            (INITIAL_WINDOW_SIZE, LIMITS.stream_window),
            (MAX_FRAME_SIZE, LIMITS.frame_bytes),
            (MAX_HEADER_LIST_SIZE, LIMITS.header_list_bytes),
        ),
        encode_frame(WINDOW_UPDATE, 0, 0, u32.pack(LIMITS.connection_window - DEFAULT_WINDOW)),
    )
)


def request_block(
    *, method: str, scheme: str, authority: str, token: str | None = None, timeout_s: float | None = None
) -> bytes:
    """The header block of a request; equal arguments give equal bytes."""
    fields = [(":method", "POST"), (":scheme", scheme), (":path", method), (":authority", authority)]
    if timeout_s is not None:
        fields.append(("grpc-timeout", format_timeout(timeout_s)))
    fields += [
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-python-inferload/1"),
        ("grpc-accept-encoding", ACCEPTED_ENCODINGS),
    ]
    if token is not None:
        fields.append(("authorization", f"Bearer {token}"))
    return literal_block(fields)


def format_timeout(seconds: float) -> str:
    """The value of `grpc-timeout`: at most 8 digits and the finest unit that is large enough, rounded up."""
    if seconds > 99_999_998:
        return "99999999S"
    for unit, scale in (("n", 1e9), ("u", 1e6), ("m", 1e3), ("S", 1.0)):
        number = max(math.ceil(seconds * scale), 1)
        if number < 10**8:
            return f"{number}{unit}"
    return "99999999S"
