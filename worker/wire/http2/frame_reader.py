"""Bytes in, frames out: frames in pieces, the order of frames, padding, and header blocks over several frames."""

from collections.abc import Iterator
from typing import NamedTuple

from worker.wire.http2.errors import ProtocolError
from worker.wire.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    ENHANCE_YOUR_CALM,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    LAST_STREAM_ID,
    PADDED,
    PING,
    PRIORITY,
    PRIORITY_FLAG,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame_head,
)
from worker.wire.http2.limits import PeerLimits

_ON_CONNECTION = frozenset((SETTINGS, PING, GOAWAY))
_ON_STREAM = frozenset((DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE, CONTINUATION))
_SIZES = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}


class Frame(NamedTuple):
    """A frame whose place in the order of frames is right.

    The payload has no padding and no priority. HEADERS hold a whole header block, that of CONTINUATION frames included.
    """

    kind: int
    flags: int
    stream_id: int
    payload: bytes
    size: int
    """Bytes on the wire, padding included: what flow control counts of DATA."""


class FrameReader:
    """Cuts what the peer of one connection sends into frames. Every method raises ProtocolError.

    Bytes come in pieces of any size. An incomplete frame is held in memory until the rest has come. `read` does
    everything. A caller with a fast path of its own does what `read` does: it takes the bytes from `join`, gives the
    frames that it does not handle itself to `accept`, and gives what is left to `keep`.
    """

    __slots__ = (
        "_block_flags",
        "_block_limit",
        "_block_parts",
        "_block_stream",
        "_limits",
        "_needed",
        "_not_http2",
        "_preface",
        "_rest",
        "settled",
    )

    def __init__(self, limits: PeerLimits, *, preface: bytes = b"", not_http2: str) -> None:
        """`preface` is what the peer has to send before its first frame. `not_http2` is the error of a peer whose first
        frame is not SETTINGS."""
        self.settled = False
        """Whether the peer's first SETTINGS have come."""
        self._limits = limits
        self._preface = preface
        self._not_http2 = not_http2
        self._rest = bytearray()  # what is not a complete frame yet
        self._needed = 0  # bytes in `_rest` with which there is one
        self._block_limit = 2 * limits.header_list_bytes
        self._block_parts: list[bytes] | None = None  # of a header block that is not complete yet
        self._block_stream = self._block_flags = 0

    @property
    def in_header_block(self) -> bool:
        """Whether a header block has begun and not ended: only its CONTINUATION may come."""
        return self._block_parts is not None

    @property
    def unrestricted(self) -> bool:
        """Whether DATA or HEADERS may come now; until that changes, `accept` need not see those that carry no flag but
        END_STREAM and END_HEADERS."""
        return self.settled and self._block_parts is None

    def read(self, data: bytes) -> Iterator[Frame]:
        """Yields the frames that are complete with these bytes."""
        data = self.join(data)
        position, end = 0, len(data)
        while end - position >= 9:
            high, low, kind, flags, stream_id = frame_head.unpack_from(data, position)
            size = high << 8 | low
            self.check_size(size)
            stop = position + 9 + size
            if stop > end:
                break
            frame = self.accept(kind, flags, stream_id, data[position + 9 : stop])
            position = stop
            if frame is not None:
                yield frame
        self.keep(data, position)

    def join(self, data: bytes) -> bytes:
        """The bytes from `keep` followed by these, without the preface. Empty until a frame may be complete."""
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < self._needed:
                return b""
            data = bytes(rest)
            rest.clear()
        return self._after_preface(data) if self._preface else data

    def _after_preface(self, data: bytes) -> bytes:
        preface = self._preface
        if data[: len(preface)] != preface[: len(data)]:
            raise ProtocolError(PROTOCOL_ERROR, "the peer does not begin with the preface of an HTTP/2 client")
        if len(data) < len(preface):
            self._rest += data
            self._needed = len(preface)
            return b""
        self._preface = b""
        return data[len(preface) :]

    def keep(self, data: bytes, position: int) -> None:
        """Keeps what follows the last complete frame."""
        if position < len(data):
            rest = self._rest
            rest += data[position:]
            self._needed = 9 + int.from_bytes(rest[:3], "big") if len(rest) >= 9 else 9

    def check_size(self, size: int) -> None:
        """Refuses a frame larger than our SETTINGS allow."""
        if size > self._limits.frame_bytes:
            raise ProtocolError(
                FRAME_SIZE_ERROR, f"a frame of {size} bytes (expected at most {self._limits.frame_bytes})"
            )

    def accept(self, kind: int, flags: int, stream_id: int, payload: bytes) -> Frame | None:
        """Checks the next frame and removes its padding and priority; None while a header block is not complete."""
        stream_id &= LAST_STREAM_ID
        self._check_order(kind, flags, stream_id)
        size = len(payload)
        if size != _SIZES.get(kind, size):
            raise ProtocolError(FRAME_SIZE_ERROR, f"a frame of type {kind} has {size} bytes (expected {_SIZES[kind]})")
        if kind == DATA:
            if flags & PADDED:
                payload = _unpadded(payload)
        elif kind == HEADERS:
            if flags & PADDED:
                payload = _unpadded(payload)
            if flags & PRIORITY_FLAG:
                if len(payload) < 5:
                    raise ProtocolError(FRAME_SIZE_ERROR, "HEADERS with an incomplete priority")
                payload = payload[5:]
            if len(payload) > self._block_limit:
                raise ProtocolError(ENHANCE_YOUR_CALM, "a header block larger than our SETTINGS allow")
            if not flags & END_HEADERS:
                self._block_parts, self._block_stream, self._block_flags = [payload], stream_id, flags
                return None
        elif kind == CONTINUATION:
            return self._continue(flags, payload)
        elif kind == SETTINGS:
            if size if flags & ACK else size % 6:
                raise ProtocolError(FRAME_SIZE_ERROR, f"SETTINGS of {size} bytes")
            self.settled = True
        elif kind == GOAWAY and size < 8:
            raise ProtocolError(FRAME_SIZE_ERROR, f"GOAWAY of {size} bytes (expected at least 8)")
        return Frame(kind, flags, stream_id, payload, size)

    def _check_order(self, kind: int, flags: int, stream_id: int) -> None:
        if not self.settled and (kind != SETTINGS or flags & ACK):
            raise ProtocolError(PROTOCOL_ERROR, self._not_http2)
        if self._block_parts is not None and (kind != CONTINUATION or stream_id != self._block_stream):
            raise ProtocolError(PROTOCOL_ERROR, "another frame inside a header block")
        if kind in (_ON_STREAM if stream_id == 0 else _ON_CONNECTION):
            raise ProtocolError(PROTOCOL_ERROR, f"a frame of type {kind} on stream {stream_id}")

    def _continue(self, flags: int, payload: bytes) -> Frame | None:
        parts = self._block_parts
        if parts is None:
            raise ProtocolError(PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        parts.append(payload)
        if len(parts) > self._limits.continuations or sum(map(len, parts)) > self._block_limit:
            raise ProtocolError(ENHANCE_YOUR_CALM, "a header block larger than our SETTINGS allow")
        if not flags & END_HEADERS:
            return None
        self._block_parts = None
        block = b"".join(parts)
        return Frame(HEADERS, self._block_flags | END_HEADERS, self._block_stream, block, len(block))


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise ProtocolError(PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]
