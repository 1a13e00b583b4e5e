"""What the peer says about the connection itself (RFC 9113, 6.5 to 6.9), how much of it is too much, our goodbye."""

from __future__ import annotations

from collections.abc import Callable

from worker.server.sending import Clock, Held, Limits, Sender
from worker.wire.http2.frames import (
    ACK,
    ENABLE_PUSH,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    LAST_STREAM_ID,
    MAX_FRAME_SIZE,
    NO_ERROR,
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

# Frames that move no call on, in PERIOD_S, while none is answered. A SETTINGS frame counts for more: it touches
# every stream.
IDLE_FRAMES = 10000
SETTINGS_WEIGHT = 50
PERIOD_S = 10.0
# Answers owed to a peer that does not read them.
UNREAD_ANSWERS = 1000
# Calls that came and were taken back in one breath, in PERIOD_S.
RAPID_RESETS = 1000
DEFAULT_TABLE = 4096
_GOODBYE = b"inferlo\0"


class Control(Sender):
    """Keeps the peer's limits, and its patience with the peer."""

    def __init__(self, limits: Limits, held: Held, clock: Clock, wake: Callable[[], None], peer: str) -> None:
        super().__init__(limits, held, clock, wake, peer)
        self.settled = False  # the peer's SETTINGS have come
        self.draining = False  # our first GOAWAY is out
        self.refusing = False  # our last one: what comes now is the client's to send elsewhere
        self.last_id = 0  # highest stream that was begun
        self.highest_id = 0  # and that was ever seen
        self._refill = False
        self._idle_since = self.clock()
        self._unread = 0
        self._resets = 0
        self._resets_since = self._idle_since

    def idle(self, weight: int = 1) -> None:
        """Counts a frame that moves no call on."""
        self._idle += weight
        if self._idle > IDLE_FRAMES:
            now = self.clock()
            if now - self._idle_since < PERIOD_S:
                raise ProtocolError(ENHANCE_YOUR_CALM, "too many frames that move no call on")
            self._idle, self._idle_since = 0, now

    def taken_back(self) -> None:
        """Counts a call that came and was taken back in one breath."""
        self._resets += 1
        if self._resets > RAPID_RESETS:
            now = self.clock()
            if now - self._resets_since < PERIOD_S:
                raise ProtocolError(ENHANCE_YOUR_CALM, "too many calls that are taken back as they are made")
            self._resets, self._resets_since = 0, now

    def answer(self, data: bytes) -> None:
        if self.paused:
            self._unread += 1
            if self._unread > UNREAD_ANSWERS:
                raise ProtocolError(ENHANCE_YOUR_CALM, "a peer that asks and does not read the answers")
        self.control(data)

    def resumed(self) -> None:
        """The socket takes bytes again."""
        self.paused = False
        self._unread = 0
        self.fill()

    def on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        self.idle(SETTINGS_WEIGHT)
        told = settings_of(flags, payload)
        if told is None:
            return
        for name, value in told:
            if name == HEADER_TABLE_SIZE:
                self._shrink_table = self._shrink_table or value < DEFAULT_TABLE
            elif name == ENABLE_PUSH:
                if value > 1:
                    raise ProtocolError(PROTOCOL_ERROR, f"ENABLE_PUSH of {value}")
            elif name == INITIAL_WINDOW_SIZE:
                most = max((stream.extra_window for stream in self.streams.values()), default=0)
                if value > LARGEST_WINDOW or value + most > LARGEST_WINDOW:
                    raise ProtocolError(FLOW_CONTROL_ERROR, f"an initial window of {value}")
                self._initial_window = value
                self._refill = True
            elif name == MAX_FRAME_SIZE:
                self._max_frame = largest_frame(value)
        self.settled = True
        self.answer(frame(SETTINGS, ACK, 0))

    def on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        exactly(8, payload)
        self.idle()
        if not flags & ACK:
            self.answer(frame(PING, ACK, 0, payload))
        elif payload == _GOODBYE and self.draining:
            self.refuse()

    def on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        """The client begins nothing more; what it began is answered."""
        self.idle()
        if len(payload) < 8:
            raise ProtocolError(FRAME_SIZE_ERROR, "GOAWAY cut short")

    def on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        increment = window_step(payload)
        self.idle()
        if stream_id == 0:
            self._window += increment
            if increment == 0 or self._window > LARGEST_WINDOW:
                raise ProtocolError(FLOW_CONTROL_ERROR if increment else PROTOCOL_ERROR, "a wrong WINDOW_UPDATE")
        else:
            stream = self.streams.get(stream_id)
            if stream is None:
                self.known(stream_id)
                return
            stream.extra_window += increment
            if increment == 0 or self._initial_window + stream.extra_window > LARGEST_WINDOW:
                self.reset(stream, FLOW_CONTROL_ERROR if increment else PROTOCOL_ERROR)
                return
        self._refill = True

    def known(self, stream_id: int) -> None:
        """A frame for no stream that is open: late for one that has ended, or wrong."""
        if stream_id & 1 == 0 or stream_id > self.highest_id:
            raise ProtocolError(PROTOCOL_ERROR, f"a frame on stream {stream_id}, which nobody opened")

    # Our goodbye, in two steps: what the client sent before it heard the first one is still taken.

    def drain(self) -> None:
        if not self.draining:
            self.draining = True
            self.control(frame(GOAWAY, 0, 0, u32.pack(LAST_STREAM_ID) + u32.pack(NO_ERROR)))
            self.control(frame(PING, 0, 0, _GOODBYE))

    def refuse(self) -> None:
        if not self.refusing:
            self.draining = self.refusing = True
            self.control(frame(GOAWAY, 0, 0, u32.pack(self.last_id) + u32.pack(NO_ERROR)))
