"""One unary call of a client: its request, framed once, and what has come of its reply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from loadgen._reply import Reply
from loadgen.transport.http2._reply_headers import ReplyHead
from worker.wire.http2 import (
    DATA,
    DEFAULT_FRAME,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    frame_head,
    frame_message,
    message_prefix,
)

# Header blocks that a request remembers; more come only of ever new timeouts.
_HEADS = 64


class CallOwner(Protocol):
    """The calls of the connection that a call is sent on."""

    def withdraw(self, call: Call) -> None:
        """Forgets the call and resets its stream."""


class PreparedRequest:
    """A request message framed once: `size` bytes with the gRPC prefix. Good for any number of calls and channels."""

    __slots__ = ("framed", "heads", "size")

    def __init__(self, payload: bytes) -> None:
        if len(payload) > 0xFFFFFFFF:
            raise ValueError(f"a gRPC message holds at most 4 GiB, this one has {len(payload)} bytes")
        self.framed = frame_message(payload)
        self.size = len(self.framed)
        self.heads: dict[bytes, tuple[bytes, bytes] | None] = {}
        """For the fast path, by header block: the bytes of a small request before its first stream id, and between its
        first and its second; None for a block that needs more than one frame."""

    def add_head(self, block: bytes) -> tuple[bytes, bytes] | None:
        """Makes an entry of `heads`."""
        if len(self.heads) >= _HEADS:
            self.heads.clear()
        head = None
        if len(block) <= DEFAULT_FRAME and self.size <= DEFAULT_FRAME:
            before = frame_head.pack(len(block) >> 8, len(block) & 0xFF, HEADERS, END_HEADERS, 0)[:5]
            between = block + frame_head.pack(self.size >> 8, self.size & 0xFF, DATA, END_STREAM, 0)[:5]
            head = (before, between)
        self.heads[block] = head
        return head


class Call:
    """One unary call; the handle that `Channel.start` returns. `done` is None once it has ended."""

    __slots__ = ("deadline", "done", "head", "owner", "parts", "payload", "received", "request", "stream_id")

    def __init__(self, done: Callable[[Reply], None], request: PreparedRequest, deadline: float) -> None:
        self.done: Callable[[Reply], None] | None = done
        self.request = request
        self.deadline = deadline  # seconds of time.monotonic(); infinity for none
        self.owner: CallOwner | None = None  # once it is sent
        self.stream_id = 0
        self.head: ReplyHead | None = None
        # The reply's DATA: of the fast path the message, where it came whole in one frame, otherwise the pieces.
        self.payload: bytes | None = None
        self.parts: list[bytes] | None = None
        self.received = 0  # bytes in `parts`

    def collect(self) -> list[bytes]:
        """The reply's DATA in pieces, with the message prefix, from now on in `parts`."""
        if self.parts is None:
            self.parts = []
            if self.payload is not None:
                self.add_data(message_prefix.pack(0, len(self.payload)))
                self.add_data(self.payload)
                self.payload = None
        return self.parts

    def add_data(self, payload: bytes) -> int:
        """Adds to `parts`; the size of the message so far, or as announced if that is more."""
        parts = self.collect()
        parts.append(payload)
        self.received += len(payload)
        first = parts[0]
        announced = int.from_bytes(first[1:5], "big") if len(first) >= 5 and first[0] <= 1 else 0
        return max(announced, self.received - 5)

    def end(self) -> Callable[[Reply], None] | None:
        """Marks the call as ended and drops its bytes; `done`, the first time."""
        done, self.done = self.done, None
        self.payload = self.parts = None
        self.request = _NO_REQUEST
        return done


_NO_REQUEST = PreparedRequest(b"")
