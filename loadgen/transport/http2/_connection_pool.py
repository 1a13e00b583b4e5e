"""The connections of one channel: opened when needed, replaced when they end or drain, with a backoff where that fails.

A connection counts as up once the server's SETTINGS have come, as in gRPC. The backoff grows from 0.1 s to 5 s, with
jitter, and starts over with the first reply: a server that only takes connections is not hammered.
"""

import dataclasses
import functools
import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.event import Event

from loadgen._reply import UNAVAILABLE, ConnectionLost, Reply
from loadgen.transport.http2._client_socket import ClientSocket
from loadgen.transport.http2._connection import ClientConnection
from loadgen.transport.http2._reply_headers import ReplyHead
from worker.wire.http2 import NO_ERROR, BlockCache

FIRST_BACKOFF_S, BACKOFF_FACTOR, LONGEST_BACKOFF_S, BACKOFF_JITTER = 0.1, 1.6, 5.0, 0.2


@dataclass(slots=True)
class Statistics:
    """Counters of a channel's connections since it was created. Bytes are those on the wire, TLS included."""

    connects: int = 0
    """Connections on which the server's SETTINGS came."""
    reconnects: int = 0
    """Those of them that replaced one which was lost or going away."""
    failed_connects: int = 0
    broken: int = 0
    """Connections that were lost, calls in flight or not."""
    protocol_errors: int = 0
    """Those of them that we ended because the server violated HTTP/2."""
    goaways: int = 0
    refused: int = 0
    """Calls that a GOAWAY excluded: UNAVAILABLE."""
    resets: int = 0
    """Calls that ended with the server's RST_STREAM."""
    stray_frames: int = 0
    """Frames for calls that had already ended, as after a deadline."""
    deadlines: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


@dataclass(frozen=True)
class Destination:
    """Where a channel's connections go."""

    host: str
    port: int
    context: ssl.SSLContext | None
    server_name: str
    connect_timeout_s: float


class _Slot:
    """The place of one of the channel's connections."""

    def __init__(self) -> None:
        self.socket: ClientSocket | None = None
        self.pending: ClientSocket | None = None  # connecting, up to the server's SETTINGS
        self.connecting: Any = None  # the greenlet that does it
        self.settled: Any = None  # set when `pending` is up or lost
        self.served = False  # a connection of this slot has been up
        self.failures = 0
        self.retry_at = 0.0


