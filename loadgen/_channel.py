"""A gRPC channel made for load: unary calls of one method, multiplexed on a few connections of one gevent hub.

Calls and their deadlines, connections and their backoff. How a failed request ended is a Reply with a gRPC status
code, never an exception. What it is not: no streaming, no retries, no proxies, no service config, no name-based
balancing; a channel belongs to the thread, and after a fork to the process, that first used it.
"""

import functools
import heapq
import math
import random
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.event import Event
from gevent.hub import Waiter

from loadgen._h2 import Connection
from loadgen._h2_frames import GOAWAY, LARGEST_WINDOW, frame, request_block
from loadgen._h2_reply import CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE, Head, Reply
from loadgen._h2_send import Call, Prepared
from loadgen._h2_socket import Link, Security, split_address

__all__ = ["Channel", "Handle", "Prepared", "Reply", "Security", "Statistics"]

Handle = Call
FIRST_BACKOFF_S, BACKOFF_FACTOR, LONGEST_BACKOFF_S, BACKOFF_JITTER = 0.1, 1.6, 5.0, 0.2
FOREVER = float("inf")


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


class _Blocked:
    """The `done` of `call`: wakes the greenlet at once from the hub, through the loop from any other greenlet."""

    __slots__ = ("hub", "waiter")

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.waiter = Waiter(hub)

    def __call__(self, reply: Reply) -> None:
        if gevent.getcurrent() is self.hub:
            self.waiter.switch(reply)
        else:
            self.hub.loop.run_callback(self.waiter.switch, reply)


