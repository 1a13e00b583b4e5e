"""The sending half of one HTTP/2 connection: requests as frames, within the peer's windows and limits.

A small request is five pieces of bytes, two of them the stream id; a large one goes out frame by frame, in turn with
the others, as far as WINDOW_UPDATE lets it. No socket in here: what is to be sent collects in `out`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from loadgen.transport.http2._frames import PREFACE
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
    LAST_STREAM_ID,
    NO_ERROR,
    PROTOCOL_ERROR,
    RST_STREAM,
    frame,
    frame_head,
    stream_id_of,
    u32,
)

if TYPE_CHECKING:
    from loadgen.transport._reply import Reply
    from loadgen.transport.http2._response import Head


class Prepared:
    """A request message framed once: `size` bytes with the gRPC prefix. Good for any number of calls and channels."""

    __slots__ = ("framed", "heads", "size")

    def __init__(self, payload: bytes) -> None:
        if len(payload) > 0xFFFFFFFF:
            raise ValueError(f"a gRPC message holds at most 4 GiB, this one has {len(payload)} bytes")
        self.framed = b"\0" + u32.pack(len(payload)) + payload
        self.size = len(self.framed)
        # header block -> what goes before the first and before the second stream id of a small request
        self.heads: dict[bytes, tuple[bytes, bytes]] = {}


class Call:
    """One unary call; what `start` hands out. `done` is None once it has ended."""

    __slots__ = ("connection", "deadline", "done", "head", "parts", "payload", "received", "request", "stream_id")

    def __init__(self, done: Callable[[Reply], None], request: Prepared, deadline: float) -> None:
        self.done: Callable[[Reply], None] | None = done
        self.request = request
        self.deadline = deadline  # seconds of time.monotonic(); infinity where there is none
        self.connection: Sender | None = None
        self.stream_id = 0
        self.head: Head | None = None
        self.payload: bytes | None = None  # the message, where it came whole in one DATA frame
        self.parts: list[bytes] | None = None  # the DATA received, otherwise
        self.received = 0  # bytes in `parts`

    def end(self) -> Callable[[Reply], None] | None:
        """Marks the call as ended and lets go of its bytes; `done`, the first time."""
        done, self.done = self.done, None
        self.payload = self.parts = None
        self.request = _NOTHING
        return done


_NOTHING = Prepared(b"")


class _Upload:
    __slots__ = ("left", "view", "window")

    def __init__(self, framed: bytes, window: int) -> None:
        self.view = memoryview(framed)
        self.left = len(framed)
        self.window = window


class Sender:
    """What goes out on one connection, and its calls. `Connection` adds what comes in."""

    def __init__(self, failed: Callable[[], None]) -> None:
        self._failed = failed  # reports an exception out of a call's `done`
        self.out: list[bytes | memoryview] = [PREFACE]
        self.streams: dict[int, Call] = {}
        self.closed = False
        self.limit = 0  # streams that may be open at once; 0 before the peer's SETTINGS and once nothing may start
        self.draining = False  # no new streams: GOAWAY, or stream ids have run out
        self.next_id = 1
        self._acks = 0  # answers in `out`
        self._window = DEFAULT_WINDOW
        self._initial_window = DEFAULT_WINDOW
        self._max_frame = DEFAULT_FRAME
        self._fast_size = 0  # requests up to this size may take the short way
        self._fresh = True  # no header block has been sent
        self._short_blocks = True
        self._uploads: dict[int, _Upload] = {}
        self._buffered = 0  # bytes of uploads in `out`

    def send(self, call: Call, block: bytes) -> None:
        """Starts the call with this header block. The caller has seen `len(streams) < limit`."""
        stream_id = self.next_id
        self.next_id = stream_id + 2
        call.connection = self
        call.stream_id = stream_id
        self.streams[stream_id] = call
        request = call.request
        size = request.size
        if size <= self._fast_size and size <= self._window and not self._uploads:
            heads = request.heads.get(block) or self._heads(request, block)
            self._window -= size
            wire_id = stream_id_of(stream_id)
            self.out += (heads[0], wire_id, heads[1], wire_id, request.framed)
        else:
            self._send_carefully(stream_id, request, block)
        if stream_id >= LAST_STREAM_ID:
            self.draining = True
            self.limit = 0

    @staticmethod
    def _heads(request: Prepared, block: bytes) -> tuple[bytes, bytes]:
        if len(request.heads) >= 64:
            request.heads.clear()
        before = frame_head.pack(len(block) >> 8, len(block) & 0xFF, HEADERS, END_HEADERS, 0)[:5]
        between = block + frame_head.pack(request.size >> 8, request.size & 0xFF, DATA, END_STREAM, 0)[:5]
        request.heads[block] = heads = (before, between)
        return heads

    def _send_carefully(self, stream_id: int, request: Prepared, block: bytes) -> None:
        if self._fresh:
            self._fresh = False
            self._short_blocks = len(block) < DEFAULT_FRAME
            block = EMPTY_TABLE + block
            self._set_fast_size()
        pieces = [block[at : at + DEFAULT_FRAME] for at in range(0, len(block), DEFAULT_FRAME)]
        kind = HEADERS
        for number, piece in enumerate(pieces, 1):
            self.out.append(frame(kind, END_HEADERS if number == len(pieces) else 0, stream_id, piece))
            kind = CONTINUATION
        self._uploads[stream_id] = _Upload(request.framed, self._initial_window)
        self.fill()

    def _set_fast_size(self) -> None:
        self._fast_size = min(self._initial_window, DEFAULT_FRAME) if self._short_blocks else 0

    def fill(self) -> None:
        """Hands out as much of the uploads as windows and HIGH_WATER allow, one frame of each in turn."""
        uploads, out = self._uploads, self.out
        moved = True
        while moved:
            moved = False
            for stream_id, upload in list(uploads.items()):
                if self._window <= 0 or self._buffered >= HIGH_WATER:
                    return
                size = min(upload.left, upload.window, self._window, self._max_frame)
                if size <= 0:
                    continue
                moved = True
                upload.left -= size
                upload.window -= size
                self._window -= size
                self._buffered += size
                last = upload.left == 0
                out.append(frame_head.pack(size >> 8, size & 0xFF, DATA, END_STREAM if last else 0, stream_id))
                out.append(upload.view[:size])
                upload.view = upload.view[size:]
                if last:
                    del uploads[stream_id]

    def take(self) -> bytes:
        """All bytes to send, in one piece; the uploads go on with the next `fill`."""
        data = b"".join(self.out)
        self.out.clear()
        self._buffered = self._acks = 0
        return data

    @property
    def uploading(self) -> bool:
        return bool(self._uploads)

    def withdraw(self, call: Call, code: int = CANCEL) -> None:
        """Forgets a call and tells the server so; its `done` is the caller's business."""
        if self.streams.pop(call.stream_id, None) is not None:
            self._uploads.pop(call.stream_id, None)
            self.out.append(frame(RST_STREAM, 0, call.stream_id, u32.pack(code)))

    # How calls end

    def abandon(self, reply: Reply) -> None:
        """The connection is gone: every call ends with this reply."""
        self.closed = self.draining = True
        self.limit = 0
        calls = list(self.streams.values())
        self.streams.clear()
        self._uploads.clear()
        self.out.clear()
        for call in calls:
            self._done(call, reply)

    def _finish(self, call: Call, reply: Reply) -> None:
        """The server has ended the stream; where our request is not all out, it is taken back (RFC 9113, 8.1)."""
        self.streams.pop(call.stream_id, None)
        if self._uploads.pop(call.stream_id, None) is not None:
            self.out.append(frame(RST_STREAM, 0, call.stream_id, u32.pack(NO_ERROR)))
        self._done(call, reply)

    def _refuse(self, call: Call, reply: Reply, code: int = PROTOCOL_ERROR) -> None:
        self.withdraw(call, code)
        self._done(call, reply)

    def _done(self, call: Call, reply: Reply) -> None:
        done = call.end()
        if done is not None:
            try:
                done(reply)
            except Exception:
                self._failed()
