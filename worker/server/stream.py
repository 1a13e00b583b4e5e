"""Stream: one RPC on the wire, as the method that answers it sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from worker.server.reply_headers import reply_head, reply_trailers
from worker.server.request_headers import Metadata, RequestHead
from worker.wire import StatusCode
from worker.wire.http2 import FlowWindow, MessageReader, OutgoingStream, message_prefix

# Messages of at least so many bytes are sent from where they are; smaller ones are joined with their prefix first.
_UNCOPIED = 65536


class Timer(Protocol):
    """What an event loop's `call_later` returns."""

    def cancel(self) -> None: ...


class Receiver(Protocol):
    """Takes the messages of a request that is a stream."""

    @property
    def waiting(self) -> bool:
        """Whether messages have come that were not read."""

    def message(self, data: bytes) -> None:
        """The next message."""

    def half_closed(self) -> None:
        """No message follows."""


class StreamOwner(Protocol):
    """What a stream needs of its connection."""

    peer: str
    max_message: int

    def now(self) -> float: ...

    def reply(self, stream: Stream, message: bytes) -> None: ...

    def outgoing(self, stream: Stream) -> OutgoingStream:
        """What the stream has yet to send."""

    def enqueue(self, outgoing: OutgoingStream) -> None: ...

    def refill(self, stream: Stream) -> None: ...

    def buffer(self, size: int) -> None: ...


class Stream:
    """One call from its headers to its end. Belongs to the event loop's thread.

    The method that answers calls `reply` once, or `send_head`, `send` and `finish`; all are ignored once the stream
    has ended. `on_cancel` is called when it ends in another way: the client cancels, its deadline passes, or the
    connection is lost.
    """

    __slots__ = (
        "deadline",
        "ended",
        "half_closed",
        "id",
        "on_cancel",
        "on_writable",
        "outgoing",
        "owner",
        "reader",
        "receive_window",
        "received",
        "receiver",
        "request",
        "send_window",
        "started",
        "timer",
    )

    def __init__(self, owner: StreamOwner, stream_id: int, request: RequestHead) -> None:
        self.owner = owner
        self.id = stream_id
        self.request = request
        self.ended = False
        self.started = False  # the method has begun, or never will
        self.half_closed = False  # the client has sent everything
        self.on_cancel: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        """Called once everything that waited has been sent, and when the stream ends."""
        self.deadline: float | None = None  # by the connection's clock
        self.timer: Timer | None = None
        # Made when they are first needed: a small call has none of them.
        self.receiver: Receiver | None = None
        self.reader: MessageReader | None = None
        self.receive_window: FlowWindow | None = None
        self.send_window: FlowWindow | None = None
        self.outgoing: OutgoingStream | None = None
        self.received = 0  # bytes of DATA, without padding; counted with `reader`

    def time_remaining(self) -> float | None:
        """Seconds until the client's deadline; None where it has none."""
        return None if self.deadline is None else max(0.0, self.deadline - self.owner.now())

    @property
    def peer(self) -> str:
        """The client's address, as gRPC writes it."""
        return self.owner.peer

    @property
    def unsent_bytes(self) -> int:
        """Bytes of messages that wait to be sent."""
        return 0 if self.outgoing is None else self.outgoing.size

    def reply(self, message: bytes) -> None:
        """Sends the one message of a reply, and status OK."""
        if not self.ended:
            if len(message) > self.owner.max_message:
                self._fail_too_large(message)
            else:
                self.owner.reply(self, message)

    def send_head(self, metadata: Metadata = ()) -> None:
        """Sends the headers of a reply, if they have not been sent."""
        if self.ended:
            return
        outgoing = self.owner.outgoing(self)
        if outgoing.head is None and not outgoing.head_sent and outgoing.trailers is None:
            outgoing.head = reply_head(metadata)
            self.owner.enqueue(outgoing)

    def send(self, message: bytes) -> None:
        """Sends one message of a reply that is a stream."""
        if self.ended:
            return
        if len(message) > self.owner.max_message:
            self._fail_too_large(message)
            return
        self.send_head()
        outgoing = self.owner.outgoing(self)
        prefix = message_prefix.pack(0, len(message))
        if len(message) < _UNCOPIED:
            outgoing.append(prefix + message)
        else:
            outgoing.append(prefix)
            outgoing.append(message)
        self.owner.enqueue(outgoing)

    def finish(self, code: int = StatusCode.OK, message: str = "", metadata: Metadata = ()) -> None:
        """Ends the call after what was sent."""
        if self.ended:
            return
        outgoing = self.owner.outgoing(self)
        if outgoing.trailers is not None:
            return
        block = reply_trailers(code, message, metadata)
        if outgoing.head is None and not outgoing.head_sent:
            block = reply_head(()) + block  # Trailers-Only
        outgoing.trailers = block
        self.owner.enqueue(outgoing)

    def fail(self, code: int, message: str, metadata: Metadata = ()) -> None:
        """Ends the call now; what has not been sent is dropped."""
        if not self.ended:
            if self.outgoing is not None:
                self.outgoing.clear()
            self.finish(code, message, metadata)

    def _fail_too_large(self, message: bytes) -> None:
        limit = self.owner.max_message
        self.fail(StatusCode.RESOURCE_EXHAUSTED, f"the reply has {len(message)} bytes (expected at most {limit})")

    @property
    def finishing(self) -> bool:
        """Whether the reply's end waits to be sent."""
        return self.outgoing is not None and self.outgoing.trailers is not None

    def cancel(self) -> None:
        """Calls `on_cancel`, once: nobody waits for the reply any more."""
        callback, self.on_cancel = self.on_cancel, None
        if callback is not None:
            callback()
