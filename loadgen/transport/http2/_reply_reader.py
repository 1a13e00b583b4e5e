"""A server's frames: what HEADERS, DATA and RST_STREAM do to the calls of a client."""

from __future__ import annotations

from collections.abc import Callable

from loadgen._reply import Reply
from loadgen.transport.http2._call_table import CallTable
from loadgen.transport.http2._reply_headers import ReplyHead, final_reply, reset_reply
from loadgen.transport.http2._request_headers import LIMITS
from worker.wire import StatusCode
from worker.wire.http2 import CANCEL, END_STREAM, NO_ERROR, BlockCache, Frame, HeaderDecoder, u32

_INTERNAL, _RESOURCE_EXHAUSTED = StatusCode.INTERNAL.value, StatusCode.RESOURCE_EXHAUSTED.value


class ReplyReader:
    """Ends the calls of one connection with what the server sends. Every method raises ProtocolError."""

    __slots__ = ("_calls", "_clock", "_decoder", "cache", "max_message")

    def __init__(
        self, calls: CallTable, cache: BlockCache[ReplyHead], max_message: int, clock: Callable[[], float]
    ) -> None:
        self.cache = cache
        self.max_message = max_message
        self._calls = calls
        self._clock = clock
        self._decoder = HeaderDecoder(LIMITS.header_list_bytes, stateless=True)

    def on_headers(self, frame: Frame) -> None:
        """A complete header block: a reply's head, its trailers, or both in one."""
        calls, block = self._calls, frame.payload
        head = self.cache.values.get(block)
        if head is None:
            head = ReplyHead(self._decoder.decode(block))
            self.cache.store(block, head)
        call = calls.streams.get(frame.stream_id)
        if call is None:
            calls.count_stray(frame.stream_id)
        elif frame.flags & END_STREAM:
            calls.finish(call, final_reply(call.head, head, call.collect(), self.max_message))
        elif call.head is not None or head.status is None:
            calls.reject(call, Reply(_INTERNAL, "the reply's header blocks are malformed"))
        elif not 100 <= head.status < 200:  # informational ones precede the reply's own head
            call.head = head
            if head.status == 200:
                calls.answered = True
            else:
                call.collect()  # its DATA are no message

    def on_data(self, frame: Frame) -> None:
        """DATA of any kind; the connection's window has counted it."""
        calls = self._calls
        call = calls.streams.get(frame.stream_id)
        if call is None:
            calls.count_stray(frame.stream_id)
        elif call.head is None:
            calls.reject(call, Reply(_INTERNAL, "DATA before the reply's headers"))
        elif frame.payload and call.head.status == 200 and call.add_data(frame.payload) > self.max_message:
            message = f"the reply's message is larger than {self.max_message} bytes"
            calls.reject(call, Reply(_RESOURCE_EXHAUSTED, message), CANCEL)
        elif frame.flags & END_STREAM:
            calls.finish(call, final_reply(call.head, None, call.collect(), self.max_message))

    def on_reset(self, frame: Frame) -> None:
        """RST_STREAM: the server ends the stream."""
        calls = self._calls
        (code,) = u32.unpack(frame.payload)
        call = calls.streams.get(frame.stream_id)
        if call is not None:
            calls.resets += 1
            calls.finish_closed(call, reset_reply(code, self._clock() >= call.deadline))
        elif code == NO_ERROR:
            # How a server ends a stream whose request it has not read to the end (RFC 9113, 8.1).
            calls.check_opened(frame.stream_id)
        else:
            calls.count_stray(frame.stream_id)
