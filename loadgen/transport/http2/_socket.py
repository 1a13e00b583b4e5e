"""One connection's socket under gevent: connect, TLS, one `recv` a wake-up, one `send` a loop turn.

The socket is watched from gevent's hub itself: no greenlet per connection, no switch per read. TLS runs over memory
buffers, so that both kinds read and write the same way.
"""

import os
import socket
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gevent
import gevent.socket
from gevent.monkey import get_original

from loadgen.transport.http2._connection import Connection
from worker.wire.http2.frames import ProtocolError

RECEIVE = 262144
READ, WRITE = 1, 2  # libev's event bits


@dataclass(frozen=True)
class Security:
    """TLS, and mutual TLS with a certificate and its key; all PEM. `server_name` stands in for the address's host."""

    root_ca: bytes | None = None
    client_cert: bytes | None = None
    client_key: bytes | None = field(default=None, repr=False)
    server_name: str | None = None

    def context(self) -> ssl.SSLContext:
        """Raises ValueError where the PEM texts are not what they should be."""
        if (self.client_cert is None) != (self.client_key is None):
            raise ValueError("mutual TLS needs both a client certificate and its key")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        try:
            if self.root_ca is None:
                context.load_default_certs()
            else:
                context.load_verify_locations(cadata=self.root_ca.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(f"the root certificates are not PEM: {error}") from None
        if self.client_cert is not None and self.client_key is not None:
            self._load_client(context, self.client_cert, self.client_key)
        return context

    @staticmethod
    def _load_client(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
        # The ssl module reads these from files only; mkstemp's are readable by this user alone.
        handle, path = tempfile.mkstemp(suffix=".pem")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(certificate + b"\n" + key)
            context.load_cert_chain(path, password=lambda: b"")  # an encrypted key fails instead of asking
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(f"the client's certificate and key do not fit: {error}") from None
        finally:
            os.unlink(path)


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port`. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


class _Tls:
    """A TLS session over two memory buffers."""

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self.ended = False  # the peer has closed the session

    def handshake(self, connected: Any) -> None:
        while True:
            try:
                self._session.do_handshake()
            except ssl.SSLWantReadError:
                connected.sendall(self._outgoing.read())
                data = connected.recv(RECEIVE)
                if not data:
                    raise ConnectionResetError("closed during the TLS handshake") from None
                self._incoming.write(data)
            except ssl.SSLError:
                connected.sendall(self._outgoing.read())  # the alert says to the server why
                raise
            else:
                break
        connected.sendall(self._outgoing.read())
        if self._session.selected_alpn_protocol() != "h2":
            raise ConnectionError("the server does not speak HTTP/2 over TLS (no ALPN h2)")

    def decrypt(self, data: bytes) -> bytes:
        self._incoming.write(data)
        pieces = []
        try:
            while piece := self._session.read(RECEIVE):
                pieces.append(piece)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        return b"".join(pieces)

    def encrypt(self, data: bytes) -> bytes:
        if data:
            self._session.write(data)
        return self._outgoing.read()


class Link:
    """A connected socket and its `Connection`. `changed(link)` follows whatever the channel may have to act upon."""

    def __init__(self, connection: Connection, changed: Callable[["Link"], None]) -> None:
        self.connection = connection
        self.lost: str | None = None  # why it is gone
        self.broke_protocol = False
        self.received = self.sent = 0  # bytes on the wire
        self.scheduled = False  # a flush is due in this loop turn
        self._changed = changed
        self._loop: Any = None
        self._socket: Any = None
        self._tls: _Tls | None = None
        self._reading: Any = None
        self._writing: Any = None
        self._unsent: memoryview | None = None  # what the socket would not take; `_writing` is active
        self._deaf = False  # the peer takes nothing any more

    def open(self, host: str, port: int, context: ssl.SSLContext | None, server_name: str, timeout_s: float) -> None:
        """Connects, blocking this greenlet only. Raises OSError or gevent.Timeout."""
        connected = gevent.socket.create_connection((host, port), timeout_s)
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                self._tls = _Tls(context, server_name)
                self._tls.handshake(connected)
            family, kind, protocol = connected.family, connected.type, connected.proto
            # gevent's socket waits by itself; from here on the hub's watchers do.
            self._socket = get_original("socket", "socket")(family, kind, protocol, fileno=connected.detach())
        except BaseException:
            connected.close()
            raise
        self._socket.setblocking(False)
        self._loop = gevent.get_hub().loop
        self._reading = self._loop.io(self._socket.fileno(), READ)
        self._writing = self._loop.io(self._socket.fileno(), WRITE)
        self._reading.start(self._readable)
        if self._tls is not None:
            self._take_in(b"")  # what came along with the handshake's last bytes
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
        if self._unsent is not None or self._socket is None or not connection.out:
            return
        data = connection.take()
        if self._deaf:
            return
        if self._tls is not None:
            data = self._tls.encrypt(data)
        self._write(memoryview(data))
        if self._unsent is None and connection.uploading:
            connection.fill()
            if connection.out:
                self.schedule()  # not at once: reading gets its turn between two pieces of an upload

    def _write(self, data: memoryview) -> None:
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            # Replies may still lie in the receive buffer: reading them comes to the same error, after them.
            self._deaf = True
            sent = len(data)
        self.sent += sent
        if sent < len(data):
            self._unsent = data[sent:]
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
            if self.connection.uploading:
                self.connection.fill()
            self.flush()

    def _readable(self) -> None:
        try:
            data = self._socket.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(f"the connection broke: {error.strerror or error}")
            return
        if not data:
            self._fail("the server closed the connection")
            return
        self.received += len(data)
        self._take_in(data)

    def _take_in(self, data: bytes) -> None:
        self.scheduled = True  # whatever the replies start leaves with the flush below
        try:
            if self._tls is not None:
                data = self._tls.decrypt(data)
            self.connection.feed(data)
        except ProtocolError as error:
            self.broke_protocol = True
            self.flush()
            self._fail(f"the server broke HTTP/2: {error}")
        except ssl.SSLError as error:
            self._fail(f"TLS failed: {error.reason or error}")
        except BaseException:
            # Ctrl-C in the middle of a reply: the rest of the bytes is not known to be read, so the connection ends.
            self._fail("interrupted while reading")
            raise
        else:
            if self._tls is not None and self._tls.ended:
                self._fail("the server closed the TLS session")
                return
            self._changed(self)
            self.flush()

    def _fail(self, why: str) -> None:
        if self._socket is None:
            return  # closed meanwhile, out of a reply
        self.lost = why
        self.close()
        self._changed(self)

    def fail(self, why: str) -> None:
        """Ends the connection from this side; its calls end with the reason."""
        self._fail(why)

    def close(self) -> None:
        """Idempotent. The calls in flight are the channel's to end."""
        if self._socket is None:
            return
        for watcher in (self._reading, self._writing):
            watcher.stop()
            watcher.close()
        self._socket.close()
        self._socket = None
