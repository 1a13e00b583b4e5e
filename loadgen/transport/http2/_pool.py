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

from loadgen.transport._reply import UNAVAILABLE, Lost, Reply
from loadgen.transport.http2._connection import Connection
from loadgen.transport.http2._response import Head
from loadgen.transport.http2._socket import Link
from worker.wire.http2.frames import GOAWAY, frame

FIRST_BACKOFF_S, BACKOFF_FACTOR, LONGEST_BACKOFF_S, BACKOFF_JITTER = 0.1, 1.6, 5.0, 0.2


@dataclass(slots=True)
class Statistics:
    """What happened on a channel's connections since it was made. Bytes are those on the wire, TLS included."""

    connects: int = 0
    """Connections that came to the server's SETTINGS."""
    reconnects: int = 0
    """Those of them that replaced one which was lost or going away."""
    failed_connects: int = 0
    broken: int = 0
    """Connections that ended, calls in flight or not, without being asked to."""
    protocol_errors: int = 0
    """Those of them that we ended because the server broke HTTP/2 or gRPC framing."""
    goaways: int = 0
    refused: int = 0
    """Calls that a GOAWAY left out: UNAVAILABLE."""
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
        self.link: Link | None = None
        self.pending: Link | None = None  # connecting, up to the server's SETTINGS
        self.connecting: Any = None  # the greenlet that does it
        self.settled: Any = None  # its event
        self.served = False
        self.failures = 0
        self.retry_at = 0.0


