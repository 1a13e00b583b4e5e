"""The server: which methods there are, the sockets it listens on, its connections, and how it ends."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from worker.server.calls import method
from worker.server.headers import Metadata, Method, Router
from worker.server.sending import Held, Limits
from worker.server.socket import Link

BACKLOG = 1024
# For the client to say that it has heard our first GOAWAY.
HEARD_S = 1.0
# For servicers whose call was cancelled, to end.
LAST_S = 1.0


class HandlerCallDetails(NamedTuple):
    """What grpc.GenericRpcHandler asks its question with."""

    method: str
    invocation_metadata: Metadata


class Server:
    """Serves generic handlers, as grpc.aio's server does, and methods begun directly. Belongs to one event loop."""

    def __init__(
        self,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        authorized: Callable[[str, Metadata], bool] = lambda path, metadata: True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self._handlers: list[Any] = []
        self._methods: dict[str, Method] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._links: set[Link] = set()
        self._listening: list[asyncio.Server] = []
        self.router = Router(self._find, authorized)
        self.limits = limits
        self.held = Held()
        self.draining = False
        self._empty: asyncio.Future[None] | None = None

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        self._handlers += handlers

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """Part of what generated code calls; the generic handlers say the same."""

    def add_unary(self, path: str, begin: Callable[[Any, bytes], None]) -> None:
        """A method without a task: `begin` gets the stream and the request's bytes, and sees that it is answered."""
        self._methods[path] = Method(begin)

    def _find(self, path: str, metadata: Metadata) -> Method | None:
        found = self._methods.get(path)
        if found is None:
            for handlers in self._handlers:
                handler = handlers.service(HandlerCallDetails(path, metadata))
                if handler is not None:
                    found = self._methods[path] = method(handler, self._tasks)
                    break
        return found

    async def listen(self, host: str, port: int) -> int:
        """Listens on every address of `host`; the port. OSError where it is taken or cannot be bound."""
        loop = asyncio.get_running_loop()
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                listener = socket.socket(family, kind, protocol)
                try:
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    listener.bind((address[0], port, *address[2:]))
                    listener.setblocking(False)
                    port = listener.getsockname()[1]
                    made = await loop.create_server(
                        lambda: Link(self, self._tls), sock=listener, backlog=BACKLOG, **self._secure()
                    )
                except BaseException:
                    listener.close()
                    raise
            except OSError as error:
                if self._listening and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    continue  # a second address of the name, which this host does not have
                raise
            self._listening.append(made)
        return port

    def _secure(self) -> dict[str, Any]:
        if self._tls is None:
            return {}
        return {"ssl": self._tls, "ssl_handshake_timeout": self.limits.patience_s}

    # How it ends.

    async def drain(self) -> None:
        """Takes nothing new, and returns once every call has ended. Requests that are a stream end where they are;
        replies that are a stream, and wait for something to tell, are cut off with UNAVAILABLE."""
        loop = asyncio.get_running_loop()
        self.draining = True
        for server in self._listening:
            server.close()
        if self._links:
            self._empty = loop.create_future()
            for link in list(self._links):
                link.drain()
            told = loop.call_later(HEARD_S, self._refuse)
            try:
                await self._empty
            finally:
                told.cancel()

    def _refuse(self) -> None:
        for link in list(self._links):
            link.refuse()

    async def stop(self) -> None:
        """Ends every connection now; its calls are cancelled."""
        for server in self._listening:
            server.close()
        for link in list(self._links):
            link.abort()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_S)

    # What links say.

    def opened(self, link: Link) -> bool:
        """False where there are too many already."""
        if len(self._links) >= self.limits.connections:
            return False
        self._links.add(link)
        return True

    def closed(self, link: Link) -> None:
        self._links.discard(link)
        if not self._links and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)
