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

from loadgen._h2_frames import (
    ACK,
    CANCEL,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    DEFAULT_FRAME,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_CHUNK,
    LARGEST_WINDOW,
    LAST_STREAM_ID,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    NO_ERROR,
    OUR_FRAME,
    PADDED,
    PING,
    PRIORITY,
    PRIORITY_FLAG,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ProtocolError,
    frame,
    frame_head,
    prefix_head,
    setting,
    u32,
)
from loadgen._h2_reply import (
    INTERNAL,
    MAX_HEADER_LIST,
    OK,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    Head,
    Reply,
    decode_head,
    final_reply,
    reset_reply,
)
from loadgen._h2_send import Call, Sender

MOST_ACKS = 10000  # answers owed to a peer that does not read them
MOST_CONTINUATIONS = 64
KEPT_BLOCK, KEPT_BLOCKS = 1024, 4096  # header blocks remembered: bytes each, and how many
_NO_ERROR = bytes(4)
_NOT_HTTP2 = "the peer does not begin with HTTP/2 SETTINGS; is it a gRPC server?"


class Connection(Sender):
    """The client's side of one connection; see the module's docstring. Counts what went wrong in its attributes."""

    def __init__(
        self,
        seen: dict[bytes, Head],
        max_receive_bytes: int,
        failed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.settled = False  # the peer's SETTINGS have come
        self.answered = False  # a reply has come
        self.closed = False
        self.resets = self.goaways = self.refused = self.stray = 0
        self._seen = seen  # header block -> what it says; shared by a channel's connections
        self._max_receive = max_receive_bytes
        self._failed = failed  # reports an exception out of a call's `done`
        self._clock = clock
        self._tail = bytearray()  # a frame that is not whole yet, and the bytes it needs
        self._need = 0
        self._partial: tuple[int, int, list[bytes]] | None = None  # HEADERS without END_HEADERS: id, flags, pieces
        self._receive_window = LARGEST_WINDOW
        self._max_streams = LAST_STREAM_ID

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
            if kind == DATA and self.settled and self._partial is None:
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
            elif kind == HEADERS and flags | END_STREAM == END_STREAM | END_HEADERS and self._partial is None:
                block = data[start:position]
                head = seen.get(block) or self._decode(block)
                call = streams.get(stream_id)
                if call is None or not self.settled:
                    self._on_head(stream_id & LAST_STREAM_ID, flags, head)
                elif flags == END_HEADERS:
                    if call.head is None and head.status == 200:
                        call.head = head
                        self.answered = True
                    else:
                        self._on_head(stream_id, flags, head)
                elif head.code == OK and call.payload is not None and not uploads:
                    del streams[stream_id]
                    done, call.done = call.done, None
                    if done is not None:
                        try:
                            done(Reply(OK, head.message, call.payload))
                        except Exception:
                            self._failed()
                else:
                    self._on_head(stream_id, flags, head)
            elif (
                kind == RST_STREAM
                and stream_id & 1
                and self._partial is None
                and stream_id not in streams
                and stream_id < self.next_id
                and data[start:position] == _NO_ERROR
            ):
                pass  # how a server ends a stream whose request it has not read to the end (RFC 9113, 8.1)
            else:
                self._on_frame(kind, flags, stream_id & LAST_STREAM_ID, data[start:position])
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
        if not self.settled and (kind != SETTINGS or flags & ACK):
            raise ProtocolError(PROTOCOL_ERROR, _NOT_HTTP2)
        if self._partial is not None and (kind != CONTINUATION or stream_id != self._partial[0]):
            raise ProtocolError(PROTOCOL_ERROR, "another frame inside a header block")
        on_connection = kind in (SETTINGS, PING, GOAWAY)
        if kind <= CONTINUATION and kind != WINDOW_UPDATE and (stream_id == 0) != on_connection:
            raise ProtocolError(PROTOCOL_ERROR, f"frame type {kind} on stream {stream_id}")
        handler = self._HANDLERS.get(kind)
        if handler is not None:  # types that nobody knows are ignored (RFC 9113, 4.1)
            handler(self, flags, stream_id, payload)

    def _known(self, stream_id: int, count: int = 1) -> None:
        """A frame for no call in flight: late for one that has ended, or wrong."""
        if stream_id & 1 == 0 or stream_id >= self.next_id:
            raise ProtocolError(PROTOCOL_ERROR, f"a frame on stream {stream_id}, which nobody opened")
        if not self.closed:
            self.stray += count

    def _unpadded(self, flags: int, payload: bytes) -> bytes:
        if not flags & PADDED:
            return payload
        if not payload or payload[0] >= len(payload):
            raise ProtocolError(PROTOCOL_ERROR, "more padding than frame")
        return payload[1 : len(payload) - payload[0]]

    def _on_data(self, call: Call | None, stream_id: int, flags: int, payload: bytes) -> None:
        payload = self._unpadded(flags, payload)
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
        if not self.settled:
            raise ProtocolError(PROTOCOL_ERROR, _NOT_HTTP2)
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
        payload = self._unpadded(flags, payload)
        if flags & PRIORITY_FLAG:
            if len(payload) < 5:
                raise ProtocolError(FRAME_SIZE_ERROR, "a priority cut short")
            payload = payload[5:]
        if flags & END_HEADERS:
            self._on_head(stream_id, flags, self._decode(payload))
        else:
            self._partial = (stream_id, flags, [payload])

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._partial is None:
            raise ProtocolError(PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        _, first_flags, pieces = self._partial
        pieces.append(payload)
        if len(pieces) > MOST_CONTINUATIONS or sum(map(len, pieces)) > 2 * MAX_HEADER_LIST:
            raise ProtocolError(ENHANCE_YOUR_CALM, "a header block without end")
        if flags & END_HEADERS:
            self._partial = None
            self._on_head(stream_id, first_flags, self._decode(b"".join(pieces)))

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        _exactly(5, payload)  # deprecated, and ignored

    def _on_reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        _exactly(4, payload)
        call = self.streams.get(stream_id)
        if call is None:
            self._known(stream_id)
            return
        self.resets += 1
        self._uploads.pop(stream_id, None)  # the stream is closed: no RST_STREAM of ours
        self._finish(call, reset_reply(u32.unpack(payload)[0], self._clock() >= call.deadline))

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & ACK:
            _exactly(0, payload)
            return
        if len(payload) % 6:
            raise ProtocolError(FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
        for name, value in setting.iter_unpack(payload):
            if name == ENABLE_PUSH and value != 0:
                raise ProtocolError(PROTOCOL_ERROR, "a server that enables push")
            if name == MAX_CONCURRENT_STREAMS:
                self._max_streams = value
            elif name == INITIAL_WINDOW_SIZE:
                if value > LARGEST_WINDOW:
                    raise ProtocolError(FLOW_CONTROL_ERROR, f"an initial window of {value}")
                for upload in self._uploads.values():
                    upload.window += value - self._initial_window
                    if upload.window > LARGEST_WINDOW:
                        raise ProtocolError(FLOW_CONTROL_ERROR, "a stream's window is too large")
                self._initial_window = value
            elif name == MAX_FRAME_SIZE:
                if not DEFAULT_FRAME <= value < 2**24:
                    raise ProtocolError(PROTOCOL_ERROR, f"a largest frame of {value}")
                self._max_frame = min(value, LARGEST_CHUNK)
        self.settled = True
        if not self._fresh:
            self._set_fast_size()
        if not self.draining:
            self.limit = self._max_streams
        self._owe(frame(SETTINGS, ACK, 0))
        self.fill()

    def _on_push(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise ProtocolError(PROTOCOL_ERROR, "PUSH_PROMISE, which our SETTINGS forbid")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        _exactly(8, payload)
        if not flags & ACK:
            self._owe(frame(PING, ACK, 0, payload))

    def _owe(self, answer: bytes) -> None:
        self._acks += 1
        if self._acks > MOST_ACKS:
            raise ProtocolError(ENHANCE_YOUR_CALM, "a peer that asks and does not read the answers")
        self.out.append(answer)

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) < 8:
            raise ProtocolError(FRAME_SIZE_ERROR, "GOAWAY cut short")
        self.goaways += 1
        self.draining = True
        self.limit = 0
        last = u32.unpack_from(payload)[0] & LAST_STREAM_ID
        words = f"the server is going away (HTTP/2 error {u32.unpack_from(payload, 4)[0]}) and did not take this call"
        for call in [call for number, call in self.streams.items() if number > last]:
            self.refused += 1
            self._uploads.pop(call.stream_id, None)
            self._finish(call, Reply(UNAVAILABLE, words))

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        _exactly(4, payload)
        increment = u32.unpack(payload)[0] & LAST_STREAM_ID
        if stream_id == 0:
            self._window += increment
            if increment == 0 or self._window > LARGEST_WINDOW:
                raise ProtocolError(FLOW_CONTROL_ERROR if increment else PROTOCOL_ERROR, "a wrong WINDOW_UPDATE")
        else:
            upload = self._uploads.get(stream_id)
            call = self.streams.get(stream_id)
            if call is None:
                self._known(stream_id, 0)  # usual after the last byte of an upload
                return
            if upload is not None:
                upload.window += increment
            if increment == 0 or (upload is not None and upload.window > LARGEST_WINDOW):
                code = FLOW_CONTROL_ERROR if increment else PROTOCOL_ERROR
                self._refuse(call, Reply(INTERNAL, "the server sent a wrong WINDOW_UPDATE"), code)
        if self._uploads:
            self.fill()

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
        done, call.done = call.done, None
        if done is not None:
            try:
                done(reply)
            except Exception:
                self._failed()

    _HANDLERS: ClassVar[dict[int, Callable[[Connection, int, int, bytes], None]]] = {
        HEADERS: _on_headers_frame,
        PRIORITY: _on_priority,
        RST_STREAM: _on_reset,
        SETTINGS: _on_settings,
        PUSH_PROMISE: _on_push,
        PING: _on_ping,
        GOAWAY: _on_goaway,
        WINDOW_UPDATE: _on_window_update,
        CONTINUATION: _on_continuation,
    }


def _exactly(size: int, payload: bytes) -> None:
    if len(payload) != size:
        raise ProtocolError(FRAME_SIZE_ERROR, f"a frame of {len(payload)} bytes where its type has {size}")
