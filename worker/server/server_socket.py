"""The socket of one connection: bytes from the event loop into the protocol, and what it has to send, in one write."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any, Protocol, cast

from worker.server.connection import ServerConnection
from worker.server.request_headers import RequestHeadParser
from worker.wire import StatusCode
from worker.wire.http2 import BufferedBytes, PeerLimits

# Bytes that wait in the transport before the connection writes no more.
UNWRITTEN_BYTES = 262144
# For the peer to close after our last bytes, our GOAWAY among them.
LINGER_S = 1.0
# A peer that disappears without a packet is noticed after two minutes.
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6}


class SocketOwner(Protocol):
    """What the sockets of a server share."""

    limits: PeerLimits
    buffered: BufferedBytes
    parser: RequestHeadParser
    draining: bool

    def add_socket(self, server_socket: ServerSocket) -> bool:
        """Whether the server takes one more connection."""

    def remove_socket(self, server_socket: ServerSocket) -> None:
        """The socket is closed."""


class ServerSocket(asyncio.Protocol):
    """asyncio's protocol around a `ServerConnection`."""

    def __init__(self, owner: SocketOwner, tls: ssl.SSLContext | None) -> None:
        self._owner = owner
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._connection: ServerConnection | None = None
        self._scheduled = False  # a flush follows in this turn of the loop
        self._closing = False
        self._streaming_ended = False  # calls that may have no end of their own were ended
        self._progress_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = stream_transport = cast(asyncio.Transport, transport)
        if self._tls is not None and stream_transport.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            stream_transport.abort()
            return
        owner = self._owner
        if not owner.add_socket(self):
            stream_transport.abort()
            return
        _set_options(stream_transport.get_extra_info("socket"))
        stream_transport.set_write_buffer_limits(high=UNWRITTEN_BYTES)
        self._connection = ServerConnection(
            owner.parser, owner.limits, owner.buffered, cast(Any, self._loop), self._wake, _peer_name(stream_transport)
        )
        self._connection.open()
        self._time_progress()
        if owner.draining:
            self.drain()

    def data_received(self, data: bytes) -> None:
        connection = self._connection
        if connection is None or self._closing:
            return
        self._scheduled = True  # what is answered at once leaves with the flush below
        connection.receive(data)
        self._flush()
        if (self._progress_timer is None) == connection.awaits_peer:
            self._time_progress()

    def _time_progress(self) -> None:
        """Limits the time that the peer takes for its SETTINGS, or for the rest of a header block."""
        if self._progress_timer is not None:
            self._progress_timer.cancel()
            self._progress_timer = None
        if self._connection is not None and self._connection.awaits_peer:
            self._progress_timer = self._loop.call_later(self._owner.limits.progress_s, self.abort)

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        connection, transport = self._connection, self._transport
        if connection is None or transport is None or self._closing:
            return
        writer = connection.writer
        if connection.refusing and not self._streaming_ended:
            self._streaming_ended = True
            connection.streams.end_streaming(StatusCode.UNAVAILABLE, "the worker is shutting down")
        if writer.out:
            transport.write(writer.take())
        if writer.queue:
            writer.fill()  # which wakes us where there is more: reading gets its turn between two pieces
        elif connection.finished:
            self._close()

    def _close(self) -> None:
        if not self._closing and self._transport is not None:
            self._closing = True
            if self._transport.can_write_eof():
                # Closed at once, what the peer sends meanwhile would be answered by a reset, and could cost it our
                # last bytes: the peer closes first.
                self._transport.write_eof()
                self._loop.call_later(LINGER_S, self._transport.close)
            else:
                self._transport.close()
            if self._connection is not None and self._connection.error is not None:
                self._loop.call_later(2 * LINGER_S, self._transport.abort)

    def pause_writing(self) -> None:
        if self._connection is not None:
            self._connection.writer.blocked = True
            self._unread_timer = self._loop.call_later(self._owner.limits.unread_s, self.abort)

    def resume_writing(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
        if self._connection is not None:
            self._connection.writer.unblock()

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        for timer in (self._progress_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        if self._connection is not None:
            self._connection.close()
        # Each refers to the other: freed here, and not when the garbage collector finds them.
        self._connection = self._transport = None
        self._owner.remove_socket(self)

    # Called by the server when it ends.

    def drain(self) -> None:
        """Tells the client to begin nothing more."""
        if self._connection is not None:
            self._connection.drain()

    def refuse(self) -> None:
        """Begins no new stream."""
        if self._connection is not None:
            self._connection.refuse()

    def abort(self) -> None:
        """Ends the connection at once."""
        if self._transport is not None:
            self._transport.abort()


def _set_options(tcp_socket: Any) -> None:
    with contextlib.suppress(OSError):  # not on every system, not on every kind of socket
        tcp_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tcp_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                tcp_socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _peer_name(transport: asyncio.Transport) -> str:
    """The peer's address, as gRPC writes it."""
    address = transport.get_extra_info("peername") or ("unknown", 0)
    host, port = address[:2]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
