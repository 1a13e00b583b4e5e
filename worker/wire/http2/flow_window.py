"""Flow control: how many bytes of DATA may still be sent, on a connection or on one of its streams (RFC 9113, 6.9)."""

from worker.wire.http2.errors import ProtocolError
from worker.wire.http2.frames import DEFAULT_WINDOW, FLOW_CONTROL_ERROR, LARGEST_WINDOW, PROTOCOL_ERROR


class FlowWindow:
    """One window, as both of its ends count it.

    DATA consumes the window, padding included; a WINDOW_UPDATE of the receiver enlarges it. A change of the receiver's
    SETTINGS_INITIAL_WINDOW_SIZE shifts the windows of all streams, which may make them negative. The sender reads
    `size` before it sends and subtracts what it sent; the receiver calls `consume`, and grants `refill` when it has
    room for more.
    """

    __slots__ = ("full", "size")

    def __init__(self, size: int = DEFAULT_WINDOW) -> None:
        self.size = size
        self.full = size

    def consume(self, size: int) -> None:
        """Counts DATA received. Raises ProtocolError where the peer sent more than the window allowed."""
        self.size -= size
        if self.size < 0:
            raise ProtocolError(FLOW_CONTROL_ERROR, f"{-self.size} bytes of DATA more than the flow-control window")

    def enlarge(self, increment: int) -> None:
        """Applies a WINDOW_UPDATE. Raises ProtocolError for an increment of 0 and for a window above 2^31 - 1."""
        if increment == 0:
            raise ProtocolError(PROTOCOL_ERROR, "WINDOW_UPDATE with an increment of 0")
        self.shift(increment)

    def shift(self, change: int) -> None:
        """Adds a change of the initial window size. Raises ProtocolError for a window above 2^31 - 1."""
        self.size += change
        if self.size > LARGEST_WINDOW:
            raise ProtocolError(FLOW_CONTROL_ERROR, f"a flow-control window of {self.size} bytes, above 2^31 - 1")

    @property
    def half_used(self) -> bool:
        """Whether at most half of the full window is left."""
        return self.size <= self.full // 2

    def refill(self) -> int:
        """Makes the window full again; the increment of the WINDOW_UPDATE that tells the peer so, 0 for none."""
        increment = self.full - self.size
        self.size = self.full
        return increment
