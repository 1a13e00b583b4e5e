"""The sending half of one connection: replies as frames, within the peer's windows. No socket in here.

A small reply is one piece of bytes; what is larger goes out frame by frame, in turn with the others. What is to be
sent collects in `out`, and `wake` is called when something does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from worker.server.headers import OK_TRAILERS, REPLY
from worker.server.stream import Stream, Timer
from worker.wire.http2.frames import (
    CANCEL,
    CONTINUATION,
    DATA,
    DEFAULT_FRAME,
    DEFAULT_WINDOW,
    EMPTY_TABLE,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    HIGH_WATER,
    NO_ERROR,
    RST_STREAM,
    WINDOW_UPDATE,
    frame,
    frame_head,
    stream_id_of,
    u32,
)

_REPLY_HEAD = frame(HEADERS, END_HEADERS, 0, REPLY)[:5]
_OK_HEAD = frame(HEADERS, END_HEADERS | END_STREAM, 0, OK_TRAILERS)[:5]
_data_head = frame_head.pack


@dataclass(frozen=True)
class Limits:
    """What a peer may ask of the server."""

    message_bytes: int = 256 * 2**20
    # Of one connection at once; a client holds back what is more.
    streams: int = 1024
    # Of unfinished messages, and of finished ones that a stream's handler has not taken, over all connections.
    held_bytes: int = 2**30
    connections: int = 4096
    # Until a connection's first SETTINGS; for a header block; for a peer that takes none of what waits for it.
    patience_s: float = 20.0
    unread_s: float = 60.0


class Held:
    """Bytes of messages that wait in memory, over all connections."""

    def __init__(self) -> None:
        self.bytes = 0


class Clock(Protocol):
    """The part of an event loop that tells the time."""

    def time(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer: ...


class Sender:
    """What goes out on one connection, and its streams. `Connection` adds what comes in."""

    def __init__(self, limits: Limits, held: Held, clock: Clock, wake: Callable[[], None], peer: str) -> None:
        self.limits = limits
        self.held = held
        self.peer = peer
        self.clock = clock.time
        self.out: list[bytes | memoryview] = []
        self.streams: dict[int, Stream] = {}
        self.paused = False  # the socket takes no more for now
        self._call_later = clock.call_later
        self._wake = wake
        self._window = DEFAULT_WINDOW
        self._initial_window = DEFAULT_WINDOW
        self._max_frame = DEFAULT_FRAME
        self._shrink_table = False  # our next header block says that its table is empty
        self._sending: dict[int, Stream] = {}
        self._idle = 0  # frames since something was answered
        self._buffered = 0  # bytes of DATA in `out` of what went out in turn

    def reply(self, stream: Stream, message: bytes) -> None:
        size = len(message) + 5
        if (
            size <= DEFAULT_FRAME
            and size <= self._window
            and size <= self._initial_window + stream.extra_window
            and not self.paused
            and stream.head_block is None
            and not self._sending
            and not self._shrink_table
            and stream.half_closed
        ):
            self._window -= size
            self._idle = 0
            if not self.out:
                self._wake()
            wire_id = stream_id_of(stream.id)
            self.out.append(
                b"".join(
                    (
                        *(_REPLY_HEAD, wire_id, REPLY),
                        *(_data_head(size >> 8, size & 0xFF, DATA, 0, stream.id), b"\0", u32.pack(size - 5), message),
                        *(_OK_HEAD, wire_id, OK_TRAILERS),
                    )
                )
            )
            self._answered(stream)
        else:
            stream.send(message)
            stream.finish()

    def enqueue(self, stream: Stream) -> None:
        """The stream has something to send."""
        if stream.id not in self._sending:
            self._sending[stream.id] = stream
        if not self.paused and self._buffered < HIGH_WATER:
            self.fill()

    def headers(self, stream_id: int, block: bytes, flags: int) -> None:
        if self._shrink_table:
            self._shrink_table = False
            block = EMPTY_TABLE + block
        if not self.out:
            self._wake()
        pieces = [block[at : at + DEFAULT_FRAME] for at in range(0, len(block), DEFAULT_FRAME)]
        kind = HEADERS
        for number, piece in enumerate(pieces, 1):
            self.out.append(frame(kind, flags | (END_HEADERS if number == len(pieces) else 0), stream_id, piece))
            kind, flags = CONTINUATION, 0

    def fill(self) -> None:
        """Hands out as much of what waits as windows, HIGH_WATER and the socket allow, one frame of each in turn."""
        moved = True
        while moved and self._sending:
            moved = False
            for stream in list(self._sending.values()):
                if self.paused or self._buffered >= HIGH_WATER:
                    return
                moved = self._advance(stream) or moved

    def _advance(self, stream: Stream) -> bool:
        """One step of one stream; False where it can go no further now."""
        if stream.ended:
            return False
        if stream.head_block is not None and not stream.head_sent:
            stream.head_sent = True
            self.headers(stream.id, stream.head_block, 0)
        pending = stream.pending
        if pending:
            view = pending[0]
            size = min(len(view), self._window, self._initial_window + stream.extra_window, self._max_frame)
            if size <= 0:
                return False
            stream.extra_window -= size
            stream.pending_bytes -= size
            self._window -= size
            self._buffered += size
            self._idle = 0
            if not self.out:
                self._wake()
            self.out += (frame_head.pack(size >> 8, size & 0xFF, DATA, 0, stream.id), view[:size])
            if size < len(view):
                pending[0] = view[size:]
            else:
                pending.popleft()
            return True
        if stream.last_block is not None:
            self._idle = 0
            self.headers(stream.id, stream.last_block, END_STREAM)
            if not stream.half_closed:
                self.out.append(frame(RST_STREAM, 0, stream.id, u32.pack(NO_ERROR)))  # RFC 9113, 8.1
            self._answered(stream)
            return True
        del self._sending[stream.id]
        if stream.writable is not None:
            stream.writable()
        return False

    def take(self) -> bytes:
        """All bytes to send, in one piece; what waits goes on with the next `fill`."""
        data = b"".join(self.out)
        self.out.clear()
        self._buffered = 0
        return data

    @property
    def waiting(self) -> bool:
        return bool(self._sending)

    def reset(self, stream: Stream, code: int = CANCEL) -> None:
        """Ends a stream on our side, without a status."""
        self.control(frame(RST_STREAM, 0, stream.id, u32.pack(code)))
        self._forget(stream)
        stream.abandon()

    def grant(self, stream_id: int, size: int) -> None:
        self.control(frame(WINDOW_UPDATE, 0, stream_id, u32.pack(size)))

    def give_back(self, stream: Stream) -> None:
        """Lets the client send as much more as it has sent."""
        if stream.owed and not stream.ended and not stream.half_closed:
            stream.receive_window += stream.owed
            self.grant(stream.id, stream.owed)
            stream.owed = 0

    def control(self, answer: bytes) -> None:
        if not self.out:
            self._wake()
        self.out.append(answer)

    def _answered(self, stream: Stream) -> None:
        """All of the reply is on its way. Whoever answered and the stream know each other: freed here, and not when
        the collector comes to it."""
        self._forget(stream)
        stream.gone = None

    def _forget(self, stream: Stream) -> None:
        """The stream has ended."""
        stream.ended = True
        if stream.timer is not None:
            stream.timer.cancel()
            stream.timer = None
        self.streams.pop(stream.id, None)
        self._sending.pop(stream.id, None)
        stream.pending = stream.receiver = None
        if stream.writable is not None:
            stream.writable()
