"""TLS of a client: the certificates, and a session over memory buffers."""

import os
import ssl
import tempfile
from dataclasses import dataclass, field
from typing import Any

# Bytes of one read.
RECEIVE_BYTES = 262144


@dataclass(frozen=True)
class Security:
    """TLS, and mutual TLS with a certificate and its key, all PEM. `server_name` replaces the address's host."""

    root_ca: bytes | None = None
    client_cert: bytes | None = None
    client_key: bytes | None = field(default=None, repr=False)
    server_name: str | None = None

    def context(self) -> ssl.SSLContext:
        """The context of connections. Raises ValueError where a PEM text cannot be used."""
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


class TlsSession:
    """A client's TLS session over two memory buffers."""

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self.ended = False  # the peer has closed the session

    def handshake(self, tcp_socket: Any) -> None:
        """Performs the handshake on a gevent socket, blocking this greenlet only. Raises OSError."""
        while True:
            try:
                self._session.do_handshake()
            except ssl.SSLWantReadError:
                tcp_socket.sendall(self._outgoing.read())
                data = tcp_socket.recv(RECEIVE_BYTES)
                if not data:
                    raise ConnectionResetError("closed during the TLS handshake") from None
                self._incoming.write(data)
            except ssl.SSLError:
                tcp_socket.sendall(self._outgoing.read())  # the alert says to the server why
                raise
            else:
                break
        tcp_socket.sendall(self._outgoing.read())
        if self._session.selected_alpn_protocol() != "h2":
            raise ConnectionError("the server does not speak HTTP/2 over TLS (no ALPN h2)")

    def decrypt(self, data: bytes) -> bytes:
        """What these bytes of the socket say. Raises ssl.SSLError."""
        self._incoming.write(data)
        pieces = []
        try:
            while piece := self._session.read(RECEIVE_BYTES):
                pieces.append(piece)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        return b"".join(pieces)

    def encrypt(self, data: bytes) -> bytes:
        """The bytes for the socket."""
        if data:
            self._session.write(data)
        return self._outgoing.read()
