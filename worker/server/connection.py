"""HTTP/2 as a gRPC server speaks it (RFC 9113): one connection, without its socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from worker.server.request_headers import RequestHeadParser
from worker.server.request_reader import RequestReader
from worker.server.stream import Stream
from worker.server.stream_table import Clock, StreamTable
from worker.wire.http2 import (
    ACK,
    CLIENT_PREFACE,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LAST_STREAM_ID,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    NO_ERROR,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    SETTINGS_WEIGHT,
    WINDOW_UPDATE,
    BufferedBytes,
    ConnectionLimits,
    ConnectionSettings,
    FlowWindow,
    Frame,
    FrameReader,
    FrameWriter,
    PeerLimits,
    ProtocolError,
    encode_frame,
    encode_settings,
    frame_head,
    message_prefix,
    u32,
)

# Content of the PING that follows our first GOAWAY.
_SHUTDOWN_PING = b"inferlo\0"


class ServerConnection:
    """The server's side of one connection.

    Bytes of the socket come in by `receive`. What is to be sent collects in `writer`, which calls `wake`. Where the
    peer violates HTTP/2, `error` is set, every call is cancelled, and a GOAWAY is the last that is sent.
    """

    __slots__ = (
        "_fast",
        "_fill",
        "_reader",
        "_requests",
        "_window",
        "closed",
        "draining",
        "error",
        "limits",
        "streams",
        "writer",
    )

    def __init__(
        self,
        parser: RequestHeadParser,
        table: PeerLimits,
        buffered: BufferedBytes,
        clock: Clock,
        wake: Callable[[], None],
        peer: str = "",
        *,
        fast: bool = True,
    ) -> None:
        """`buffered` counts over all connections. Without `fast` every frame takes the shared path; the result is the
        same."""
        self.error: ProtocolError | None = None
        self.closed = False
        self.draining = False  # our first GOAWAY is sent
        self.limits = ConnectionLimits(table, clock.time, buffered)
        self.writer = FrameWriter(ConnectionSettings(peer_is_server=False), self.limits, wake)
        self.streams = StreamTable(self.writer, self.limits, clock, peer)
        self._requests = RequestReader(parser, self.streams, self.writer, self.limits)
        self._reader = FrameReader(table, preface=CLIENT_PREFACE, not_http2="the peer does not begin with SETTINGS")
        self._window = FlowWindow(table.connection_window)  # of what the client sends
        self._fill = False  # windows have grown: queued DATA may go
        self._fast = fast

    def open(self) -> None:
        """Sends our SETTINGS, which need not wait for the peer's."""
        table = self.limits.table
        settings = encode_settings(
            (HEADER_TABLE_SIZE, 0),
            (MAX_CONCURRENT_STREAMS, table.streams),
            (INITIAL_WINDOW_SIZE, table.stream_window),
            (MAX_FRAME_SIZE, table.frame_bytes),
            (MAX_HEADER_LIST_SIZE, table.header_list_bytes),
        )
        self.writer.write(settings)
        self.writer.update_window(0, table.connection_window - DEFAULT_WINDOW)

    @property
    def awaits_peer(self) -> bool:
        """Whether the peer still owes its first SETTINGS or the rest of a header block."""
        return not self._reader.unrestricted

    @property
    def refusing(self) -> bool:
        """Whether no new stream is begun: our last GOAWAY is sent."""
        return not self.streams.accepting

    @property
    def finished(self) -> bool:
        """Whether nothing follows what has been written."""
        return self.error is not None or (self.refusing and not self.streams.streams)

    def receive(self, data: bytes) -> None:
        """Takes bytes of the socket."""
        if self.error is not None or self.closed:
            return
        self.streams.opened.clear()
        try:
            if self._fast:
                self._read_fast(data)
            else:
                for frame in self._reader.read(data):
                    self._on_frame(frame)
            if self._window.half_used:
                self.writer.update_window(0, self._window.refill())
            if self._fill:
                self._fill = False
                self.writer.fill()
        except ProtocolError as error:
            self.error = error
            self.draining = True
            self.streams.accepting = False
            self.writer.go_away(self.streams.last_id, error.code)
            self.close()

    def _read_fast(self, data: bytes) -> None:
        """The fast path of small unary requests: HEADERS whose block is known and DATA with one whole message are
        handled here, with the same effect as in `_on_frame`, which gets everything else."""
        reader, table, limits = self._reader, self.streams, self.limits.table
        streams, opened, window = table.streams, table.opened, self._window
        decoder, heads = self._requests.heads.decoder, self._requests.heads.stored
        unpack, unpack_prefix = frame_head.unpack_from, message_prefix.unpack_from
        max_frame, max_message, max_streams = limits.frame_bytes, limits.message_bytes, limits.streams
        data = reader.join(data)
        position, end = 0, len(data)
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
            if kind == DATA and flags == END_STREAM and length >= 5 and unrestricted:
                stream = streams.get(stream_id)
                if stream is not None and not stream.started and stream.reader is None:
                    compressed, size = unpack_prefix(data, start)
                    if compressed == 0 and size == length - 5 and size <= max_message:
                        window.size -= length
                        stream.half_closed = stream.started = True
                        table.begin(stream, data[start + 5 : stop])
                        continue
            elif kind == HEADERS and flags == END_HEADERS and unrestricted:
                head = heads.get(data[start:stop]) if decoder.stateless else None
                if (
                    head is not None
                    and head.simple
                    and stream_id == table.highest_id + 2
                    and stream_id <= LAST_STREAM_ID
                    and len(streams) < max_streams
                    and table.accepting
                ):
                    table.last_id = table.highest_id = stream_id
                    stream = streams[stream_id] = Stream(table, stream_id, head)
                    opened.add(stream_id)
                    if head.timeout_s is not None:
                        table.limit_time(stream, head.timeout_s)
                    continue
            frame = reader.accept(kind, flags, stream_id, data[start:stop])
            if frame is not None:
                self._on_frame(frame)
            unrestricted = reader.unrestricted
        reader.keep(data, position)
        if window.size < 0:
            window.consume(0)

    def _on_frame(self, frame: Frame) -> None:
        handler = self._HANDLERS.get(frame.kind)
        if handler is not None:
            handler(self, frame)
        else:
            self.limits.idle_frame()  # unknown types are ignored (RFC 9113, 4.1)

    def _on_data(self, frame: Frame) -> None:
        self._window.consume(frame.size)
        self._requests.on_data(frame)

    def _on_headers(self, frame: Frame) -> None:
        self._requests.on_headers(frame)

    def _on_priority(self, frame: Frame) -> None:
        self.limits.idle_frame()  # deprecated, and ignored

    def _on_reset(self, frame: Frame) -> None:
        self._requests.on_reset(frame)

    def _on_settings(self, frame: Frame) -> None:
        self.limits.idle_frame(SETTINGS_WEIGHT)
        if frame.flags & ACK:
            self._requests.heads.decoder.forbid_table()
            return
        settings = self.writer.settings
        header_table = settings.header_table
        self.streams.shift_windows(settings.apply(frame.payload))
        if settings.header_table < header_table:
            self.writer.table_update = True
        self._fill = True
        self.writer.answer(encode_frame(SETTINGS, ACK, 0))

    def _on_push(self, frame: Frame) -> None:
        raise ProtocolError(PROTOCOL_ERROR, "PUSH_PROMISE from a client")

    def _on_ping(self, frame: Frame) -> None:
        self.limits.idle_frame()
        if not frame.flags & ACK:
            self.writer.answer(encode_frame(PING, ACK, 0, frame.payload))
        elif frame.payload == _SHUTDOWN_PING and self.draining:
            self.refuse()

    def _on_goaway(self, frame: Frame) -> None:
        self.limits.idle_frame()  # the client begins nothing more; what it began is answered

    def _on_window_update(self, frame: Frame) -> None:
        self.limits.idle_frame()
        if frame.stream_id == 0:
            self.writer.window.enlarge(u32.unpack(frame.payload)[0] & LAST_STREAM_ID)
        else:
            self._requests.on_window_update(frame)
        self._fill = True

    _HANDLERS: ClassVar[dict[int, Callable[[ServerConnection, Frame], None]]] = {
        DATA: _on_data,
        HEADERS: _on_headers,
        PRIORITY: _on_priority,
        RST_STREAM: _on_reset,
        SETTINGS: _on_settings,
        PUSH_PROMISE: _on_push,
        PING: _on_ping,
        GOAWAY: _on_goaway,
        WINDOW_UPDATE: _on_window_update,
    }

    # The socket.

    def close(self) -> None:
        """The connection is lost, and every call with it."""
        self.closed = True
        self.streams.cancel_all()

    # Graceful shutdown, in two steps (RFC 9113, 6.8): what the client sent before it saw the first one is answered.

    def drain(self) -> None:
        """Tells the client to begin nothing more, and asks by PING for a sign that it has read that."""
        if not self.draining:
            self.draining = True
            self.writer.go_away(LAST_STREAM_ID, NO_ERROR)
            self.writer.write(encode_frame(PING, 0, 0, _SHUTDOWN_PING))

    def refuse(self) -> None:
        """Begins no new stream: the client knows from the second GOAWAY which to send elsewhere."""
        if self.streams.accepting:
            self.draining = True
            self.streams.accepting = False
            self.writer.go_away(self.streams.last_id, NO_ERROR)
