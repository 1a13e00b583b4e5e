"""A client's frames: what HEADERS, DATA, RST_STREAM and WINDOW_UPDATE do to its calls."""

from __future__ import annotations

from collections import deque

from worker.server.reply_headers import rejection_block
from worker.server.request_headers import RequestHead, RequestHeadParser, RequestHeadReader
from worker.server.stream import Stream
from worker.server.stream_table import StreamTable
from worker.wire import StatusCode
from worker.wire.http2 import (
    END_STREAM,
    LAST_STREAM_ID,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    REFUSED_STREAM_WEIGHT,
    RST_STREAM,
    STREAM_CLOSED,
    ConnectionLimits,
    FlowWindow,
    Frame,
    FrameWriter,
    MessageError,
    MessageReader,
    MessageTooLargeError,
    ProtocolError,
    encode_frame,
    u32,
)

# Ranges of stream numbers that a client skipped and that are remembered; more than any client needs.
_SKIPPED_RANGES = 64


class RequestReader:
    """Opens the streams of one connection, and gives their methods what the client sends."""

    __slots__ = ("_limits", "_skipped", "_table", "_writer", "heads")

    def __init__(
        self, parser: RequestHeadParser, table: StreamTable, writer: FrameWriter, limits: ConnectionLimits
    ) -> None:
        self.heads = RequestHeadReader(parser)
        self._table = table
        self._writer = writer
        self._limits = limits
        self._skipped: deque[tuple[int, int]] = deque(maxlen=_SKIPPED_RANGES)

    def on_headers(self, frame: Frame) -> None:
        """A complete header block: a new request, or the trailers of one."""
        table = self._table
        stream_id, ended = frame.stream_id, bool(frame.flags & END_STREAM)
        if stream_id & 1 == 0:
            raise ProtocolError(PROTOCOL_ERROR, f"HEADERS on stream {stream_id}")
        if stream_id <= table.highest_id:
            self._on_trailers(stream_id, ended, self.heads.read_trailers(frame.payload))
            return
        head = self.heads.read(frame.payload)  # whatever becomes of it: the decoder must see every block
        if stream_id > table.highest_id + 2:
            self._skipped.append((table.highest_id + 2, stream_id - 2))
        table.highest_id = stream_id
        if not table.accepting:
            self._limits.idle_frame()
        elif len(table.streams) >= self._limits.table.streams:
            self._refuse(stream_id, REFUSED_STREAM)
        elif head.malformed or (ended and head.rejection is None and head.content_length):
            self._refuse(stream_id, PROTOCOL_ERROR)
        else:
            self._open(stream_id, head, ended)

    def _on_trailers(self, stream_id: int, ended: bool, well_formed: bool) -> None:
        """Trailers of a client have no meaning in gRPC, but that they end its messages."""
        table = self._table
        self._limits.idle_frame()
        stream = table.streams.get(stream_id)
        if stream is None:
            if any(low <= stream_id <= high for low, high in self._skipped):
                raise ProtocolError(PROTOCOL_ERROR, f"stream {stream_id} is opened after stream {table.highest_id}")
        elif stream.half_closed:
            table.reset(stream, STREAM_CLOSED)
        elif not ended or not well_formed:
            table.reset(stream, PROTOCOL_ERROR)
        else:
            self._on_end(stream)

    def _refuse(self, stream_id: int, code: int) -> None:
        self._limits.idle_frame(REFUSED_STREAM_WEIGHT)
        self._writer.answer(encode_frame(RST_STREAM, 0, stream_id, u32.pack(code)))

    def _open(self, stream_id: int, head: RequestHead, ended: bool) -> None:
        table = self._table
        table.last_id = stream_id
        stream = table.streams[stream_id] = Stream(table, stream_id, head)
        table.opened.add(stream_id)
        if head.rejection is not None:
            stream.started = True
            stream.half_closed = ended
            outgoing = table.outgoing(stream)
            outgoing.trailers = rejection_block(head.rejection)
            table.enqueue(outgoing)
            return
        assert head.method is not None
        if head.timeout_s is not None:
            table.limit_time(stream, head.timeout_s)
        if head.content_length is not None:
            stream.reader = MessageReader(head.encoding, table.max_message)  # its DATA are counted
        if head.method.request_streaming:
            stream.started = True
            table.begin(stream, b"")
        if ended:
            self._on_end(stream)

    def on_data(self, frame: Frame) -> None:
        """DATA of any kind; the connection's window has counted it."""
        table = self._table
        stream = table.streams.get(frame.stream_id)
        limits = self._limits
        if stream is None:
            table.check_opened(frame.stream_id)
            limits.idle_frame()
            return
        if stream.half_closed:
            table.reset(stream, STREAM_CLOSED)
            return
        window = stream.receive_window
        if window is None:
            window = stream.receive_window = FlowWindow(limits.table.stream_window)
        try:
            window.consume(frame.size)
        except ProtocolError as error:
            table.reset(stream, error.code)
            return
        if len(frame.payload) < limits.table.small_data_bytes:
            limits.idle_frame()
        if stream.request.rejection is None and not stream.finishing:
            self._read_messages(stream, frame.payload)
        if stream.ended:
            return
        if frame.flags & END_STREAM:
            self._on_end(stream)
        elif window.half_used and not (stream.receiver is not None and stream.receiver.waiting):
            table.refill(stream)

    def _read_messages(self, stream: Stream, payload: bytes) -> None:
        table = self._table
        reader = stream.reader
        if reader is None:
            reader = stream.reader = MessageReader(stream.request.encoding, table.max_message)
        stream.received += len(payload)
        length = stream.request.content_length
        if length is not None and stream.received > length:
            table.reset(stream, PROTOCOL_ERROR)
            return
        limits = self._limits
        before = reader.incomplete
        try:
            reader.receive(payload)
        except MessageTooLargeError as error:
            self._reject(stream, StatusCode.RESOURCE_EXHAUSTED, f"the message {error}")
            return
        except MessageError as error:
            self._reject(stream, StatusCode.INTERNAL, f"the message {error}")
            return
        finally:
            limits.buffer(reader.incomplete - before)
        if limits.buffer_full:
            message = f"unread messages have {limits.table.buffered_bytes} bytes, as many as the server holds"
            self._reject(stream, StatusCode.RESOURCE_EXHAUSTED, message)
        elif stream.receiver is not None:
            messages, reader.messages = reader.messages, []
            for message_bytes in messages:
                stream.receiver.message(message_bytes)

    @staticmethod
    def _reject(stream: Stream, code: int, message: str) -> None:
        stream.cancel()
        stream.fail(code, message)

    def _on_end(self, stream: Stream) -> None:
        """The client has sent everything."""
        table = self._table
        stream.half_closed = True
        if stream.finishing:
            return
        reader = stream.reader
        length = stream.request.content_length
        if length is not None and stream.received != length and stream.request.rejection is None:
            table.reset(stream, PROTOCOL_ERROR)
        elif reader is not None and reader.incomplete:
            self._reject(
                stream, StatusCode.INTERNAL, f"the last message is incomplete: it ends after {reader.incomplete} bytes"
            )
        elif stream.receiver is not None:
            stream.receiver.half_closed()
        elif not stream.started:
            messages = reader.messages if reader is not None else []
            if len(messages) != 1:
                stream.fail(StatusCode.UNIMPLEMENTED, f"{len(messages)} messages where the method takes one")
            else:
                stream.started = True
                stream.reader = None
                table.begin(stream, messages[0])

    def on_reset(self, frame: Frame) -> None:
        """RST_STREAM: the client cancels."""
        table = self._table
        stream = table.streams.get(frame.stream_id)
        if stream is None:
            table.check_opened(frame.stream_id)
            self._limits.idle_frame()
            return
        if frame.stream_id in table.opened:
            self._limits.rapid_reset()
        table.cancel(stream)

    def on_window_update(self, frame: Frame) -> None:
        """WINDOW_UPDATE of a stream."""
        table = self._table
        stream = table.streams.get(frame.stream_id)
        if stream is None:
            table.check_opened(frame.stream_id)
            return
        try:
            table.send_window(stream).enlarge(u32.unpack(frame.payload)[0] & LAST_STREAM_ID)
        except ProtocolError as error:
            table.reset(stream, error.code)
