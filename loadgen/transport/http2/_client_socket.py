"""One connection's socket under gevent: connect, TLS, one `recv` a wake-up, one `send` a turn of the event loop.

The socket is watched from gevent's hub itself: no greenlet per connection, no switch per read. TLS runs over memory
buffers, so that both kinds read and write the same way.
"""

import socket
import ssl
from collections.abc import Callable
from typing import Any

import gevent
import gevent.socket
from gevent.monkey import get_original

from loadgen.transport.http2._connection import ClientConnection
from loadgen.transport.http2._tls import RECEIVE_BYTES, TlsSession
from worker.wire.http2 import ProtocolError

READ, WRITE = 1, 2  # libev's event bits


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port`. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


class ClientSocket:
    """A connected socket and its `ClientConnection`. `changed(socket)` is called after every read, and after a loss."""

    def __init__(self, connection: ClientConnection, changed: Callable[["ClientSocket"], None]) -> None:
        self.connection = connection
        self.loss: str | None = None
        """Why it was lost."""
        self.protocol_error = False
        self.received = self.sent = 0
        """Bytes on the wire."""
        self.scheduled = False
        """Whether a flush follows in this turn of the event loop."""
        self._changed = changed
        self._loop: Any = None
        self._socket: Any = None
        self._tls: TlsSession | None = None
        self._reading: Any = None
        self._writing: Any = None
        self._unsent: memoryview | None = None  # what the socket would not take; `_writing` is active
        self._write_failed = False

    def open(self, host: str, port: int, context: ssl.SSLContext | None, server_name: str, timeout_s: float) -> None:
        """Connects, blocking this greenlet only. Raises OSError or gevent.Timeout."""
        tcp_socket = gevent.socket.create_connection((host, port), timeout_s)
        try:
            tcp_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                self._tls = TlsSession(context, server_name)
                self._tls.handshake(tcp_socket)
            family, kind, protocol = tcp_socket.family, tcp_socket.type, tcp_socket.proto
            # gevent's socket waits by itself; from here on the hub's watchers do.
            self._socket = get_original("socket", "socket")(family, kind, protocol, fileno=tcp_socket.detach())
        except BaseException:
            tcp_socket.close()
            raise
        self._socket.setblocking(False)
        self._loop = gevent.get_hub().loop
        self._reading = self._loop.io(self._socket.fileno(), READ)
        self._writing = self._loop.io(self._socket.fileno(), WRITE)
        self._reading.start(self._readable)
        if self._tls is not None:
            self._receive(b"")  # what came along with the handshake's last bytes
        self.flush()

    def schedule(self) -> None:
        """Sends what has collected once this loop turn's greenlets have run."""
        if not self.scheduled:
            self.scheduled = True
            self._loop.run_callback(self.flush)

    def flush(self) -> None:
        """Sends what has collected now."""
        self.scheduled = False
        connection = self.connection
        if self._unsent is not None or self._socket is None or not connection.writer.out:
            return
        data = connection.writer.take()
        if self._write_failed:
            return
        if self._tls is not None:
            data = self._tls.encrypt(data)
        self._write(memoryview(data))
        if self._unsent is None and connection.writer.queue:
            connection.writer.fill()
            if connection.writer.out:
                self.schedule()  # not at once: reading gets its turn between two pieces of a large request

    def _write(self, data: memoryview) -> None:
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            # Replies may still lie in the receive buffer: reading them comes to the same error, after them.
            self._write_failed = True
            sent = len(data)
        self.sent += sent
        if sent < len(data):
            self._unsent = data[sent:]
            self.connection.writer.blocked = True
            if not self._writing.active:
                self._writing.start(self._writable)
        else:
            self._unsent = None
            if self._writing.active:
                self._writing.stop()

    def _writable(self) -> None:
        if self._unsent is not None:
            self._write(self._unsent)
        if self._unsent is None and self._socket is not None:
            self.connection.writer.unblock()
            self.flush()

    def _readable(self) -> None:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(f"the connection broke: {error.strerror or error}")
            return
        if not data:
            self.fail("the server closed the connection")
            return
        self.received += len(data)
        self._receive(data)

    def _receive(self, data: bytes) -> None:
        self.scheduled = True  # whatever the replies start leaves with the flush below
        try:
            if self._tls is not None:
                data = self._tls.decrypt(data)
            self.connection.receive(data)
        except ProtocolError as error:
            self.protocol_error = True
            self.flush()
            self.fail(f"the server violated HTTP/2: {error}")
        except ssl.SSLError as error:
            self.fail(f"TLS failed: {error.reason or error}")
        except BaseException:
            # Ctrl-C within a reply: nobody knows which of the bytes were read, so the connection ends.
            self.fail("interrupted while reading")
            raise
        else:
            if self._tls is not None and self._tls.ended:
                self.fail("the server closed the TLS session")
                return
            self._changed(self)
            self.flush()

    def fail(self, reason: str) -> None:
        """Ends the connection; its calls end with this reason."""
        if self._socket is None:
            return  # closed meanwhile, by a call's `done`
        self.loss = reason
        self.close()
        self._changed(self)

    def close(self) -> None:
        """Closes the socket, once. The calls in flight are not ended here."""
        if self._socket is None:
            return
        for watcher in (self._reading, self._writing):
            watcher.stop()
            watcher.close()
        self._socket.close()
        self._socket = None
