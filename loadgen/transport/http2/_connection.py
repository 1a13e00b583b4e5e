"""HTTP/2 as a gRPC client speaks it (RFC 9113): one connection, without its socket.

The dynamic header table has the size 0 in both directions: header blocks then carry no state, a request's block is
encoded once, and a reply's block is looked up by its bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

from loadgen._reply import OK, UNAVAILABLE, Reply
from loadgen.transport.http2._call import Call
from loadgen.transport.http2._call_table import CallTable
from loadgen.transport.http2._reply_headers import ReplyHead
from loadgen.transport.http2._reply_reader import ReplyReader
from loadgen.transport.http2._request_headers import LIMITS, OPENING_BYTES
from worker.wire import StatusCode
from worker.wire.http2 import (
    ACK,
    DATA,
    DEFAULT_FRAME,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    LAST_STREAM_ID,
    PING,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    BlockCache,
    ConnectionLimits,
    ConnectionSettings,
    FlowWindow,
    Frame,
    FrameReader,
    FrameWriter,
    OutgoingStream,
    ProtocolError,
    encode_frame,
    frame_head,
    message_prefix,
    stream_id_of,
    u32,
)

_NO_ERROR = bytes(4)
_END_BOTH = END_HEADERS | END_STREAM
_NOT_HTTP2 = "the peer does not begin with HTTP/2 SETTINGS; is it a gRPC server?"


class ClientConnection:
    """The client's side of one connection.

    Bytes of the socket come in by `receive`. What is to be sent collects in `writer`. Calls end through their `done`.
    """

    __slots__ = (
        *("_fast", "_fast_size", "_out", "_queue", "_reader", "_replies", "_report", "_send_window", "_window"),
        *("calls", "pings", "writer"),
    )

    def __init__(
        self,
        cache: BlockCache[ReplyHead],
        max_message: int,
        report: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        fast: bool = True,
    ) -> None:
        """`cache` may be shared by connections. `max_message` is the size limit of a reply in bytes. `report` is called
        in the handler of an exception out of a call's `done`. Without `fast` every frame takes the shared path; the
        result is the same."""
        self._fast = fast
        self._report = report
        self._reader = FrameReader(LIMITS, not_http2=_NOT_HTTP2)
        self._window = FlowWindow(LIMITS.connection_window)  # of what the server sends
        settings = ConnectionSettings(peer_is_server=True)
        self.writer = FrameWriter(settings, ConnectionLimits(LIMITS, clock), wake=lambda: None)
        self.writer.write(OPENING_BYTES)
        self.writer.table_update = True
        self.calls = CallTable(self.writer, report)
        self._replies = ReplyReader(self.calls, cache, max_message, clock)
        self.pings = 0
        """PINGs of ours that the server has not answered."""
        # Of the writer, for the fast path of `send`.
        self._out, self._queue, self._send_window = self.writer.out, self.writer.queue, self.writer.window
        self._fast_size = 0  # messages up to this size may take it

    @property
    def settled(self) -> bool:
        """Whether the server's first SETTINGS have come."""
        return self._reader.settled

    def send(self, call: Call, block: bytes) -> None:
        """Starts a call with this header block. The caller has checked `len(calls.streams) < calls.limit`.

        Small requests take a fast path here: five pieces of bytes, two of them the stream id. The shared path makes the
        same bytes.
        """
        calls = self.calls
        stream_id = calls.next_id
        calls.next_id = stream_id + 2
        call.owner = calls
        call.stream_id = stream_id
        calls.streams[stream_id] = call
        request = call.request
        size = request.size
        window = self._send_window
        if (
            size <= self._fast_size
            and size <= window.size
            and not self._queue
            and (head := request.heads.get(block) or request.add_head(block))
        ):
            window.size -= size
            wire_id = stream_id_of(stream_id)
            self._out += (head[0], wire_id, head[1], wire_id, request.framed)
        else:
            self._send_shared(stream_id, request.framed, block)
        if stream_id >= LAST_STREAM_ID:
            calls.drain()

    def _send_shared(self, stream_id: int, framed: bytes, block: bytes) -> None:
        self.writer.write_headers(stream_id, block)
        outgoing = OutgoingStream(stream_id, FlowWindow(self.writer.settings.initial_window))
        outgoing.append(framed)
        outgoing.end_with_data = True
        self.writer.enqueue(outgoing)
        self._set_fast_size()

    def _set_fast_size(self) -> None:
        ready = self._fast and not self.writer.table_update
        self._fast_size = min(self.writer.settings.initial_window, DEFAULT_FRAME) if ready else 0

    def ping(self) -> None:
        """Asks the server for an answer, which sets `pings` to 0."""
        self.pings += 1
        self.writer.write(encode_frame(PING, 0, 0, bytes(8)))

    # What the server sends.

    def receive(self, data: bytes) -> None:
        """Takes bytes of the socket. Raises ProtocolError; then only the GOAWAY in `writer` and `abandon` are left."""
        try:
            if self._fast:
                self._read_fast(data)
            else:
                for frame in self._reader.read(data):
                    self._on_frame(frame)
        except ProtocolError as error:
            self.writer.go_away(0, error.code)
            self.calls.drain()
            raise
        if self._window.half_used:
            self.writer.update_window(0, self._window.refill())

    def _read_fast(self, data: bytes) -> None:
        """The fast path of small successful replies: their three frames, and the RST_STREAM with which some servers end
        a stream, are handled here, with the same effect as in `_on_frame`, which gets everything else."""
        reader, calls, queue = self._reader, self.calls, self._queue
        streams, heads, max_message = calls.streams, self._replies.cache.values, self._replies.max_message
        unpack, unpack_prefix, max_frame = frame_head.unpack_from, message_prefix.unpack_from, LIMITS.frame_bytes
        data = reader.join(data)
        position, end, consumed = 0, len(data), 0
        unrestricted = reader.unrestricted
        while end - position >= 9:
            high, low, kind, flags, stream_id = unpack(data, position)
            start = position + 9
            length = high << 8 | low
            stop = start + length
            if stop > end or length > max_frame:
                reader.check_size(length)
                break
            position = stop
            if kind == DATA and flags == 0 and unrestricted:
                call = streams.get(stream_id)
                if (
                    call is not None
                    and call.payload is None
                    and call.parts is None
                    and call.head is not None
                    and length >= 5
                ):
                    compressed, size = unpack_prefix(data, start)
                    if compressed == 0 and size == length - 5 and size <= max_message:
                        consumed += length
                        call.payload = data[start + 5 : stop]
                        continue
            elif kind == HEADERS and unrestricted:
                call = streams.get(stream_id)
                head = heads.get(data[start:stop])
                if call is not None and head is not None:
                    if flags == END_HEADERS:
                        if call.head is None and head.status == 200:
                            call.head = head
                            calls.answered = True
                            continue
                    elif flags == _END_BOTH and head.code == OK and call.payload is not None and not queue:
                        del streams[stream_id]
                        payload = call.payload
                        done = call.end()
                        if done is not None:
                            try:
                                done(Reply(OK, head.message, payload))
                            except Exception:
                                self._report()
                        continue
            elif (
                kind == RST_STREAM
                and stream_id & 1
                and unrestricted
                and stream_id not in streams
                and stream_id < calls.next_id
                and data[start:stop] == _NO_ERROR
            ):
                continue
            frame = reader.accept(kind, flags, stream_id, data[start:stop])
            if frame is not None:
                self._on_frame(frame)
            unrestricted = reader.unrestricted
        reader.keep(data, position)
        self._window.size -= consumed

    def _on_frame(self, frame: Frame) -> None:
        handler = self._HANDLERS.get(frame.kind)
        if handler is not None:  # unknown types are ignored (RFC 9113, 4.1), and so is PRIORITY
            handler(self, frame)

    def _on_data(self, frame: Frame) -> None:
        self._window.consume(frame.size)
        self._replies.on_data(frame)

    def _on_headers(self, frame: Frame) -> None:
        self._replies.on_headers(frame)

    def _on_reset(self, frame: Frame) -> None:
        self._replies.on_reset(frame)

    def _on_settings(self, frame: Frame) -> None:
        if frame.flags & ACK:
            return
        settings = self.writer.settings
        change = settings.apply(frame.payload)
        for outgoing in self._queue.values():
            outgoing.window.shift(change)
        self._set_fast_size()
        if not self.calls.draining:
            self.calls.limit = settings.max_streams
        self.writer.answer(encode_frame(SETTINGS, ACK, 0))
        self.writer.fill()

    def _on_push(self, frame: Frame) -> None:
        raise ProtocolError(PROTOCOL_ERROR, "PUSH_PROMISE, which our SETTINGS forbid")

    def _on_ping(self, frame: Frame) -> None:
        if frame.flags & ACK:
            self.pings = 0  # an answer to one is an answer to all before it
        else:
            self.writer.answer(encode_frame(PING, ACK, 0, frame.payload))

    def _on_goaway(self, frame: Frame) -> None:
        calls = self.calls
        calls.goaways += 1
        calls.drain()
        last = u32.unpack_from(frame.payload)[0] & LAST_STREAM_ID
        code = u32.unpack_from(frame.payload, 4)[0]
        message = f"the server is going away (HTTP/2 error {code}) and did not take this call"
        for call in [call for stream_id, call in calls.streams.items() if stream_id > last]:
            calls.refused += 1
            calls.finish_closed(call, Reply(UNAVAILABLE, message))

    def _on_window_update(self, frame: Frame) -> None:
        increment = u32.unpack(frame.payload)[0] & LAST_STREAM_ID
        stream_id = frame.stream_id
        if stream_id == 0:
            self._send_window.enlarge(increment)
        else:
            call, outgoing = self.calls.streams.get(stream_id), self._queue.get(stream_id)
            if call is None:
                self.calls.check_opened(stream_id)  # usual after the last byte of a request
                return
            try:
                (outgoing.window if outgoing else FlowWindow(0)).enlarge(increment)
            except ProtocolError as error:
                self.calls.reject(call, Reply(StatusCode.INTERNAL.value, f"the server sent {error}"), error.code)
        self.writer.fill()

    _HANDLERS: ClassVar[dict[int, Callable[[ClientConnection, Frame], None]]] = {
        DATA: _on_data,
        HEADERS: _on_headers,
        RST_STREAM: _on_reset,
        SETTINGS: _on_settings,
        PUSH_PROMISE: _on_push,
        PING: _on_ping,
        GOAWAY: _on_goaway,
        WINDOW_UPDATE: _on_window_update,
    }
