"""Frames out: header blocks cut to frames, and DATA within the peer's flow-control windows, one frame of each stream
in turn."""

from collections import deque
from collections.abc import Callable

from worker.wire.http2.flow_window import FlowWindow
from worker.wire.http2.frames import (
    CONTINUATION,
    DATA,
    DEFAULT_FRAME,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    RST_STREAM,
    WINDOW_UPDATE,
    encode_frame,
    frame_head,
    u32,
)
from worker.wire.http2.headers import EMPTY_TABLE
from worker.wire.http2.limits import ConnectionLimits
from worker.wire.http2.settings import ConnectionSettings

# Bytes of queued DATA in `out` at once. More would only wait in memory, and small frames would wait behind it.
HIGH_WATER = 262144


class OutgoingStream:
    """What one stream has yet to send: a header block, then DATA, then trailers or END_STREAM on the last DATA."""

    __slots__ = ("chunks", "drained", "end_with_data", "ended", "head", "head_sent", "id", "size", "trailers", "window")

    def __init__(
        self,
        stream_id: int,
        window: FlowWindow,
        drained: Callable[[], None] | None = None,
        ended: Callable[[], None] | None = None,
    ) -> None:
        self.id = stream_id
        self.window = window
        self.head: bytes | None = None
        self.head_sent = False
        self.chunks: deque[memoryview] = deque()
        self.size = 0  # bytes in `chunks`
        self.trailers: bytes | None = None
        self.end_with_data = False
        self.drained = drained
        """Called when all has been written and the stream goes on."""
        self.ended = ended
        """Called when END_STREAM has been written."""

    def append(self, chunk: bytes) -> None:
        """Adds DATA. The bytes are not copied."""
        self.chunks.append(memoryview(chunk))
        self.size += len(chunk)

    def clear(self) -> None:
        """Drops what has not been sent, and forgets how the stream was to end."""
        self.chunks.clear()
        self.size = 0
        self.head = self.trailers = None


class FrameWriter:
    """What is to be sent on one connection.

    Frames that can go collect in `out`; the owner of the socket takes them with `take`, all in one piece, and calls
    `fill` when they are written. `wake` tells it that `out` is no longer empty. A stream whose DATA may have to wait
    is given to `enqueue`. `fill` goes around the queue and takes from each stream one DATA frame as large as the
    peer's frame size and both windows allow, until nothing can move, `out` has HIGH_WATER bytes, or the socket is
    blocked: a large message neither fills the memory nor delays the others by more than one frame.

    A fast path may append small whole messages to `out` itself while `queue` is empty; it subtracts their size from
    `window`.
    """

    __slots__ = ("_buffered", "_limits", "_wake", "blocked", "out", "queue", "settings", "table_update", "window")

    def __init__(self, settings: ConnectionSettings, limits: ConnectionLimits, wake: Callable[[], None]) -> None:
        self.settings = settings
        self.window = FlowWindow()
        """The connection's window."""
        self.out: list[bytes | memoryview] = []
        self.queue: dict[int, OutgoingStream] = {}
        self.blocked = False
        """Whether the socket takes nothing at present; `unblock` ends that."""
        self.table_update = False
        """Whether the next header block has to begin with the size of our dynamic table, which is 0."""
        self._limits = limits
        self._wake = wake
        self._buffered = 0  # bytes of queued DATA in `out`

    def write(self, data: bytes) -> None:
        """Adds frames that no window holds back."""
        if not self.out:
            self._wake()
        self.out.append(data)

    def answer(self, data: bytes) -> None:
        """Adds what a frame of the peer asks for, which it may repeat as often as it likes. Raises ProtocolError where
        it does, and reads none of the answers."""
        if self.blocked:
            self._limits.unread_answer()
        self.write(data)

    def unblock(self) -> None:
        """The socket takes bytes again."""
        self.blocked = False
        self._limits.answers_read()
        self.fill()

    def write_headers(self, stream_id: int, block: bytes, flags: int = 0) -> None:
        """Adds a header block as HEADERS and as many CONTINUATION frames as it needs. `flags`: END_STREAM, or 0."""
        if self.table_update:
            self.table_update = False
            block = EMPTY_TABLE + block
        kind = HEADERS
        for start in range(0, len(block), DEFAULT_FRAME):
            last = END_HEADERS if start + DEFAULT_FRAME >= len(block) else 0
            self.write(encode_frame(kind, flags | last, stream_id, block[start : start + DEFAULT_FRAME]))
            kind, flags = CONTINUATION, 0

    def reset(self, stream_id: int, code: int) -> None:
        """Adds RST_STREAM and drops what the stream has yet to send."""
        self.queue.pop(stream_id, None)
        self.write(encode_frame(RST_STREAM, 0, stream_id, u32.pack(code)))

    def update_window(self, stream_id: int, increment: int) -> None:
        """Adds WINDOW_UPDATE; stream 0 is the connection."""
        self.write(encode_frame(WINDOW_UPDATE, 0, stream_id, u32.pack(increment)))

    def go_away(self, last_stream_id: int, code: int) -> None:
        """Adds GOAWAY."""
        self.write(encode_frame(GOAWAY, 0, 0, u32.pack(last_stream_id) + u32.pack(code)))

    def enqueue(self, stream: OutgoingStream) -> None:
        """Sends what the stream has, now or when it can."""
        self.queue[stream.id] = stream
        self.fill()

    def fill(self) -> None:
        """Moves from the queue to `out` what can go."""
        progress = True
        while progress and self.queue:
            progress = False
            for stream in list(self.queue.values()):
                if self.blocked or self._buffered >= HIGH_WATER:
                    return
                progress = self._advance(stream) or progress

    def _advance(self, stream: OutgoingStream) -> bool:
        """Sends the next frame of a stream; False where it has none that can go."""
        if stream.id not in self.queue:
            return False  # ended by what another stream's callback did
        if stream.head is not None:
            block, stream.head = stream.head, None
            stream.head_sent = True
            self.write_headers(stream.id, block)
        if stream.chunks:
            return self._send_data(stream)
        del self.queue[stream.id]
        if stream.trailers is not None:
            self._limits.idle = 0
            self.write_headers(stream.id, stream.trailers, END_STREAM)
            if stream.ended is not None:
                stream.ended()
            return True
        if stream.drained is not None:
            stream.drained()
        return False

    def _send_data(self, stream: OutgoingStream) -> bool:
        chunk = stream.chunks[0]
        size = min(len(chunk), self.window.size, stream.window.size, self.settings.max_frame)
        if size <= 0:
            return False
        self.window.size -= size
        stream.window.size -= size
        stream.size -= size
        self._buffered += size
        self._limits.idle = 0
        if size < len(chunk):
            stream.chunks[0] = chunk[size:]
        else:
            stream.chunks.popleft()
        last = stream.end_with_data and not stream.chunks
        if not self.out:
            self._wake()
        self.out += (
            frame_head.pack(size >> 8, size & 0xFF, DATA, END_STREAM if last else 0, stream.id),
            chunk[:size],
        )
        if last:
            del self.queue[stream.id]
            if stream.ended is not None:
                stream.ended()
        return True

    def take(self) -> bytes:
        """All bytes to send, in one piece. What is queued goes on with the next `fill`."""
        data = b"".join(self.out)
        self.out.clear()
        self._buffered = 0
        return data
