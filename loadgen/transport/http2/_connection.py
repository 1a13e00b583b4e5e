"""HTTP/2 as a gRPC client speaks it (RFC 9113): the receiving half and the state of one connection. No socket in here.

Bytes come in by `feed`, bytes to send collect in `out`, calls end through their `done`. The dynamic header table is
sized 0 in both directions: header blocks then carry no state, a request's block is encoded once and a reply's block
is looked up by its bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

from hpack import HPACKError

from loadgen.transport._reply import INTERNAL, OK, RESOURCE_EXHAUSTED, Reply
from loadgen.transport.http2._control import Control
from loadgen.transport.http2._response import MAX_HEADER_LIST, Head, decode_head, final_reply, reset_reply
from loadgen.transport.http2._send import Call
from worker.wire.http2.frames import (
    CANCEL,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    KEPT_BLOCK,
    KEPT_BLOCKS,
    LARGEST_WINDOW,
    LAST_STREAM_ID,
    OUR_FRAME,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Partial,
    ProtocolError,
    continued,
    exactly,
    frame,
    frame_head,
    header_fragment,
    in_order,
    prefix_head,
    u32,
    unpadded,
)

_NO_ERROR = bytes(4)
_NOT_HTTP2 = "the peer does not begin with HTTP/2 SETTINGS; is it a gRPC server?"


class Connection(Control):
    """The client's side of one connection; see the module's docstring. Counts what went wrong in its attributes."""

    def __init__(
        self,
        seen: dict[bytes, Head],
        max_receive_bytes: int,
        failed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(failed)
        self.answered = False  # a reply has come
        self.resets = 0  # calls that the server reset
        self._seen = seen  # header block -> what it says; shared by a channel's connections
        self._max_receive = max_receive_bytes
        self._clock = clock
        self._tail = bytearray()  # a frame that is not whole yet, and the bytes it needs
        self._need = 0
        self._partial: Partial | None = None
        self._receive_window = LARGEST_WINDOW

    def feed(self, data: bytes) -> None:
        """Takes what the socket gave. Raises ProtocolError; then only `out` (a GOAWAY) and `abandon` are left."""
        tail = self._tail
        if tail:
            tail += data
            if len(tail) < self._need:
                return
            data = bytes(tail)
            tail.clear()
        try:
            self._parse(data)
        except HPACKError as error:
            self._break(ProtocolError(COMPRESSION_ERROR, f"a header block cannot be decoded: {error}"))
        except ProtocolError as error:
            self._break(error)

    def _break(self, error: ProtocolError) -> None:
        self.out.append(frame(GOAWAY, 0, 0, u32.pack(0) + u32.pack(error.code)))
        self.limit = 0
        self.draining = True
        raise error

    def _parse(self, data: bytes) -> None:
        """The hot loop: the three frames of a small successful reply are handled in it, everything else in methods."""
        streams, uploads, seen, limit = self.streams, self._uploads, self._seen, self._max_receive
        unpack, unpack_prefix = frame_head.unpack_from, prefix_head.unpack_from
        position, end, received = 0, len(data), 0
        calm = self.settled and self._partial is None
        while end - position >= 9:
            high, low, kind, flags, stream_id = unpack(data, position)
            start = position + 9
            length = high << 8 | low
            position = start + length
            if position > end or length > OUR_FRAME:
                if length > OUR_FRAME:
                    raise ProtocolError(FRAME_SIZE_ERROR, f"a frame of {length} bytes, where {OUR_FRAME} are allowed")
                position = start - 9
                self._need = 9 + length
                break
            if kind == DATA and calm:
                received += length
                call = streams.get(stream_id)
                if (
                    call is not None
                    and flags == 0
                    and length >= 5
                    and call.payload is None
                    and call.parts is None
                    and call.head is not None
                ):
                    compressed, size = unpack_prefix(data, start)
                    if compressed == 0 and size == length - 5 and size <= limit:
                        call.payload = data[start + 5 : position]
                        continue
                self._on_data(call, stream_id & LAST_STREAM_ID, flags, data[start:position])
            elif kind == HEADERS and calm and (flags == END_HEADERS or flags == END_HEADERS | END_STREAM):
                block = data[start:position]
                head = seen.get(block) or self._decode(block)
                call = streams.get(stream_id)
                if call is None:
                    self._on_head(stream_id & LAST_STREAM_ID, flags, head)
                elif flags == END_HEADERS:
                    if call.head is None and head.status == 200:
                        call.head = head
                        self.answered = True
                    else:
                        self._on_head(stream_id, flags, head)
                elif head.code == OK and call.payload is not None and not uploads:
                    del streams[stream_id]
                    payload = call.payload
                    done = call.end()
                    if done is not None:
                        try:
                            done(Reply(OK, head.message, payload))
                        except Exception:
                            self._failed()
                else:
                    self._on_head(stream_id, flags, head)
            elif (
                kind == RST_STREAM
                and stream_id & 1
                and calm
                and stream_id not in streams
                and stream_id < self.next_id
                and data[start:position] == _NO_ERROR
            ):
                pass  # how a server ends a stream whose request it has not read to the end (RFC 9113, 8.1)
            else:
                self._on_frame(kind, flags, stream_id & LAST_STREAM_ID, data[start:position])
                calm = self.settled and self._partial is None
        else:
            self._need = 9
        if position < end:
            self._tail += data[position:]
        self._receive_window -= received
        if self._receive_window < LARGEST_WINDOW // 2:
            self.out.append(frame(WINDOW_UPDATE, 0, 0, u32.pack(LARGEST_WINDOW - self._receive_window)))
            self._receive_window = LARGEST_WINDOW

    def _decode(self, block: bytes) -> Head:
        head = decode_head(block)
        if len(block) <= KEPT_BLOCK:
            if len(self._seen) >= KEPT_BLOCKS:
                self._seen.clear()
            self._seen[block] = head
        return head

    def _on_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        in_order(kind, flags, stream_id, settled=self.settled, partial=self._partial, not_http2=_NOT_HTTP2)
        handler = self._HANDLERS.get(kind)
        if handler is not None:  # types that nobody knows are ignored (RFC 9113, 4.1)
            handler(self, flags, stream_id, payload)

    def _on_data(self, call: Call | None, stream_id: int, flags: int, payload: bytes) -> None:
        payload = unpadded(flags, payload)
        call = call or self.streams.get(stream_id)
        if call is None:
            self._known(stream_id)
            return
        if call.head is None:
            self._refuse(call, Reply(INTERNAL, "DATA before the reply's headers"))
            return
        if call.parts is None:
            call.parts = self._parts(call)
            call.payload = None
        if payload and call.head.status == 200:
            call.parts.append(payload)
            call.received += len(payload)
            first = call.parts[0]
            announced = int.from_bytes(first[1:5], "big") if len(first) >= 5 and first[0] <= 1 else 0
            if max(announced, call.received - 5) > self._max_receive:
                words = f"the reply's message is larger than {self._max_receive} bytes"
                self._refuse(call, Reply(RESOURCE_EXHAUSTED, words), CANCEL)
                return
        if flags & END_STREAM:
            self._finish(call, final_reply(call.head, None, call.parts, self._max_receive))

    @staticmethod
    def _parts(call: Call) -> list[bytes]:
        if call.parts is not None:
            return call.parts
        return [] if call.payload is None else [prefix_head.pack(0, len(call.payload)), call.payload]

    def _on_head(self, stream_id: int, flags: int, head: Head) -> None:
        call = self.streams.get(stream_id)
        if call is None:
            self._known(stream_id)
            return
        ended = flags & END_STREAM
        if call.head is None and head.status is not None and 100 <= head.status < 200 and not ended:
            return  # informational: the reply's own headers are still to come
        if ended:
            self._finish(call, final_reply(call.head, head, self._parts(call), self._max_receive))
        elif call.head is None and head.status is not None:
            call.head = head
        else:
            self._refuse(call, Reply(INTERNAL, "the reply's header blocks are malformed"))

    def _on_headers_frame(self, flags: int, stream_id: int, payload: bytes) -> None:
        """HEADERS with padding, a priority, or CONTINUATION to come; plain ones never get here."""
        payload = header_fragment(flags, payload)
        if flags & END_HEADERS:
            self._on_head(stream_id, flags, self._decode(payload))
        else:
            self._partial = (stream_id, flags, [payload])

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        first_flags, pieces = continued(self._partial, payload, 2 * MAX_HEADER_LIST)
        if flags & END_HEADERS:
            self._partial = None
            self._on_head(stream_id, first_flags, self._decode(b"".join(pieces)))

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        exactly(5, payload)  # deprecated, and ignored

    def _on_reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        exactly(4, payload)
        call = self.streams.get(stream_id)
        if call is None:
            self._known(stream_id)
            return
        self.resets += 1
        self._uploads.pop(stream_id, None)  # the stream is closed: no RST_STREAM of ours
        self._finish(call, reset_reply(u32.unpack(payload)[0], self._clock() >= call.deadline))

    def _on_push(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise ProtocolError(PROTOCOL_ERROR, "PUSH_PROMISE, which our SETTINGS forbid")

    _HANDLERS: ClassVar[dict[int, Callable[[Connection, int, int, bytes], None]]] = {
        HEADERS: _on_headers_frame,
        PRIORITY: _on_priority,
        RST_STREAM: _on_reset,
        SETTINGS: Control._on_settings,
        PUSH_PROMISE: _on_push,
        PING: Control._on_ping,
        GOAWAY: Control._on_goaway,
        WINDOW_UPDATE: Control._on_window_update,
        CONTINUATION: _on_continuation,
    }