class Pool:
    """`room` follows every change after which a waiting call may find a stream, or may have to give up."""

    def __init__(
        self,
        destination: Destination,
        connections: int,
        max_receive_bytes: int,
        room: Callable[[], None],
        report: Callable[[], None],
    ) -> None:
        self.ready: list[Link] = []
        self.down = connections  # slots that are neither connected nor connecting
        self.why = "not connected"  # what the last loss or failure was
        self.counts = Statistics()
        self._destination = destination
        self._max_receive_bytes = max_receive_bytes
        self._room = room
        self._report = report
        self._seen: dict[bytes, Head] = {}
        self._slots = [_Slot() for _ in range(connections)]
        self._going: set[Link] = set()  # draining: their calls finish, nothing new starts
        self._closed = False

    def links(self) -> list[Link]:
        pending = [slot.pending for slot in self._slots if slot.pending is not None]
        return [*self.ready, *self._going, *pending]

    def hopeful(self) -> bool:
        """Whether a call that waits may still get a stream."""
        return bool(self.ready) or any(slot.connecting is not None for slot in self._slots)

    @property
    def gone(self) -> bool:
        """Whether there were connections and none of them is left."""
        return not self.ready and any(slot.served for slot in self._slots)

    def ping(self) -> list[Link]:
        """Sends a PING on every connection; those it was sent on."""
        for link in self.ready:
            link.connection.ping()
            link.schedule()
        return list(self.ready)

    def forgive(self) -> None:
        """What is down may be connected with the next call."""
        for slot in self._slots:
            slot.failures, slot.retry_at = 0, 0.0

    def drop(self, links: list[Link], why: str) -> None:
        """Ends those of the connections that are still there; the calls on them may have been run."""
        for link in links:
            if link in self.ready or link in self._going:
                link.fail(why)

    def revive(self) -> None:
        """Connects what is down and whose backoff is over."""
        now = time.monotonic()
        for slot in self._slots:
            if slot.link is None and slot.connecting is None and now >= slot.retry_at:
                self.down -= 1
                slot.connecting = gevent.spawn(self._connect, slot)

    def _connect(self, slot: _Slot) -> None:
        """One attempt, up to the server's SETTINGS."""
        connection = Connection(self._seen, self._max_receive_bytes, self._report)
        slot.pending = link = Link(connection, functools.partial(self._changed, slot))
        slot.settled = settled = Event()
        to = self._destination
        timeout = gevent.Timeout(to.connect_timeout_s)
        why: str | None
        try:
            with timeout:
                link.open(to.host, to.port, to.context, to.server_name, to.connect_timeout_s)
                settled.wait()
            why = link.lost
        except gevent.Timeout as error:
            if error is not timeout:
                raise
            why = f"no HTTP/2 SETTINGS within {to.connect_timeout_s} s"
        except (OSError, UnicodeError) as error:
            why = f"cannot connect: {getattr(error, 'strerror', None) or error}"
        finally:
            if slot.pending is link:
                link.close()
        if why is not None and slot.pending is link:
            self.counts.failed_connects += 1
            self.counts.protocol_errors += link.broke_protocol
            _absorb(self.counts, link)
            slot.pending = slot.connecting = None
            self.down += 1
            self.why = why
            self._back_off(slot)
            self._room()

    def _changed(self, slot: _Slot, link: Link) -> None:
        """Follows every read of a link."""
        connection = link.connection
        if slot.pending is link and slot.settled is not None:
            if connection.settled and link.lost is None:
                slot.link, slot.pending, slot.connecting = link, None, None
                self.ready.append(link)
                self.counts.connects += 1
                self.counts.reconnects += slot.served
                slot.served = True
                slot.settled.set()
            elif link.lost is not None:
                slot.settled.set()
                return
        if link.lost is not None:
            self._lose(slot, link, link.lost)
        elif connection.draining:
            self._retire(slot, link)
        elif slot.failures and connection.answered:
            slot.failures = 0
        self._room()

    def retire_drained(self) -> None:
        """Stream ids can run out without a read that would tell."""
        for slot in self._slots:
            if slot.link is not None and slot.link.connection.draining:
                self._retire(slot, slot.link)

    def _retire(self, slot: _Slot, link: Link) -> None:
        """A link that takes no new calls: it stays until those it has are over."""
        if link in self.ready:
            self.ready.remove(link)
            self._going.add(link)
            self._vacate(slot, link, "the server is going away")
        self.close_if_over(link)

    def close_if_over(self, link: Link) -> None:
        if not link.connection.streams and link in self._going:
            self._going.remove(link)
            link.flush()
            link.close()
            _absorb(self.counts, link)

    def _lose(self, slot: _Slot, link: Link, why: str) -> None:
        was_ready = link in self.ready
        if was_ready:
            self.ready.remove(link)
        self._going.discard(link)
        self.counts.broken += was_ready or bool(link.connection.streams)
        self.counts.protocol_errors += link.broke_protocol
        _absorb(self.counts, link)
        if was_ready:
            self._vacate(slot, link, why)
        link.connection.abandon(Lost(UNAVAILABLE, why))

    def _vacate(self, slot: _Slot, link: Link, why: str) -> None:
        slot.link = None
        self.down += 1
        self.why = why
        if not link.connection.answered:
            self._back_off(slot)  # a server that takes connections and answers nothing is not hammered

    @staticmethod
    def _back_off(slot: _Slot) -> None:
        delay = min(FIRST_BACKOFF_S * BACKOFF_FACTOR**slot.failures, LONGEST_BACKOFF_S)
        slot.failures = min(slot.failures + 1, 32)
        slot.retry_at = time.monotonic() + delay * random.uniform(1 - BACKOFF_JITTER, 1 + BACKOFF_JITTER)

    def statistics(self) -> Statistics:
        """A copy of the counters as they stand."""
        total = dataclasses.replace(self.counts)
        for link in self.links():
            _absorb(total, link)
        return total

    def close(self, reply: Reply) -> None:
        """Ends every connection, and every call on them with this reply."""
        self._closed = True
        self.down = 0
        links = self.links()
        self.ready.clear()
        self._going.clear()
        for slot in self._slots:
            if slot.connecting is not None:
                slot.connecting.kill(block=False)
            slot.link = slot.connecting = slot.pending = None
        for link in links:
            link.connection.out.append(frame(GOAWAY, 0, 0, bytes(8)))
            link.flush()
            link.close()
            _absorb(self.counts, link)
            link.connection.abandon(reply)


def _absorb(total: Statistics, link: Link) -> None:
    connection = link.connection
    total.goaways += connection.goaways
    total.refused += connection.refused
    total.resets += connection.resets
    total.stray_frames += connection.stray
    total.bytes_sent += link.sent
    total.bytes_received += link.received
