"""Frames as bytes (RFC 9113): their types, flags, settings and error codes, and how they are built."""

import logging
import zlib
from collections.abc import Iterable
from struct import Struct

from hpack import Encoder

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITY_FLAG = 0x4, 0x8, 0x20
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED = 0x0, 0x1, 0x2, 0x3, 0x5
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0x6, 0x7, 0x8, 0x9, 0xB
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 2, 3, 4
MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 5, 6

PRELUDE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # what a client says first
LARGEST_WINDOW = LAST_STREAM_ID = 2**31 - 1
DEFAULT_WINDOW, DEFAULT_FRAME, DEFAULT_TABLE = 65535, 16384, 4096
OUR_FRAME = 65536  # the largest frame we accept: few frames for a large message, and little to hold of a cut one
LARGEST_CHUNK = 131072  # the largest frame we send, where the peer takes larger ones: a small call waits for no more
EMPTY_TABLE = b"\x20"  # HPACK: dynamic table size update to 0 (RFC 7541, 6.3)
HIGH_WATER = 262144  # bytes of large messages handed out at once; more would only wait in memory
MOST_CONTINUATIONS = 64
KEPT_BLOCK, KEPT_BLOCKS = 1024, 4096  # header blocks remembered: bytes each, and how many

# At the level of debugging hpack writes down every header, tokens too.
logging.getLogger("hpack").setLevel(logging.INFO)

ACCEPTED_ENCODINGS = "identity,deflate,gzip"
WINDOW_BITS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}

frame_head = Struct(">HBBBI")
prefix_head = Struct(">BI")
stream_id_of = Struct(">I").pack
u32 = Struct(">I")
setting = Struct(">HI")


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return frame_head.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream_id) + payload


def settings_frame(*values: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(setting.pack(name, value) for name, value in values))


class ProtocolError(Exception):
    """The peer broke HTTP/2: the connection ends. `code` goes out in our GOAWAY."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


def settings_of(flags: int, payload: bytes) -> list[tuple[int, int]] | None:
    """Names and values of a SETTINGS frame; None for one that says that ours were heard. Raises ProtocolError."""
    if flags & ACK:
        exactly(0, payload)
        return None
    if len(payload) % 6:
        raise ProtocolError(FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
    return list(setting.iter_unpack(payload))


def largest_frame(value: int) -> int:
    """The largest frame that we send to a peer that takes such ones. Raises ProtocolError."""
    if not DEFAULT_FRAME <= value < 2**24:
        raise ProtocolError(PROTOCOL_ERROR, f"a largest frame of {value}")
    return min(value, LARGEST_CHUNK)


def window_step(payload: bytes) -> int:
    """By how much a WINDOW_UPDATE moves its window. Raises ProtocolError where it is cut short."""
    exactly(4, payload)
    return int(u32.unpack(payload)[0]) & LAST_STREAM_ID


def exactly(size: int, payload: bytes) -> None:
    if len(payload) != size:
        raise ProtocolError(FRAME_SIZE_ERROR, f"a frame of {len(payload)} bytes where its type has {size}")


def unpadded(flags: int, payload: bytes) -> bytes:
    """What a DATA or HEADERS frame holds, its padding taken off."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ProtocolError(PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - payload[0]]


def header_fragment(flags: int, payload: bytes) -> bytes:
    """What a HEADERS frame holds of a header block: without padding and priority, which is ignored."""
    payload = unpadded(flags, payload)
    if flags & PRIORITY_FLAG:
        if len(payload) < 5:
            raise ProtocolError(FRAME_SIZE_ERROR, "a priority cut short")
        payload = payload[5:]
    return payload


Partial = tuple[int, int, list[bytes]]  # a HEADERS frame without END_HEADERS: stream id, flags, pieces so far


def in_order(kind: int, flags: int, stream_id: int, *, settled: bool, partial: Partial | None, not_http2: str) -> None:
    """Raises ProtocolError for a frame that may not come now, or not on this stream; `not_http2` says of a peer that it
    did not begin with SETTINGS."""
    if not settled and (kind != SETTINGS or flags & ACK):
        raise ProtocolError(PROTOCOL_ERROR, not_http2)
    if partial is not None and (kind != CONTINUATION or stream_id != partial[0]):
        raise ProtocolError(PROTOCOL_ERROR, "another frame inside a header block")
    on_connection = kind in (SETTINGS, PING, GOAWAY)
    if kind <= CONTINUATION and kind != WINDOW_UPDATE and (stream_id == 0) != on_connection:
        raise ProtocolError(PROTOCOL_ERROR, f"frame type {kind} on stream {stream_id}")


def continued(partial: Partial | None, payload: bytes, most: int) -> tuple[int, list[bytes]]:
    """The flags that a header block began with, and its pieces with the next one.

    Raises ProtocolError for a piece of none, and for a block without end: of too many pieces, or over `most` bytes.
    """
    if partial is None:
        raise ProtocolError(PROTOCOL_ERROR, "CONTINUATION without HEADERS")
    _, flags, pieces = partial
    pieces.append(payload)
    if len(pieces) > MOST_CONTINUATIONS or sum(map(len, pieces)) > most:
        raise ProtocolError(ENHANCE_YOUR_CALM, "a header block without end")
    return flags, pieces


def literal_block(fields: Iterable[tuple[str, str]]) -> bytes:
    """A header block without any state: literals go in "never indexed", so that it is the same every time."""
    encoder = Encoder()
    return b"".join(
        encoder.add((name.encode(), value.encode()), sensitive=True, huffman=True) for name, value in fields
    )


class Unreadable(ValueError):
    """A compressed message that cannot be decompressed."""


def inflate(encoding: str, body: bytes, limit: int) -> bytes:
    """Decompresses a whole message by one of WINDOW_BITS. One of more than `limit` bytes comes back cut after
    limit + 1. Raises Unreadable."""
    inflater = zlib.decompressobj(WINDOW_BITS[encoding])
    try:
        message = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise Unreadable(f"cannot be decompressed: {error}") from None
    if len(message) <= limit and not inflater.eof:
        raise Unreadable("is compressed and cut short")
    return message
