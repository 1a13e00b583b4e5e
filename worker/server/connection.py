"""HTTP/2 as a gRPC server speaks it (RFC 9113): the receiving half and the state of one connection. No socket in here.

Bytes come in by `feed`, bytes to send collect in `out`. A small unary request, two frames, is handled in the loop of
`_parse`; everything else in methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from worker.server.control import Control
from worker.server.headers import MAX_HEADER_LIST, Router
from worker.server.receiving import Calls
from worker.server.sending import Clock, Held, Limits
from worker.server.stream import WINDOW, Stream
from worker.wire.http2.frames import (
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LAST_STREAM_ID,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    OUR_FRAME,
    PING,
    PRELUDE,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Partial,
    ProtocolError,
    continued,
    exactly,
    frame,
    frame_head,
    header_fragment,
    in_order,
    prefix_head,
    settings_frame,
    u32,
)

# What all streams of a connection may send together before it is read.
CONNECTION_WINDOW = 4 * WINDOW
_NOT_HTTP2 = "the peer does not begin with SETTINGS"


class Connection(Calls):
    """The server's side of one connection; see the module's docstring. `broken` is set once the peer broke HTTP/2."""

    def __init__(
        self, router: Router, limits: Limits, held: Held, clock: Clock, wake: Callable[[], None], peer: str = ""
    ) -> None:
        super().__init__(router, limits, held, clock, wake, peer)
        self.broken: ProtocolError | None = None
        self.closed = False
        self._router = router
        self._tail = bytearray()  # a frame that is not whole yet, and the bytes it needs
        self._need = len(PRELUDE)
        self._greeted = False
        self._partial: Partial | None = None
        self._receive_window = CONNECTION_WINDOW

    def open(self) -> None:
        """Says our SETTINGS, which need not wait for the peer's."""
        ours = settings_frame(
            (HEADER_TABLE_SIZE, 0),
            (MAX_CONCURRENT_STREAMS, self.limits.streams),
            (INITIAL_WINDOW_SIZE, WINDOW),
            (MAX_FRAME_SIZE, OUR_FRAME),
            (MAX_HEADER_LIST_SIZE, MAX_HEADER_LIST),
        )
        self.control(ours + frame(WINDOW_UPDATE, 0, 0, u32.pack(CONNECTION_WINDOW - DEFAULT_WINDOW)))

    @property
    def in_header_block(self) -> bool:
        return self._partial is not None

    def feed(self, data: bytes) -> None:
        """Takes what the socket gave. Where the peer broke HTTP/2, all calls end, and `out` has our GOAWAY."""
        if self.broken is not None or self.closed:
            return
        tail = self._tail
        if tail:
            tail += data
            if len(tail) < self._need:
                return
            data = bytes(tail)
            tail.clear()
        try:
            self._parse(data)
        except ProtocolError as error:
            self.broken = error
            self.draining = self.refusing = True
            self.control(frame(GOAWAY, 0, 0, u32.pack(self.last_id) + u32.pack(error.code)))
            self.abandon()

    def abandon(self) -> None:
        """The connection is gone, and every call with it."""
        self.closed = True
        for stream in list(self.streams.values()):
            self._forget(stream)
            stream.abandon()

    def _parse(self, data: bytes) -> None:
        position = 0 if self._greeted else self._greet(data)
        if not self._greeted:
            self._tail += data
            return
        streams, limits, seen = self.streams, self.limits, self._router.seen
        unpack, unpack_prefix, most = frame_head.unpack_from, prefix_head.unpack_from, limits.message_bytes
        end, received = len(data), 0
        self._fresh.clear()
        calm = self.settled and self._partial is None
        while end - position >= 9:
            high, low, kind, flags, stream_id = unpack(data, position)
            start = position + 9
            length = high << 8 | low
            position = start + length
            if position > end or length > OUR_FRAME:
                if length > OUR_FRAME:
                    raise ProtocolError(FRAME_SIZE_ERROR, f"a frame of {length} bytes, where {OUR_FRAME} are allowed")
                position = start - 9
                self._need = 9 + length
                break
            if kind == DATA and calm:
                received += length
                stream = streams.get(stream_id)
                if (
                    flags == END_STREAM
                    and length >= 5
                    and stream is not None
                    and not stream.started
                    and stream.incoming is None
                ):
                    compressed, size = unpack_prefix(data, start)
                    if compressed == 0 and size == length - 5 and size <= most:
                        stream.half_closed = stream.started = True
                        self._begin(stream, data[start + 5 : position])
                        continue
                self._on_data(stream, stream_id & LAST_STREAM_ID, flags, data[start:position])
            elif kind == HEADERS and calm and flags == END_HEADERS:
                route = seen.get(data[start:position]) if self._reader.stateless else None
                if (
                    route is not None
                    and route.method is not None
                    and not route.method.request_streaming
                    and stream_id & 1
                    and self.highest_id < stream_id <= LAST_STREAM_ID
                    and len(streams) < limits.streams
                    and not self.refusing
                ):
                    self.last_id = self.highest_id = stream_id
                    stream = streams[stream_id] = Stream(self, stream_id, route)
                    self._fresh.add(stream_id)
                    if route.timeout_s is not None:
                        self._limit(stream, route.timeout_s)
                else:
                    self._on_block(stream_id & LAST_STREAM_ID, flags, data[start:position])
            else:
                self._on_frame(kind, flags, stream_id & LAST_STREAM_ID, data[start:position])
                calm = self.settled and self._partial is None
        else:
            self._need = 9
        if position < end:
            self._tail += data[position:]
        self._account(received)

    def _greet(self, data: bytes) -> int:
        if data[: len(PRELUDE)] != PRELUDE[: len(data)]:
            raise ProtocolError(PROTOCOL_ERROR, "the peer does not begin as an HTTP/2 client does")
        if len(data) < len(PRELUDE):
            return 0
        self._greeted = True
        return len(PRELUDE)

    def _account(self, received: int) -> None:
        self._receive_window -= received
        if self._receive_window < 0:
            raise ProtocolError(FLOW_CONTROL_ERROR, "more DATA than the connection's window")
        if self._receive_window < CONNECTION_WINDOW // 2:
            self.grant(0, CONNECTION_WINDOW - self._receive_window)
            self._receive_window = CONNECTION_WINDOW
        if self._refill:
            self._refill = False
            self.fill()

    def _on_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        in_order(kind, flags, stream_id, settled=self.settled, partial=self._partial, not_http2=_NOT_HTTP2)
        handler = self._HANDLERS.get(kind)
        if handler is not None:
            handler(self, flags, stream_id, payload)
        else:
            self.idle()  # types that nobody knows are ignored (RFC 9113, 4.1)

    # Header blocks

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        fragment = header_fragment(flags, payload)
        if flags & END_HEADERS:
            self._on_block(stream_id, flags, fragment)
        else:
            self._partial = (stream_id, flags, [fragment])

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        first_flags, pieces = continued(self._partial, payload, 2 * MAX_HEADER_LIST)
        if flags & END_HEADERS:
            self._partial = None
            self._on_block(stream_id, first_flags, b"".join(pieces))

    # The rest

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        exactly(5, payload)  # deprecated, and ignored
        self.idle()

    def _on_push(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise ProtocolError(PROTOCOL_ERROR, "PUSH_PROMISE from a client")

    _HANDLERS: ClassVar[dict[int, Callable[[Connection, int, int, bytes], None]]] = {
        HEADERS: _on_headers,
        PRIORITY: _on_priority,
        RST_STREAM: Calls._on_reset,
        SETTINGS: Control.on_settings,
        PUSH_PROMISE: _on_push,
        PING: Control.on_ping,
        GOAWAY: Control.on_goaway,
        WINDOW_UPDATE: Control.on_window_update,
        CONTINUATION: _on_continuation,
    }
