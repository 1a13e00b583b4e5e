"""One connection's socket: bytes from the event loop into the protocol, and what it has to say back, in one write."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Any, cast

from worker.server.connection import Connection
from worker.server.status import UNAVAILABLE

if TYPE_CHECKING:
    from worker.server.server import Server

# What waits in the transport before the protocol hands out no more.
UNWRITTEN = 262144
# For the peer to close after our last bytes, our GOAWAY among them.
LINGER_S = 1.0
# A peer that is gone without a word is noticed after two minutes.
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6}


class Link(asyncio.Protocol):
    """asyncio's protocol around a `Connection`."""

    def __init__(self, server: Server, tls: ssl.SSLContext | None) -> None:
        self._server = server
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._connection: Connection | None = None
        self._scheduled = False
        self._closing = False
        self._cut = False  # what the server streams was ended, because the connection ends
        self._patience: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = made = cast(asyncio.Transport, transport)
        if self._tls is not None and made.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            made.abort()
            return
        if not self._server.opened(self):
            made.abort()
            return
        _set_options(made.get_extra_info("socket"))
        made.set_write_buffer_limits(high=UNWRITTEN)
        limits = self._server.limits
        self._connection = Connection(
            self._server.router, limits, self._server.held, cast(Any, self._loop), self._wake, _name(made)
        )
        self._connection.open()
        self._expect_progress()
        if self._server.draining:
            self.drain()

    def data_received(self, data: bytes) -> None:
        connection = self._connection
        if connection is None or self._closing:
            return
        self._scheduled = True  # what is answered at once leaves with the flush below
        connection.feed(data)
        self._flush()
        if (self._patience is None) == (connection.in_header_block or not connection.settled):
            self._expect_progress()

    def _expect_progress(self) -> None:
        """Gives the peer a while for its SETTINGS, or the rest of a header block."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        connection = self._connection
        if connection is not None and (connection.in_header_block or not connection.settled):
            self._patience = self._loop.call_later(self._server.limits.patience_s, self.abort)

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        connection, transport = self._connection, self._transport
        if connection is None or transport is None or self._closing:
            return
        if connection.refusing and not self._cut:
            self._cut_off(connection)
        if connection.out:
            transport.write(connection.take())
        if connection.waiting:
            connection.fill()  # which wakes us where there is more: reading gets its turn between two pieces
        elif connection.broken is not None or (connection.refusing and not connection.streams):
            self._close()

    def _close(self) -> None:
        if not self._closing and self._transport is not None:
            self._closing = True
            broken = self._connection is not None and self._connection.broken is not None
            if self._transport.can_write_eof():
                # Closed at once, what the peer says meanwhile would be answered by a reset, and could cost it our
                # last bytes: it is left to close first.
                self._transport.write_eof()
                self._loop.call_later(LINGER_S, self._transport.close)
            else:
                self._transport.close()
            if broken:
                self._loop.call_later(2 * LINGER_S, self._transport.abort)

    def pause_writing(self) -> None:
        if self._connection is not None:
            self._connection.paused = True
            self._unread = self._loop.call_later(self._server.limits.unread_s, self.abort)

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        if self._connection is not None:
            self._connection.resumed()

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        for timer in (self._patience, self._unread):
            if timer is not None:
                timer.cancel()
        if self._connection is not None:
            self._connection.abandon()
        # Each knows the other: freed here, and not when the collector comes to it.
        self._connection = self._transport = None
        self._server.closed(self)

    # How the server ends it.

    def drain(self) -> None:
        if self._connection is not None:
            self._connection.drain()

    def _cut_off(self, connection: Connection) -> None:
        """What streams between us and a client that has heard our goodbye may have no end of its own."""
        self._cut = True
        for stream in list(connection.streams.values()):
            method = stream.route.method
            if stream.receiver is not None:
                stream.receiver.half_closed()
            elif method is not None and method.response_streaming:
                stream.abandon()
                stream.fail(UNAVAILABLE, "the worker is ending")

    def refuse(self) -> None:
        if self._connection is not None:
            self._connection.refuse()

    def abort(self) -> None:
        """Ends the connection without another word."""
        if self._transport is not None:
            self._transport.abort()


def _set_options(connected: Any) -> None:
    with contextlib.suppress(OSError):  # not on every system, not on every kind of socket
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _name(transport: asyncio.Transport) -> str:
    """As gRPC names a peer."""
    address = transport.get_extra_info("peername") or ("unknown", 0)
    host, port = address[:2]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