class ConnectionPool:
    """A fixed number of connections. `changed` is called after every change that matters to a call without a stream:
    one may be free, or none may come any more."""

    def __init__(
        self,
        destination: Destination,
        connections: int,
        max_receive_bytes: int,
        changed: Callable[[], None],
        report: Callable[[], None],
    ) -> None:
        self.ready: list[ClientSocket] = []
        self.down = connections  # slots that are neither connected nor connecting
        self.reason = "not connected"  # of the last loss or failure
        self.counts = Statistics()
        self._destination = destination
        self._max_receive_bytes = max_receive_bytes
        self._pool_changed = changed
        self._report = report
        self._cache: BlockCache[ReplyHead] = BlockCache()
        self._slots = [_Slot() for _ in range(connections)]
        self._draining: set[ClientSocket] = set()  # their calls finish, none starts

    def sockets(self) -> list[ClientSocket]:
        """All connections: up, draining, and being made."""
        pending = [slot.pending for slot in self._slots if slot.pending is not None]
        return [*self.ready, *self._draining, *pending]

    def may_connect(self) -> bool:
        """Whether a waiting call may still get a stream."""
        return bool(self.ready) or any(slot.connecting is not None for slot in self._slots)

    @property
    def disconnected(self) -> bool:
        """Whether there were connections and none of them is left."""
        return not self.ready and any(slot.served for slot in self._slots)

    def ping(self) -> list[ClientSocket]:
        """Sends a PING on every connection; returns those it was sent on."""
        for socket in self.ready:
            socket.connection.ping()
            socket.schedule()
        return list(self.ready)

    def reset_backoff(self) -> None:
        """Lets the next call connect what is down."""
        for slot in self._slots:
            slot.failures, slot.retry_at = 0, 0.0

    def drop(self, sockets: list[ClientSocket], reason: str) -> None:
        """Ends those of these connections that are still open; the server may have executed the calls on them."""
        for socket in sockets:
            if socket in self.ready or socket in self._draining:
                socket.fail(reason)

    def reconnect(self) -> None:
        """Connects what is down and whose backoff is over."""
        now = time.monotonic()
        for slot in self._slots:
            if slot.socket is None and slot.connecting is None and now >= slot.retry_at:
                self.down -= 1
                slot.connecting = gevent.spawn(self._connect, slot)

    def _connect(self, slot: _Slot) -> None:
        """One attempt, up to the server's SETTINGS."""
        connection = ClientConnection(self._cache, self._max_receive_bytes, self._report)
        slot.pending = socket = ClientSocket(connection, functools.partial(self._changed, slot))
        slot.settled = settled = Event()
        to = self._destination
        timeout = gevent.Timeout(to.connect_timeout_s)
        reason: str | None
        try:
            with timeout:
                socket.open(to.host, to.port, to.context, to.server_name, to.connect_timeout_s)
                settled.wait()
            reason = socket.loss
        except gevent.Timeout as error:
            if error is not timeout:
                raise
            reason = f"no HTTP/2 SETTINGS within {to.connect_timeout_s} s"
        except (OSError, UnicodeError) as error:
            reason = f"cannot connect: {getattr(error, 'strerror', None) or error}"
        finally:
            if slot.pending is socket:
                socket.close()
        if reason is not None and slot.pending is socket:
            self.counts.failed_connects += 1
            self.counts.protocol_errors += socket.protocol_error
            _add(self.counts, socket)
            slot.pending = slot.connecting = None
            self.down += 1
            self.reason = reason
            self._back_off(slot)
            self._pool_changed()

    def _changed(self, slot: _Slot, socket: ClientSocket) -> None:
        """Called after every read of a connection, and after its loss."""
        connection = socket.connection
        if slot.pending is socket and slot.settled is not None:
            if connection.settled and socket.loss is None:
                slot.socket, slot.pending, slot.connecting = socket, None, None
                self.ready.append(socket)
                self.counts.connects += 1
                self.counts.reconnects += slot.served
                slot.served = True
                slot.settled.set()
            elif socket.loss is not None:
                slot.settled.set()
                return
        if socket.loss is not None:
            self._lose(slot, socket, socket.loss)
        elif connection.calls.draining:
            self._retire(slot, socket)
        elif slot.failures and connection.calls.answered:
            slot.failures = 0
        self._pool_changed()

    def retire_drained(self) -> None:
        """Retires connections whose stream numbers have run out, which no read shows."""
        for slot in self._slots:
            if slot.socket is not None and slot.socket.connection.calls.draining:
                self._retire(slot, slot.socket)

    def _retire(self, slot: _Slot, socket: ClientSocket) -> None:
        """A connection that takes no new calls: it stays until those in flight are over."""
        if socket in self.ready:
            self.ready.remove(socket)
            self._draining.add(socket)
            self._vacate(slot, socket, "the server is going away")
        self.close_if_idle(socket)

    def close_if_idle(self, socket: ClientSocket) -> None:
        """Closes a draining connection that has no calls left."""
        if not socket.connection.calls.streams and socket in self._draining:
            self._draining.remove(socket)
            socket.flush()
            socket.close()
            _add(self.counts, socket)

    def _lose(self, slot: _Slot, socket: ClientSocket, reason: str) -> None:
        was_ready = socket in self.ready
        if was_ready:
            self.ready.remove(socket)
        self._draining.discard(socket)
        self.counts.broken += was_ready or bool(socket.connection.calls.streams)
        self.counts.protocol_errors += socket.protocol_error
        _add(self.counts, socket)
        if was_ready:
            self._vacate(slot, socket, reason)
        socket.connection.calls.abandon(ConnectionLost(UNAVAILABLE, reason))

    def _vacate(self, slot: _Slot, socket: ClientSocket, reason: str) -> None:
        slot.socket = None
        self.down += 1
        self.reason = reason
        if not socket.connection.calls.answered:
            self._back_off(slot)  # a server that takes connections and answers nothing is not hammered

    @staticmethod
    def _back_off(slot: _Slot) -> None:
        delay = min(FIRST_BACKOFF_S * BACKOFF_FACTOR**slot.failures, LONGEST_BACKOFF_S)
        slot.failures = min(slot.failures + 1, 32)
        slot.retry_at = time.monotonic() + delay * random.uniform(1 - BACKOFF_JITTER, 1 + BACKOFF_JITTER)

    def statistics(self) -> Statistics:
        """A copy of the counters as they stand."""
        total = dataclasses.replace(self.counts)
        for socket in self.sockets():
            _add(total, socket)
        return total

    def close(self, reply: Reply) -> None:
        """Ends every connection, and every call on them with this reply."""
        self.down = 0
        sockets = self.sockets()
        self.ready.clear()
        self._draining.clear()
        for slot in self._slots:
            if slot.connecting is not None:
                slot.connecting.kill(block=False)
            slot.socket = slot.connecting = slot.pending = None
        for socket in sockets:
            socket.connection.writer.go_away(0, NO_ERROR)
            socket.flush()
            socket.close()
            _add(self.counts, socket)
            socket.connection.calls.abandon(reply)


def _add(total: Statistics, socket: ClientSocket) -> None:
    calls = socket.connection.calls
    total.goaways += calls.goaways
    total.refused += calls.refused
    total.resets += calls.resets
    total.stray_frames += calls.stray
    total.bytes_sent += socket.sent
    total.bytes_received += socket.received
