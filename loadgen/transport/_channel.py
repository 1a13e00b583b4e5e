"""A gRPC channel made for load: unary calls of one method, multiplexed on a few connections of one gevent hub.

Calls and their deadlines live here, connections in `_h2/`. A failed request is a Reply with a gRPC status
code, never an exception. What it is not: no streaming, no retries, no proxies, no service config, no name-based
balancing; a channel belongs to the thread, and after a fork to the process, that first used it.
"""

import heapq
import math
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import gevent
from gevent.hub import Waiter

from loadgen.transport._reply import CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE, Reply, Unsettled
from loadgen.transport.http2._frames import request_block
from loadgen.transport.http2._pool import Destination, Pool, Statistics
from loadgen.transport.http2._send import Call, Prepared
from loadgen.transport.http2._socket import Link, Security, split_address
from worker.wire.http2.frames import LARGEST_WINDOW

__all__ = ["Channel", "Handle", "Prepared", "Reply", "Security", "Statistics"]

Handle = Call
FOREVER = float("inf")


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
        host, port = split_address(address)
        context = security.context() if security else None
        name = security.server_name if security else None
        self._fields: dict[str, Any] = {
            "method": method,
            "scheme": "https" if security else "http",
            "authority": authority or name or address,
            "token": token,
        }
        destination = Destination(host, port, context, name or host, connect_timeout_s)
        self._pool = Pool(destination, connections, max_receive_bytes, self._room, self._report)
        self._blocks: dict[float | None, bytes] = {None: request_block(**self._fields)}
        self._waiting: OrderedDict[Call, float | None] = OrderedDict()  # no stream yet -> its timeout
        self._deadlines: list[tuple[float, int, Call]] = []
        self._sequence = 0
        self._sweep_at = 1024
        self._timer: Any = None
        self._timer_at = FOREVER
        self._closed = False
        self._hub: Any = None

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
        pool = self._pool
        if pool.down:
            self._hub = self._hub or gevent.get_hub()
            pool.revive()
        ready = pool.ready
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
        return call

    def call(self, payload: bytes | Prepared, timeout_s: float | None = None) -> Reply:
        """A call that blocks this greenlet only. Where the greenlet is killed meanwhile, the call is cancelled."""
        self._hub = self._hub or gevent.get_hub()
        blocked = _Blocked(self._hub)
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
        for link in self._pool.ready:
            link.flush()

    @property
    def in_flight(self) -> int:
        """Calls that have started and not ended, those that still wait for a connection or a stream included."""
        return sum(len(link.connection.streams) for link in self._pool.links()) + len(self._waiting)

    @property
    def connected(self) -> bool:
        """False where connections were there and all are gone; true before the first, which a call opens."""
        return not self._pool.gone

    def renew(self, timeout_s: float) -> None:
        """The server is known to be well: ends connections whose other end does not answer a PING in time, and forgets
        the backoff of those to be made. Blocks this greenlet only."""
        asked = self._pool.ping()
        limit = time.monotonic() + timeout_s
        while any(link.connection.pings for link in asked) and time.monotonic() < limit:
            gevent.sleep(min(0.01, timeout_s))
        gevent.sleep(0)  # what came while this greenlet slept has been read
        silent = [link for link in asked if link.connection.pings]
        self._pool.forgive()
        self._pool.drop(silent, f"no answer to a PING within {timeout_s:g} s")

    @property
    def statistics(self) -> Statistics:
        """A copy of the counters as they stand."""
        return self._pool.statistics()

    def close(self) -> None:
        """Ends every call in flight with CANCELLED, before this returns. Later calls end with CANCELLED too."""
        if self._closed:
            return
        self._closed = True
        waiting = list(self._waiting)
        self._waiting.clear()
        self._stop_timer()
        reply = Reply(CANCELLED, "the channel was closed")
        self._pool.close(reply)
        for call in waiting:
            self._done(call, reply)

    # The unusual ways of a call

    def _block(self, timeout_s: float | None) -> bytes:
        if len(self._blocks) >= 4096:
            self._blocks = {None: self._blocks[None]}
        block = self._blocks[timeout_s] = request_block(**self._fields, timeout_s=timeout_s)
        return block

    def _start_nowhere(self, call: Call) -> Call:
        hub = self._hub = self._hub or gevent.get_hub()
        reply = Reply(CANCELLED, "the channel is closed") if self._closed else _DEADLINE
        self._pool.counts.deadlines += not self._closed
        hub.loop.run_callback(self._done, call, reply)
        return call

    def _room(self) -> None:
        if self._waiting:
            self._pump()

    def _pump(self) -> None:
        """Gives streams to the calls that wait for one, first come, first served."""
        while self._waiting:
            with_room = [link for link in self._pool.ready if len(link.connection.streams) < link.connection.limit]
            if not with_room:
                self._pool.retire_drained()
                if self._pool.down:
                    self._pool.revive()
                if not self._pool.hopeful():
                    self._hub.loop.run_callback(self._give_up)
                return
            link = min(with_room, key=_in_flight)
            call, timeout_s = self._waiting.popitem(last=False)
            if timeout_s is not None:
                timeout_s = _rounded_up(call.deadline - time.monotonic())
            link.connection.send(call, self._blocks.get(timeout_s) or self._block(timeout_s))
            link.schedule()

    def _give_up(self) -> None:
        """No connection, none in the making: the waiting calls fail at once, as gRPC's do unless told to wait."""
        if self._pool.hopeful():
            return
        reply = Unsettled(UNAVAILABLE, self._pool.why)
        while self._waiting:
            call, _ = self._waiting.popitem(last=False)
            self._done(call, reply)

    def _end(self, call: Call, reply: Reply) -> None:
        if call.connection is None:
            self._waiting.pop(call, None)
        else:
            call.connection.withdraw(call)
            for link in self._pool.links():
                if link.connection is call.connection:
                    link.schedule()
                    self._pool.close_if_over(link)
        self._done(call, reply)
        self._room()

    def _done(self, call: Call, reply: Reply) -> None:
        done = call.end()
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
        self._hub = self._hub or gevent.get_hub()
        self._timer = self._hub.loop.timer(max(deadline - time.monotonic(), 0.0))
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
                self._pool.counts.deadlines += 1
            heapq.heappop(self._deadlines)
            if call.done is not None:
                self._end(call, _DEADLINE)
        self._stop_timer()


_DEADLINE = Reply(DEADLINE_EXCEEDED, "the deadline is over")


def _in_flight(link: Link) -> int:
    return len(link.connection.streams)


def _rounded_up(seconds: float) -> float:
    """To three digits, so that calls which waited share their header blocks; never 0."""
    if seconds <= 1e-6:
        return 1e-6
    step = 10.0 ** (math.floor(math.log10(seconds)) - 2)
    return math.ceil(seconds / step) * step
