"""The calls in flight on one connection of a client: how many may start, how they end, and what went wrong."""

from __future__ import annotations

from collections.abc import Callable

from loadgen._reply import Reply
from loadgen.transport.http2._call import Call
from worker.wire.http2 import CANCEL, NO_ERROR, PROTOCOL_ERROR, FrameWriter, ProtocolError


class CallTable:
    """The calls of one connection by stream number."""

    __slots__ = (
        *("_report", "_writer", "answered", "closed", "draining", "goaways", "limit", "next_id", "refused", "resets"),
        *("streams", "stray"),
    )

    def __init__(self, writer: FrameWriter, report: Callable[[], None]) -> None:
        self.streams: dict[int, Call] = {}
        self.next_id = 1
        self.limit = 0
        """Calls that may be in flight at once; 0 before the server's SETTINGS, and once none may start."""
        self.draining = False
        """Whether no call may start any more: GOAWAY, or stream numbers have run out."""
        self.closed = False
        self.answered = False
        """Whether a reply has begun."""
        self.goaways = 0
        """GOAWAY frames."""
        self.refused = 0
        """Calls that a GOAWAY excluded."""
        self.resets = 0
        """Calls that the server reset."""
        self.stray = 0
        """Frames of calls that had ended."""
        self._writer = writer
        self._report = report

    def drain(self) -> None:
        """No call may start any more; those in flight go on."""
        self.draining = True
        self.limit = 0

    def check_opened(self, stream_id: int) -> None:
        """A frame for no call in flight: it is late if there was such a call, and raises ProtocolError otherwise."""
        if stream_id & 1 == 0 or stream_id >= self.next_id:
            raise ProtocolError(PROTOCOL_ERROR, f"a frame on stream {stream_id}, which was never opened")

    def count_stray(self, stream_id: int) -> None:
        """Counts a frame that is late. Raises ProtocolError where there was no such call."""
        self.check_opened(stream_id)
        if not self.closed:
            self.stray += 1

    def withdraw(self, call: Call, code: int = CANCEL) -> None:
        """Forgets a call and resets its stream; its `done` is the caller's business."""
        if self.streams.pop(call.stream_id, None) is not None:
            self._writer.reset(call.stream_id, code)

    def finish(self, call: Call, reply: Reply) -> None:
        """The server has ended the stream; where our request is not all out, it is reset (RFC 9113, 8.1)."""
        self.streams.pop(call.stream_id, None)
        if call.stream_id in self._writer.queue:
            self._writer.reset(call.stream_id, NO_ERROR)
        self._done(call, reply)

    def finish_closed(self, call: Call, reply: Reply) -> None:
        """The server has closed the stream, or never opened it: nothing may be sent on it."""
        self._writer.queue.pop(call.stream_id, None)
        self.finish(call, reply)

    def reject(self, call: Call, reply: Reply, code: int = PROTOCOL_ERROR) -> None:
        """Ends a call whose reply is not acceptable, with RST_STREAM and this error code."""
        self.withdraw(call, code)
        self._done(call, reply)

    def abandon(self, reply: Reply) -> None:
        """The connection is lost: every call ends with this reply."""
        self.closed = True
        self.drain()
        calls = list(self.streams.values())
        self.streams.clear()
        self._writer.queue.clear()
        self._writer.out.clear()
        for call in calls:
            self._done(call, reply)

    def _done(self, call: Call, reply: Reply) -> None:
        done = call.end()
        if done is not None:
            try:
                done(reply)
            except Exception:
                self._report()
