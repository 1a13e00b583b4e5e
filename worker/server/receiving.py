"""What a client's frames mean for its calls: begun, given messages, ended, taken back."""

from __future__ import annotations

from collections.abc import Callable

from worker.server.control import Control
from worker.server.headers import MAX_HEADER_LIST, HeaderReader, Route, Router, refusal_block
from worker.server.sending import Clock, Held, Limits
from worker.server.status import DEADLINE_EXCEEDED, INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED
from worker.server.stream import WINDOW, Incoming, Stream
from worker.wire.http2.frames import (
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    STREAM_CLOSED,
    ProtocolError,
    exactly,
    frame,
    u32,
    unpadded,
)

# DATA frames of less, other than the last of a call, count among the frames that move no call on.
SMALL = 64


class Calls(Control):
    """The calls of one connection, from the client's side."""

    def __init__(
        self, router: Router, limits: Limits, held: Held, clock: Clock, wake: Callable[[], None], peer: str
    ) -> None:
        super().__init__(limits, held, clock, wake, peer)
        self._reader = HeaderReader(router)
        self._fresh: set[int] = set()  # streams begun since `feed` was called

    def _on_block(self, stream_id: int, flags: int, block: bytes) -> None:
        if stream_id & 1 == 0:
            raise ProtocolError(PROTOCOL_ERROR, f"HEADERS on stream {stream_id}")
        if len(block) > 2 * MAX_HEADER_LIST:
            raise ProtocolError(ENHANCE_YOUR_CALM, "a header block larger than our SETTINGS allow")
        route = self._reader.read(block)  # whatever becomes of it: the decoder must see every block
        ended = bool(flags & END_STREAM)
        if stream_id <= self.highest_id:
            self._on_trailers(stream_id, ended)
            return
        self.highest_id = stream_id
        if self.refusing:
            self.idle()  # our GOAWAY said that it is not taken
        elif len(self.streams) >= self.limits.streams:
            self.idle(10)
            self.answer(frame(RST_STREAM, 0, stream_id, u32.pack(REFUSED_STREAM)))
        elif route.malformed:
            self.idle(10)
            self.answer(frame(RST_STREAM, 0, stream_id, u32.pack(PROTOCOL_ERROR)))
        else:
            self._open_stream(stream_id, route, ended)

    def _on_trailers(self, stream_id: int, ended: bool) -> None:
        """A client's trailers say nothing in gRPC; that they end its messages does."""
        self.idle()
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        if not ended or stream.half_closed:
            self.reset(stream, PROTOCOL_ERROR)
        else:
            self._on_end(stream)

    def _open_stream(self, stream_id: int, route: Route, ended: bool) -> None:
        self.last_id = stream_id
        stream = self.streams[stream_id] = Stream(self, stream_id, route)
        stream.half_closed = ended
        self._fresh.add(stream_id)
        if route.refusal is not None:
            stream.started = True
            stream.last_block = refusal_block(route.refusal)
            self.enqueue(stream)
            return
        assert route.method is not None
        if route.timeout_s is not None:
            self._limit(stream, route.timeout_s)
        if route.method.request_streaming:
            stream.started = True
            self._begin(stream, b"")
        if ended:
            stream.half_closed = False
            self._on_end(stream)

    def _limit(self, stream: Stream, timeout_s: float) -> None:
        stream.deadline = self.clock() + timeout_s
        stream.timer = self._call_later(timeout_s, lambda: self._expire(stream))

    def _expire(self, stream: Stream) -> None:
        if not stream.ended:
            stream.abandon()
            stream.fail(DEADLINE_EXCEEDED, "the deadline is over")

    def _begin(self, stream: Stream, message: bytes) -> None:
        method = stream.route.method
        assert method is not None
        try:
            method.begin(stream, message)
        except Exception as error:
            stream.fail(INTERNAL, f"{type(error).__name__}: {error}")

    # Messages

    def _on_data(self, stream: Stream | None, stream_id: int, flags: int, payload: bytes) -> None:
        if stream_id == 0:
            raise ProtocolError(PROTOCOL_ERROR, "DATA on stream 0")
        whole = len(payload)
        payload = unpadded(flags, payload)
        stream = stream or self.streams.get(stream_id)
        if stream is None:
            self.known(stream_id)
            self.idle()
            return
        if stream.half_closed:
            self.reset(stream, STREAM_CLOSED)
            return
        stream.receive_window -= whole
        stream.owed += whole
        if stream.receive_window < 0:
            self.reset(stream, FLOW_CONTROL_ERROR)
            return
        if len(payload) < SMALL:
            self.idle()
        if stream.route.refusal is None and stream.last_block is None:
            self._take(stream, payload)
        if stream.ended:
            return
        if flags & END_STREAM:
            self._on_end(stream)
        elif stream.owed >= WINDOW // 2 and not (stream.receiver is not None and stream.receiver.waiting):
            self.give_back(stream)

    def _take(self, stream: Stream, payload: bytes) -> None:
        incoming = stream.incoming
        if incoming is None:
            incoming = stream.incoming = Incoming(stream.route.encoding, self.limits.message_bytes)
        self.held.bytes -= incoming.held
        wrong = incoming.take(payload)
        self.held.bytes += incoming.held
        if wrong is None and self.held.bytes > self.limits.held_bytes:
            wrong = RESOURCE_EXHAUSTED, f"unread messages of {self.limits.held_bytes} bytes are held, the most"
        if wrong is not None:
            stream.abandon()
            stream.fail(*wrong)
        elif stream.receiver is not None:
            messages, incoming.messages = incoming.messages, []
            for message in messages:
                stream.receiver.message(message)

    def _on_end(self, stream: Stream) -> None:
        stream.half_closed = True
        incoming = stream.incoming
        if stream.last_block is not None:
            return
        if incoming is not None and incoming.held:
            stream.abandon()
            stream.fail(INTERNAL, f"the last message is cut short after {incoming.held} bytes")
        elif stream.receiver is not None:
            stream.receiver.half_closed()
        elif not stream.started:
            messages = incoming.messages if incoming is not None else []
            if len(messages) != 1:
                stream.fail(UNIMPLEMENTED, f"{len(messages)} messages where the method takes one")
            else:
                stream.started = True
                stream.incoming = None
                self._begin(stream, messages[0])

    def _forget(self, stream: Stream) -> None:
        if stream.incoming is not None:
            self.held.bytes -= stream.incoming.held
            stream.incoming = None
        super()._forget(stream)

    def _on_reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        exactly(4, payload)
        stream = self.streams.get(stream_id)
        if stream is None:
            self.known(stream_id)
            self.idle()
            return
        if stream_id in self._fresh:
            self.taken_back()
        self._forget(stream)
        stream.abandon()
