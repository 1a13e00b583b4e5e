"""The peer's SETTINGS (RFC 9113, 6.5.2): their values, and which values are errors."""

from struct import Struct

from worker.wire.http2.errors import ProtocolError
from worker.wire.http2.frames import (
    DEFAULT_FRAME,
    DEFAULT_TABLE,
    DEFAULT_WINDOW,
    ENABLE_PUSH,
    FLOW_CONTROL_ERROR,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    LARGEST_CHUNK,
    LARGEST_WINDOW,
    LAST_STREAM_ID,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    PROTOCOL_ERROR,
)

_pairs = Struct(">HI").iter_unpack


class ConnectionSettings:
    """What the peer of one connection lets us send. Unknown settings are ignored."""

    __slots__ = ("_peer_is_server", "header_table", "initial_window", "max_frame", "max_streams")

    def __init__(self, *, peer_is_server: bool) -> None:
        self._peer_is_server = peer_is_server
        self.header_table = DEFAULT_TABLE
        """Bytes that the dynamic table of our header blocks may have."""
        self.max_streams = LAST_STREAM_ID
        """Streams that we may have open at once."""
        self.initial_window = DEFAULT_WINDOW
        """The window with which each stream of ours begins."""
        self.max_frame = DEFAULT_FRAME
        """The largest payload of a frame that we send: the peer's limit, at most LARGEST_CHUNK."""

    def apply(self, payload: bytes) -> int:
        """Applies a SETTINGS frame in order; the change of the initial window in bytes. Raises ProtocolError."""
        before = self.initial_window
        for name, value in _pairs(payload):
            if name == HEADER_TABLE_SIZE:
                self.header_table = value
            elif name == ENABLE_PUSH:
                if value > 1 or (value and self._peer_is_server):
                    raise ProtocolError(PROTOCOL_ERROR, f"SETTINGS_ENABLE_PUSH of {value}")
            elif name == MAX_CONCURRENT_STREAMS:
                self.max_streams = value
            elif name == INITIAL_WINDOW_SIZE:
                if value > LARGEST_WINDOW:
                    raise ProtocolError(FLOW_CONTROL_ERROR, f"SETTINGS_INITIAL_WINDOW_SIZE of {value}, above 2^31 - 1")
                self.initial_window = value
            elif name == MAX_FRAME_SIZE:
                if not DEFAULT_FRAME <= value < 2**24:
                    raise ProtocolError(
                        PROTOCOL_ERROR, f"SETTINGS_MAX_FRAME_SIZE of {value}, expected 16384 to 16777215"
                    )
                self.max_frame = min(value, LARGEST_CHUNK)
        return self.initial_window - before