class Channel:
    """Calls to one `method` (such as "/inference.GRPCInferenceService/ModelInfer") of the server at `address`.

    Nothing is opened before the first call. With several connections a call takes the one with the fewest in flight.
    Wrong arguments raise ValueError.
    """

    def __init__(
        self,
        address: str,
        *,
        method: str,
        connections: int = 1,
        security: Security | None = None,
        token: str | None = None,
        authority: str | None = None,
        connect_timeout_s: float = 5.0,
        max_receive_bytes: int = 256 * 1024 * 1024,
    ) -> None:
        if not method.startswith("/") or not method.isascii() or method.count("/") < 2:
            raise ValueError(f"{method!r} is not a method's full path, /package.Service/Method")
        if connections < 1:
            raise ValueError("a channel needs at least 1 connection")
        if not 0 < max_receive_bytes <= LARGEST_WINDOW - 5:
            raise ValueError(f"max_receive_bytes is between 1 and {LARGEST_WINDOW - 5}")
        if token is not None and not (token.isascii() and token.isprintable() and token.strip()):
            raise ValueError("a bearer token is printable ASCII")
        self._host, self._port = split_address(address)
        self._context = security.context() if security else None
        self._server_name = (security.server_name if security else None) or self._host
        self._fields: dict[str, Any] = {
            "method": method,
            "scheme": "https" if security else "http",
            "authority": authority or (security.server_name if security else None) or address,
            "token": token,
        }
        self._connect_timeout_s = connect_timeout_s
        self._max_receive_bytes = max_receive_bytes
        self._blocks: dict[float | None, bytes] = {None: request_block(**self._fields)}
        self._seen: dict[bytes, Head] = {}
        self._slots = [_Slot() for _ in range(connections)]
        self._down = connections  # slots that are neither connected nor connecting
        self._ready: list[Link] = []
        self._going: set[Link] = set()  # draining: their calls finish, nothing new starts
        self._waiting: OrderedDict[Call, float | None] = OrderedDict()  # no stream yet -> its timeout
        self._deadlines: list[tuple[float, int, Call]] = []
        self._sequence = 0
        self._sweep_at = 1024
        self._timer: Any = None
        self._timer_at = FOREVER
        self._why = "not connected"
        self._closed = False
        self._hub: Any = None
        self._counts = Statistics()

    # Calls

    @staticmethod
    def prepare(payload: bytes) -> Prepared:
        """Frames a request message once, for a payload that is sent many times."""
        return Prepared(payload)

    def start(self, payload: bytes | Prepared, timeout_s: float | None, done: Callable[[Reply], None]) -> Handle:
        """Starts a call and returns at once. `done(reply)` follows exactly once, from the hub, never from within here.

        `timeout_s` (seconds, None for none) goes out as grpc-timeout and is kept on this side too. `done` must not
        block; an exception out of it is printed by the hub and harms no other call.
        """
        request = payload if type(payload) is Prepared else Prepared(payload)  # type: ignore[arg-type]
        if timeout_s is None:
            call = Call(done, request, FOREVER)
        else:
            call = Call(done, request, time.monotonic() + timeout_s)
            if self._closed or timeout_s <= 0:
                return self._start_nowhere(call)
            self._watch(call)
        if self._down:
            self._revive()
        ready = self._ready
        if ready and not self._waiting:
            link = ready[0] if len(ready) == 1 else min(ready, key=_in_flight)
            connection = link.connection
            if len(connection.streams) < connection.limit:
                connection.send(call, self._blocks.get(timeout_s) or self._block(timeout_s))
                if not link.scheduled:
                    link.schedule()
                return call
        if self._closed:
            return self._start_nowhere(call)
        self._waiting[call] = timeout_s
        self._pump()
        if self._waiting and not self._hopeful():
            self._hub.loop.run_callback(self._give_up)
        return call

    def call(self, payload: bytes | Prepared, timeout_s: float | None = None) -> Reply:
        """A call that blocks this greenlet only. Where the greenlet is killed meanwhile, the call is cancelled."""
        blocked = _Blocked(self._hub or self._open())
        handle = self.start(payload, timeout_s, blocked)
        try:
            return blocked.waiter.get()
        except BaseException:
            self.cancel(handle)
            raise

    def cancel(self, handle: Handle) -> None:
        """Ends a call in flight with CANCELLED, its `done` before this returns; does nothing to one that has ended."""
        if handle.done is not None:
            self._end(handle, Reply(CANCELLED, "cancelled on this side"))

    def flush(self) -> None:
        """Sends what has been started now, where the next turn of the event loop would be too late."""
        for link in self._ready:
            link.flush()

    @property
    def in_flight(self) -> int:
        """Calls that have started and not ended, those that still wait for a connection or a stream included."""
        return sum(len(link.connection.streams) for link in self._links()) + len(self._waiting)

    @property
    def statistics(self) -> Statistics:
        """A copy of the counters as they stand."""
        total = Statistics(*(getattr(self._counts, name) for name in Statistics.__slots__))
        for link in self._links():
            _absorb(total, link)
        return total

    def close(self) -> None:
        """Ends every call in flight with CANCELLED, before this returns. Later calls end with CANCELLED too."""
        if self._closed:
            return
        self._closed = True
        self._down = 0
        links, waiting = self._links(), list(self._waiting)
        self._ready.clear()
        self._going.clear()
        self._waiting.clear()
        self._stop_timer()
        reply = Reply(CANCELLED, "the channel was closed")
        for slot in self._slots:
            if slot.connecting is not None:
                slot.connecting.kill(block=False)
            slot.link = slot.connecting = slot.pending = None
        for link in links:
            link.connection.out.append(frame(GOAWAY, 0, 0, bytes(8)))
            link.flush()
            link.close()
            _absorb(self._counts, link)
            link.connection.abandon(reply)
        for call in waiting:
            self._done(call, reply)

    # The unusual ways of a call

    def _open(self) -> Any:
        self._hub = gevent.get_hub()
        return self._hub

    def _block(self, timeout_s: float | None) -> bytes:
        if len(self._blocks) >= 4096:
            self._blocks = {None: self._blocks[None]}
        block = self._blocks[timeout_s] = request_block(**self._fields, timeout_s=timeout_s)
        return block

    def _start_nowhere(self, call: Call) -> Call:
        hub = self._hub or self._open()
        reply = Reply(CANCELLED, "the channel is closed") if self._closed else _DEADLINE
        self._counts.deadlines += not self._closed
        hub.loop.run_callback(self._done, call, reply)
        return call

    def _pump(self) -> None:
        """Gives streams to the calls that wait for one, first come, first served."""
        while self._waiting:
            with_room = [link for link in self._ready if len(link.connection.streams) < link.connection.limit]
            if not with_room:
                for slot in self._slots:  # stream ids that have run out are noticed here
                    if slot.link is not None and slot.link.connection.draining:
                        self._retire(slot, slot.link)
                return
            link = min(with_room, key=_in_flight)
            call, timeout_s = self._waiting.popitem(last=False)
            if timeout_s is not None:
                timeout_s = _rounded_up(call.deadline - time.monotonic())
            link.connection.send(call, self._blocks.get(timeout_s) or self._block(timeout_s))
            link.schedule()

    def _give_up(self) -> None:
        """No connection, none in the making: the waiting calls fail at once, as gRPC's do unless told to wait."""
        if self._hopeful():
            return
        reply = Reply(UNAVAILABLE, self._why)
        while self._waiting:
            call, _ = self._waiting.popitem(last=False)
            self._done(call, reply)

    def _end(self, call: Call, reply: Reply) -> None:
        if call.connection is None:
            self._waiting.pop(call, None)
        else:
            call.connection.withdraw(call)
            for link in self._links():
                if link.connection is call.connection:
                    link.schedule()
                    self._close_if_over(link)
        self._done(call, reply)
        if self._waiting:
            self._pump()

    def _done(self, call: Call, reply: Reply) -> None:
        done, call.done = call.done, None
        if done is not None:
            try:
                done(reply)
            except Exception:
                self._report()

    def _report(self) -> None:
        self._hub.handle_error(self, *sys.exc_info())

    # Deadlines: one heap and one timer; what has ended is swept out once it is the larger part

    def _watch(self, call: Call) -> None:
        self._sequence += 1
        heapq.heappush(self._deadlines, (call.deadline, self._sequence, call))
        if call.deadline < self._timer_at:
            self._arm(call.deadline)
        if len(self._deadlines) > self._sweep_at:
            self._deadlines = [entry for entry in self._deadlines if entry[2].done is not None]
            heapq.heapify(self._deadlines)
            self._sweep_at = 2 * len(self._deadlines) + 1024

    def _arm(self, deadline: float) -> None:
        self._stop_timer()
        self._timer = (self._hub or self._open()).loop.timer(max(deadline - time.monotonic(), 0.0))
        self._timer.start(self._expire, update=True)
        self._timer_at = deadline

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
        self._timer_at = FOREVER

    def _expire(self) -> None:
        now = time.monotonic()
        while self._deadlines and not self._closed:
            deadline, _, call = self._deadlines[0]
            if call.done is not None:
                if deadline > now:
                    self._arm(deadline)
                    return
                self._counts.deadlines += 1
            heapq.heappop(self._deadlines)
            if call.done is not None:
                self._end(call, _DEADLINE)
        self._stop_timer()

    # Connections

    def _links(self) -> list[Link]:
        pending = [slot.pending for slot in self._slots if slot.pending is not None]
        return [*self._ready, *self._going, *pending]

    def _hopeful(self) -> bool:
        return bool(self._ready) or any(slot.connecting is not None for slot in self._slots)

    def _revive(self) -> None:
        """Connects what is down and whose backoff is over."""
        if self._closed:
            return
        if self._hub is None:
            self._open()
        now = time.monotonic()
        for slot in self._slots:
            if slot.link is None and slot.connecting is None and now >= slot.retry_at:
                self._down -= 1
                slot.connecting = gevent.spawn(self._connect, slot)

    def _connect(self, slot: _Slot) -> None:
        """One attempt, up to the server's SETTINGS."""
        connection = Connection(self._seen, self._max_receive_bytes, self._report)
        slot.pending = link = Link(connection, functools.partial(self._changed, slot))
        slot.settled = settled = Event()
        timeout = gevent.Timeout(self._connect_timeout_s)
        why: str | None
        try:
            with timeout:
                link.open(self._host, self._port, self._context, self._server_name, self._connect_timeout_s)
                settled.wait()
            why = link.lost
        except gevent.Timeout as error:
            if error is not timeout:
                raise
            why = f"no HTTP/2 SETTINGS within {self._connect_timeout_s} s"
        except OSError as error:
            why = f"cannot connect: {error.strerror or error}"
        finally:
            if not connection.settled or link.lost is not None:
                link.close()
        if why is not None and not connection.settled and not self._closed:
            self._counts.failed_connects += 1
            self._counts.protocol_errors += link.broke_protocol
            _absorb(self._counts, link)
            slot.pending = slot.connecting = None
            self._down += 1
            self._back_off(slot, why)
            self._hub.loop.run_callback(self._give_up)

    def _changed(self, slot: _Slot, link: Link) -> None:
        """Follows every read of a link."""
        connection = link.connection
        if slot.pending is link and slot.settled is not None:
            if connection.settled and link.lost is None:
                slot.link, slot.pending, slot.connecting = link, None, None
                self._ready.append(link)
                self._counts.connects += 1
                self._counts.reconnects += slot.served
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
        if self._waiting:
            self._pump()

    def _retire(self, slot: _Slot, link: Link) -> None:
        """A link that takes no new calls: it stays until those it has are over."""
        if link in self._ready:
            self._ready.remove(link)
            self._going.add(link)
            self._vacate(slot, link, "the server is going away")
        self._close_if_over(link)

    def _close_if_over(self, link: Link) -> None:
        if not link.connection.streams and link in self._going:
            self._going.remove(link)
            link.flush()
            link.close()
            _absorb(self._counts, link)

    def _lose(self, slot: _Slot, link: Link, why: str) -> None:
        was_ready = link in self._ready
        if was_ready:
            self._ready.remove(link)
        self._going.discard(link)
        self._counts.broken += was_ready or bool(link.connection.streams)
        self._counts.protocol_errors += link.broke_protocol
        _absorb(self._counts, link)
        if was_ready:
            self._vacate(slot, link, why)
        link.connection.abandon(Reply(UNAVAILABLE, why))

    def _vacate(self, slot: _Slot, link: Link, why: str) -> None:
        slot.link = None
        self._down += 1
        if not link.connection.answered:
            self._back_off(slot, why)  # a server that takes connections and answers nothing is not hammered
        if self._waiting:
            self._revive()
            self._hub.loop.run_callback(self._give_up)

    def _back_off(self, slot: _Slot, why: str) -> None:
        self._why = why
        delay = min(FIRST_BACKOFF_S * BACKOFF_FACTOR**slot.failures, LONGEST_BACKOFF_S)
        slot.failures = min(slot.failures + 1, 32)
        slot.retry_at = time.monotonic() + delay * random.uniform(1 - BACKOFF_JITTER, 1 + BACKOFF_JITTER)


_DEADLINE = Reply(DEADLINE_EXCEEDED, "the deadline is over")


def _in_flight(link: Link) -> int:
    return len(link.connection.streams)


def _rounded_up(seconds: float) -> float:
    """To three digits, so that calls which waited share their header blocks; never 0."""
    if seconds <= 1e-6:
        return 1e-6
    step = 10.0 ** (math.floor(math.log10(seconds)) - 2)
    return math.ceil(seconds / step) * step


def _absorb(total: Statistics, link: Link) -> None:
    connection = link.connection
    total.goaways += connection.goaways
    total.refused += connection.refused
    total.resets += connection.resets
    total.stray_frames += connection.stray
    total.bytes_sent += link.sent
    total.bytes_received += link.received
