"""The open streams of one connection: how they begin, how their replies leave, and how they end."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Protocol

from worker.server.reply_headers import OK_TRAILERS, REPLY_HEAD
from worker.server.stream import Stream, Timer
from worker.wire import StatusCode
from worker.wire.http2 import (
    CANCEL,
    DATA,
    DEFAULT_FRAME,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    NO_ERROR,
    PROTOCOL_ERROR,
    RST_STREAM,
    ConnectionLimits,
    FlowWindow,
    FrameWriter,
    OutgoingStream,
    ProtocolError,
    encode_frame,
    frame_head,
    stream_id_of,
    u32,
)

_LOGGER = logging.getLogger("inferload.worker")
_REPLY_HEAD_FRAME = encode_frame(HEADERS, END_HEADERS, 0, REPLY_HEAD)[:5]
_OK_FRAME = encode_frame(HEADERS, END_HEADERS | END_STREAM, 0, OK_TRAILERS)[:5]
_frame_head = frame_head.pack


class Clock(Protocol):
    """The part of an event loop that measures time."""

    def time(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[..., object], /, *args: Any) -> Timer: ...


class StreamTable:
    """The open streams of one connection, and the numbers of those that were opened.

    A new stream's number is above all earlier ones; numbers between are skipped and may not be opened any more.
    """

    __slots__ = (
        "_call_later",
        "_limits",
        "_window",
        "_writer",
        "accepting",
        "highest_id",
        "last_id",
        "max_message",
        "now",
        "opened",
        "peer",
        "streams",
    )

    def __init__(self, writer: FrameWriter, limits: ConnectionLimits, clock: Clock, peer: str) -> None:
        self.streams: dict[int, Stream] = {}
        self.opened: set[int] = set()
        """Streams opened since the socket was last read."""
        self.highest_id = -1  # of all HEADERS
        self.last_id = 0  # highest that was begun
        self.accepting = True
        """False once our GOAWAY has said that no stream is begun any more."""
        self.peer = peer
        self.max_message = limits.table.message_bytes
        self.now = clock.time
        self._call_later = clock.call_later
        self._limits = limits
        self._writer = writer
        self._window = writer.window

    def limit_time(self, stream: Stream, timeout_s: float) -> None:
        """Starts the timer of a stream's deadline."""
        stream.deadline = self.now() + timeout_s
        stream.timer = self._call_later(timeout_s, self._expire, stream)

    @staticmethod
    def _expire(stream: Stream) -> None:
        if not stream.ended:
            stream.cancel()
            stream.fail(StatusCode.DEADLINE_EXCEEDED, "the deadline has passed")

    @staticmethod
    def begin(stream: Stream, message: bytes) -> None:
        """Begins the method that answers the stream."""
        method = stream.request.method
        assert method is not None
        try:
            method.begin(stream, message)
        except Exception as error:
            # A bug of ours: the client gets one line, the log its traceback.
            _LOGGER.exception("the method of %s raised an exception", stream.request.path)
            stream.fail(StatusCode.INTERNAL, f"{type(error).__name__}: {error}")

    def shift_windows(self, change: int) -> None:
        """The client changed its initial window size."""
        for stream in self.streams.values():
            if stream.send_window is not None:
                stream.send_window.shift(change)

    def check_opened(self, stream_id: int) -> None:
        """A frame for a stream that is not open: it is late if there was such a stream, and wrong otherwise."""
        if stream_id & 1 == 0 or stream_id > self.highest_id:
            raise ProtocolError(PROTOCOL_ERROR, f"a frame on stream {stream_id}, which was never opened")

    # What streams send.

    def reply(self, stream: Stream, message: bytes) -> None:
        """The fast path of a small reply: three frames in one piece. The shared path makes the same bytes."""
        writer, window = self._writer, self._window
        size = len(message) + 5
        if (
            size <= DEFAULT_FRAME
            and size <= window.size
            and stream.outgoing is None
            and size <= (writer.settings.initial_window if stream.send_window is None else stream.send_window.size)
            and stream.half_closed
            and not writer.blocked
            and not writer.queue
            and not writer.table_update
        ):
            window.size -= size
            self._limits.idle = 0
            stream_id = stream.id
            wire_id = stream_id_of(stream_id)
            writer.write(
                b"".join(
                    (
                        *(_REPLY_HEAD_FRAME, wire_id, REPLY_HEAD),
                        *(_frame_head(size >> 8, size & 0xFF, DATA, 0, stream_id), b"\0", u32.pack(size - 5), message),
                        *(_OK_FRAME, wire_id, OK_TRAILERS),
                    )
                )
            )
            self._remove(stream)
            stream.on_cancel = None
        else:
            stream.send(message)
            stream.finish()

    def outgoing(self, stream: Stream) -> OutgoingStream:
        """What the stream has yet to send."""
        outgoing = stream.outgoing
        if outgoing is None:
            outgoing = stream.outgoing = OutgoingStream(
                stream.id,
                self.send_window(stream),
                drained=functools.partial(_writable, stream),
                ended=functools.partial(self._answered, stream),
            )
        return outgoing

    def send_window(self, stream: Stream) -> FlowWindow:
        """What may still be sent on the stream."""
        window = stream.send_window
        if window is None:
            window = stream.send_window = FlowWindow(self._writer.settings.initial_window)
        return window

    def enqueue(self, outgoing: OutgoingStream) -> None:
        """Sends what the stream has, now or when it can."""
        self._writer.enqueue(outgoing)

    def refill(self, stream: Stream) -> None:
        """Lets the client send as much more as it has sent."""
        window = stream.receive_window
        if window is not None and not stream.ended and not stream.half_closed and (increment := window.refill()):
            self._writer.update_window(stream.id, increment)

    def buffer(self, size: int) -> None:
        """Counts bytes of messages that wait to be read; a negative size, that they were."""
        self._limits.buffer(size)

    # How streams end.

    def _answered(self, stream: Stream) -> None:
        """All of the reply has been written."""
        if not stream.half_closed:
            self._writer.write(encode_frame(RST_STREAM, 0, stream.id, u32.pack(NO_ERROR)))  # RFC 9113, 8.1
        self._remove(stream)
        stream.on_cancel = None

    def cancel(self, stream: Stream) -> None:
        """Ends a stream that the client has reset, or that is lost with its connection."""
        self._remove(stream)
        stream.cancel()

    def reset(self, stream: Stream, code: int = CANCEL) -> None:
        """Ends a stream without a status, for an error of the client. Raises ProtocolError where it makes too many
        (CVE-2025-8671)."""
        self._writer.reset(stream.id, code)
        self._remove(stream)
        stream.cancel()
        if stream.id in self.opened:
            self._limits.rapid_reset()

    def _remove(self, stream: Stream) -> None:
        """The stream has ended. What it refers to is dropped here, and not when the garbage collector finds it."""
        stream.ended = True
        self.streams.pop(stream.id, None)
        if stream.timer is not None:
            stream.timer.cancel()
            stream.timer = None
        if stream.reader is not None:
            self._limits.buffer(-stream.reader.incomplete)
            stream.reader = None
        if stream.outgoing is not None:
            self._writer.queue.pop(stream.id, None)
            stream.outgoing.clear()
            stream.outgoing = None
        stream.receiver = None
        _writable(stream)

    def end_streaming(self, code: int, message: str) -> None:
        """Ends what may have no end of its own: the requests of streams end here, their replies with this status."""
        for stream in list(self.streams.values()):
            method = stream.request.method
            if stream.receiver is not None:
                stream.receiver.half_closed()
            elif method is not None and method.response_streaming:
                stream.cancel()
                stream.fail(code, message)

    def cancel_all(self) -> None:
        """The connection is lost, and every call with it."""
        for stream in list(self.streams.values()):
            self.cancel(stream)


def _writable(stream: Stream) -> None:
    if stream.on_writable is not None:
        stream.on_writable()
