"""Stream: one RPC on the wire, as what answers it sees it. Messages out of DATA, and DATA out of messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from worker.server.headers import Metadata, Route, reply_head, trailers
from worker.server.status import INTERNAL, OK, RESOURCE_EXHAUSTED
from worker.wire.http2.frames import WINDOW_BITS, Unreadable, inflate, prefix_head, u32

if TYPE_CHECKING:
    from worker.server.sending import Sender

# What a client may send on a stream before it is read.
WINDOW = 4 * 2**20
# Messages so large are sent as they lie in memory; smaller ones are joined with their prefix first.
_COPIED = 65536


class Timer(Protocol):
    def cancel(self) -> None: ...


class Receiver(Protocol):
    """Takes the messages of a request that is a stream."""

    @property
    def waiting(self) -> bool:
        """Messages came that were not taken."""

    def message(self, data: bytes) -> None: ...

    def half_closed(self) -> None: ...


class Stream:
    """One call from its headers to its end. Belongs to the event loop's thread.

    Whoever answers calls `reply` once, or `head`, `send` and `finish`; all are ignored once the stream has ended.
    `gone` is called when it ends in another way: the client took it back, its deadline is over, or the connection is
    lost.
    """

    __slots__ = (
        "deadline",
        "ended",
        "extra_window",
        "gone",
        "half_closed",
        "head_block",
        "head_sent",
        "id",
        "incoming",
        "last_block",
        "owed",
        "pending",
        "pending_bytes",
        "receive_window",
        "receiver",
        "route",
        "sender",
        "started",
        "timer",
        "writable",
    )

    def __init__(self, sender: Sender, stream_id: int, route: Route) -> None:
        self.sender = sender
        self.id = stream_id
        self.route = route
        self.ended = False
        self.started = False
        self.half_closed = False  # the client has said all
        self.gone: Callable[[], None] | None = None
        self.deadline: float | None = None  # by the connection's clock
        self.timer: Timer | None = None
        # What comes in.
        self.receiver: Receiver | None = None
        self.receive_window = WINDOW
        self.owed = 0  # bytes that came and were not given back to the client's window
        self.incoming: Incoming | None = None
        # What goes out.
        self.extra_window = 0  # beyond the peer's initial window
        self.head_block: bytes | None = None
        self.head_sent = False
        self.pending: deque[memoryview] | None = None
        self.pending_bytes = 0
        self.last_block: bytes | None = None
        self.writable: Callable[[], None] | None = None  # called once what waited has gone out

    def time_remaining(self) -> float | None:
        """Seconds until the client's deadline; None where it gave none."""
        return None if self.deadline is None else max(0.0, self.deadline - self.sender.clock())

    @property
    def peer(self) -> str:
        return self.sender.peer

    def reply(self, message: bytes) -> None:
        """The one message of a reply, and status OK."""
        if not self.ended:
            if len(message) > self.sender.limits.message_bytes:
                self._too_large(message)
            else:
                self.sender.reply(self, message)

    def head(self, metadata: Metadata = ()) -> None:
        if not self.ended and self.head_block is None:
            self.head_block = reply_head(metadata)
            self.sender.enqueue(self)

    def send(self, message: bytes) -> None:
        """One message of a reply that is a stream."""
        if self.ended:
            return
        if len(message) > self.sender.limits.message_bytes:
            self._too_large(message)
            return
        self.head()
        if self.pending is None:
            self.pending = deque()
        prefix = b"\0" + u32.pack(len(message))
        pieces = (prefix + message,) if len(message) < _COPIED else (prefix, message)
        self.pending.extend(map(memoryview, pieces))
        self.pending_bytes += 5 + len(message)
        self.sender.enqueue(self)

    def finish(self, code: int = OK, words: str = "", metadata: Metadata = ()) -> None:
        """Ends the call after what was sent."""
        if self.ended or self.last_block is not None:
            return
        block = trailers(code, words, metadata)
        if self.head_block is None:
            block = reply_head(()) + block  # Trailers-Only
        self.last_block = block
        self.sender.enqueue(self)

    def fail(self, code: int, words: str, metadata: Metadata = ()) -> None:
        """Ends the call now: what was not sent yet never is."""
        if self.ended:
            return
        self.pending = None
        self.pending_bytes = 0
        if not self.head_sent:
            self.head_block = None
        self.last_block = None
        self.finish(code, words, metadata)

    def _too_large(self, message: bytes) -> None:
        limit = self.sender.limits.message_bytes
        self.fail(RESOURCE_EXHAUSTED, f"the answer has {len(message)} bytes, and {limit} are the most that is sent")

    def abandon(self) -> None:
        """The stream has ended without us: whoever answers is told."""
        gone, self.gone = self.gone, None
        if gone is not None:
            gone()


class Incoming:
    """What came of a request's messages, as long as none is whole."""

    __slots__ = ("_buffer", "_encoding", "_limit", "_wanted", "messages")

    def __init__(self, encoding: str, limit: int) -> None:
        self._buffer = bytearray()
        self._wanted = 5
        self._encoding = encoding
        self._limit = limit
        self.messages: list[bytes] = []

    @property
    def held(self) -> int:
        """Bytes of an unfinished message."""
        return len(self._buffer)

    def take(self, payload: bytes) -> tuple[int, str] | None:
        """Adds whole messages to `messages`. A status and words where the call cannot go on."""
        buffer = self._buffer
        buffer += payload
        if len(buffer) < self._wanted:
            return None
        position = 0
        while len(buffer) - position >= 5:
            compressed, size = prefix_head.unpack_from(buffer, position)
            if size > self._limit:
                return RESOURCE_EXHAUSTED, f"a message of {size} bytes, where {self._limit} are the most"
            if len(buffer) - position < 5 + size:
                self._wanted = 5 + size
                break
            body = bytes(memoryview(buffer)[position + 5 : position + 5 + size])
            position += 5 + size
            self._wanted = 5
            if compressed:
                opened = self._open(compressed, body)
                if isinstance(opened, tuple):
                    return opened
                body = opened
            self.messages.append(body)
        if position:
            del buffer[:position]
        return None

    def _open(self, flag: int, body: bytes) -> bytes | tuple[int, str]:
        if flag != 1 or self._encoding not in WINDOW_BITS:
            return INTERNAL, f"a message's compressed flag is {flag} where grpc-encoding is {self._encoding!r}"
        try:
            message = inflate(self._encoding, body, self._limit)
        except Unreadable as error:
            return INTERNAL, f"a message {error}"
        if len(message) > self._limit:
            return RESOURCE_EXHAUSTED, f"a decompressed message is larger than {self._limit} bytes"
        return message
