"""The gRPC server: its methods, the sockets it listens on, its connections, and how it ends."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from worker.server.request_headers import Metadata, Method, RequestHeadParser
from worker.server.server_socket import ServerSocket
from worker.server.servicer_context import servicer_method
from worker.wire.http2 import BufferedBytes, PeerLimits

BACKLOG = 1024
# For a client to answer the PING after our first GOAWAY.
GOAWAY_READ_S = 1.0
# For servicers whose call was cancelled, to end.
CANCELLED_S = 1.0


class HandlerCallDetails(NamedTuple):
    """The argument of grpc.GenericRpcHandler's `service`."""

    method: str
    invocation_metadata: Metadata


class GrpcServer:
    """Serves generic handlers, as grpc.aio's server does, and methods begun directly. Belongs to one event loop."""

    def __init__(
        self,
        limits: PeerLimits = PeerLimits(),  # noqa: B008 - frozen
        authorized: Callable[[str, Metadata], bool] = lambda path, metadata: True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`authorized(path, metadata)` says whether a call may be made."""
        self._tls = tls
        self._handlers: list[Any] = []
        self._methods: dict[str, Method] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets: set[ServerSocket] = set()
        self._listeners: list[asyncio.Server] = []
        self._empty: asyncio.Future[None] | None = None
        self.parser = RequestHeadParser(self._find_method, authorized, limits.header_list_bytes)
        self.limits = limits
        self.buffered = BufferedBytes()
        self.draining = False

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """Adds grpc.GenericRpcHandlers."""
        self._handlers += handlers

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """Generated code calls this too; its methods are those of the generic handlers."""

    def add_unary(self, path: str, begin: Callable[[Any, bytes], None]) -> None:
        """Adds a method without a task: `begin(stream, message)` has to see that the stream is answered."""
        self._methods[path] = Method(begin)

    def _find_method(self, path: str, metadata: Metadata) -> Method | None:
        method = self._methods.get(path)
        if method is None:
            for handlers in self._handlers:
                handler = handlers.service(HandlerCallDetails(path, metadata))
                if handler is not None:
                    method = self._methods[path] = servicer_method(handler, self._tasks)
                    break
        return method

    async def listen(self, host: str, port: int) -> int:
        """Listens on every address of `host`; returns the port. Raises OSError where it is taken or cannot be bound."""
        loop = asyncio.get_running_loop()
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(addresses):
            try:
                tcp_socket = socket.socket(family, kind, protocol)
                try:
                    tcp_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    tcp_socket.bind((address[0], port, *address[2:]))
                    tcp_socket.setblocking(False)
                    port = tcp_socket.getsockname()[1]
                    listener = await loop.create_server(
                        lambda: ServerSocket(self, self._tls), sock=tcp_socket, backlog=BACKLOG, **self._tls_arguments()
                    )
                except BaseException:
                    tcp_socket.close()
                    raise
            except OSError as error:
                if self._listeners and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    continue  # a second address of the name, which this host does not have
                raise
            self._listeners.append(listener)
        return port

    def _tls_arguments(self) -> dict[str, Any]:
        if self._tls is None:
            return {}
        return {"ssl": self._tls, "ssl_handshake_timeout": self.limits.progress_s}

    # How it ends.

    async def drain(self) -> None:
        """Takes nothing new, and returns once every call has ended. Streaming requests end where they are; streaming
        replies that are still open then end with UNAVAILABLE."""
        loop = asyncio.get_running_loop()
        self.draining = True
        for listener in self._listeners:
            listener.close()
        if self._sockets:
            self._empty = loop.create_future()
            for server_socket in list(self._sockets):
                server_socket.drain()
            timer = loop.call_later(GOAWAY_READ_S, self._refuse)
            try:
                await self._empty
            finally:
                timer.cancel()

    def _refuse(self) -> None:
        for server_socket in list(self._sockets):
            server_socket.refuse()

    async def stop(self) -> None:
        """Ends every connection now; its calls are cancelled."""
        for listener in self._listeners:
            listener.close()
        for server_socket in list(self._sockets):
            server_socket.abort()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CANCELLED_S)

    # Called by the sockets.

    def add_socket(self, server_socket: ServerSocket) -> bool:
        """Adds a connection; False where there are too many already."""
        if len(self._sockets) >= self.limits.connections:
            return False
        self._sockets.add(server_socket)
        return True

    def remove_socket(self, server_socket: ServerSocket) -> None:
        """Removes a connection."""
        self._sockets.discard(server_socket)
        if not self._sockets and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)
