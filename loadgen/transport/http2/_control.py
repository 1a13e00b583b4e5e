"""What the peer says about the connection itself: SETTINGS, PING, GOAWAY, WINDOW_UPDATE (RFC 9113, 6.5 to 6.9)."""

from collections.abc import Callable

from loadgen.transport._reply import INTERNAL, UNAVAILABLE, Reply
from loadgen.transport.http2._send import Sender
from worker.wire.http2.frames import (
    ACK,
    ENABLE_PUSH,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    LAST_STREAM_ID,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    PING,
    PROTOCOL_ERROR,
    SETTINGS,
    ProtocolError,
    exactly,
    frame,
    largest_frame,
    settings_of,
    u32,
    window_step,
)

MOST_ACKS = 10000  # answers owed to a peer that does not read them


class Control(Sender):
    """Keeps the peer's limits and its goodbye; counts GOAWAY frames, calls they left out, and frames that came late."""

    def __init__(self, failed: Callable[[], None]) -> None:
        super().__init__(failed)
        self.settled = False  # the peer's SETTINGS have come
        self.goaways = self.refused = self.stray = 0
        self._max_streams = LAST_STREAM_ID
        self.pings = 0  # PINGs of ours that wait for their answer

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        told = settings_of(flags, payload)
        if told is None:
            return
        for name, value in told:
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
                self._max_frame = largest_frame(value)
        self.settled = True
        if not self._fresh:
            self._set_fast_size()
        if not self.draining:
            self.limit = self._max_streams
        self._owe(frame(SETTINGS, ACK, 0))
        self.fill()

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        exactly(8, payload)
        if flags & ACK:
            self.pings = 0
        else:
            self._owe(frame(PING, ACK, 0, payload))

    def ping(self) -> None:
        """Asks the peer for a sign of life; the next one sets `pings` to 0, as it answers all before it."""
        self.pings += 1
        self.out.append(frame(PING, 0, 0, bytes(8)))

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
        increment = window_step(payload)
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

    def _known(self, stream_id: int, count: int = 1) -> None:
        """A frame for no call in flight: late for one that has ended, or wrong."""
        if stream_id & 1 == 0 or stream_id >= self.next_id:
            raise ProtocolError(PROTOCOL_ERROR, f"a frame on stream {stream_id}, which nobody opened")
        if not self.closed:
            self.stray += count
