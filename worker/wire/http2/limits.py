"""What a peer may cost: the table of limits, and the counters that hold one connection to it."""

from collections.abc import Callable
from dataclasses import dataclass

from worker.wire.http2.errors import ProtocolError
from worker.wire.http2.frames import DEFAULT_FRAME, ENHANCE_YOUR_CALM

# Cost of some frames in idle frames: SETTINGS touches every stream, a stream that is refused had its headers decoded.
SETTINGS_WEIGHT = 50
REFUSED_STREAM_WEIGHT = 10


@dataclass(frozen=True)
class PeerLimits:
    """The table of limits. Bytes are of memory that the peer's frames hold; seconds are of the connection's clock.

    A peer above a limit of the first group is answered for the stream alone (RST_STREAM or a gRPC status); above any
    other, its connection ends: with GOAWAY and ENHANCE_YOUR_CALM, or without a word where it does not read.
    """

    # Of one stream, or one call.
    streams: int = 1024  # open at once on a connection; each holds at most one timer, its deadline
    message_bytes: int = 256 * 2**20  # of one message, compressed or not
    buffered_bytes: int = 2**30  # of incomplete messages and of those not yet read, over all connections of a process
    stream_window: int = 4 * 2**20  # DATA of one stream that its handler has not read

    # Of one frame, or one header block.
    frame_bytes: int = 65536  # of a frame's payload; a frame that is not complete is held in memory
    header_list_bytes: int = 16384  # of header fields as RFC 9113, 6.5.2 counts them; a block has at most twice that
    continuations: int = 64  # frames of one header block

    # Of one connection.
    connection_window: int = 16 * 2**20  # DATA of all streams between two reads of the socket
    idle_frames: int = 10000  # that advance no call, in `period_s`, while no reply is sent
    rapid_resets: int = 1000  # streams opened and reset, by either side, within one read of the socket, in `period_s`
    period_s: float = 10.0
    small_data_bytes: int = 64  # a DATA frame of less, other than a stream's last, is an idle frame
    unread_answers: int = 1000  # to SETTINGS, PING and refused streams, while the peer reads none of them
    progress_s: float = 20.0  # for the first SETTINGS, for the TLS handshake, and for the rest of a header block
    unread_s: float = 60.0  # for a peer that reads nothing while something waits for it

    # Of a server.
    connections: int = 4096

    def __post_init__(self) -> None:
        if self.frame_bytes < DEFAULT_FRAME:
            raise ValueError(f"frame_bytes is {self.frame_bytes}, expected at least {DEFAULT_FRAME}")


class BufferedBytes:
    """Bytes of messages in memory, over all connections that share this."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0


class ConnectionLimits:
    """Counts what the peer of one connection costs. A method raises ProtocolError where a limit is passed."""

    __slots__ = (
        "_clock",
        "_idle_since",
        "_process",
        "_resets_since",
        "_unread_answers",
        "buffered",
        "idle",
        "resets",
        "table",
    )

    def __init__(self, table: PeerLimits, clock: Callable[[], float], process: BufferedBytes | None = None) -> None:
        self.table = table
        self.idle = 0  # idle frames since the period began or a reply was sent
        self.resets = 0  # rapid resets since their period began
        self.buffered = 0  # bytes of messages of this connection
        self._process = process or BufferedBytes()
        self._clock = clock
        self._idle_since = self._resets_since = clock()
        self._unread_answers = 0

    def idle_frame(self, weight: int = 1) -> None:
        """Counts a frame that advances no call."""
        self.idle += weight
        if self.idle > self.table.idle_frames:
            now = self._clock()
            if now - self._idle_since < self.table.period_s:
                raise ProtocolError(ENHANCE_YOUR_CALM, "too many frames that advance no call")
            self.idle, self._idle_since = 0, now

    def rapid_reset(self) -> None:
        """Counts a stream that was opened and reset, by either side, within one read of the socket (CVE-2023-44487)."""
        self.resets += 1
        if self.resets > self.table.rapid_resets:
            now = self._clock()
            if now - self._resets_since < self.table.period_s:
                raise ProtocolError(ENHANCE_YOUR_CALM, "too many streams that are reset as they are opened")
            self.resets, self._resets_since = 0, now

    def unread_answer(self) -> None:
        """Counts an answer that waits for a peer which reads nothing at present."""
        self._unread_answers += 1
        if self._unread_answers > self.table.unread_answers:
            raise ProtocolError(ENHANCE_YOUR_CALM, "the peer requests answers and does not read them")

    def answers_read(self) -> None:
        """The peer reads again."""
        self._unread_answers = 0

    def buffer(self, size: int) -> None:
        """Counts bytes of a message that are held in memory; a negative size releases them."""
        self.buffered += size
        self._process.total += size

    @property
    def buffer_full(self) -> bool:
        """Whether the process holds more bytes of messages than it may."""
        return self._process.total > self.table.buffered_bytes
