"""A gRPC channel made for load: unary calls of one method, multiplexed on a few connections of one gevent hub.

Connections are in `http2/`. A failed request is a Reply with a gRPC status code, never an exception. There is no
streaming, retry, proxy, service config or name-based balancing. A channel belongs to the thread, and after a fork to
the process, that first used it.
"""

import math
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import gevent
from gevent.hub import Waiter

from loadgen._reply import CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE, NotConnected, Reply
from loadgen.transport._deadlines import Deadlines
from loadgen.transport.http2 import (
    Call,
    ClientSocket,
    ConnectionPool,
    Destination,
    PreparedRequest,
    Security,
    Statistics,
    request_block,
    split_address,
)
from worker.wire.http2 import LARGEST_WINDOW

FOREVER = float("inf")
# Header blocks of different timeouts that a channel remembers.
_BLOCKS = 4096


class _Wakeup:
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
        self._pool = ConnectionPool(
            destination, connections, max_receive_bytes, self._connections_changed, self._report
        )
        self._blocks: dict[float | None, bytes] = {None: request_block(**self._fields)}
        self._waiting: OrderedDict[Call, float | None] = OrderedDict()  # no stream yet -> its timeout
        self._deadlines = Deadlines(self._expire)
        self._closed = False
        self._hub: Any = None

    # Calls

    @staticmethod
    def prepare(payload: bytes) -> PreparedRequest:
        """Frames a request message once, for a payload that is sent many times."""
        return PreparedRequest(payload)

    def start(self, payload: bytes | PreparedRequest, timeout_s: float | None, done: Callable[[Reply], None]) -> Call:
        """Starts a call and returns at once. `done(reply)` follows exactly once, from the hub, never from within here.

        `timeout_s` (seconds, None for none) is sent as grpc-timeout and enforced on this side too. `done` must not
        block; an exception out of it is printed by the hub and harms no other call.
        """
        request = payload if type(payload) is PreparedRequest else PreparedRequest(payload)  # type: ignore[arg-type]
        if timeout_s is None:
            call = Call(done, request, FOREVER)
        else:
            call = Call(done, request, time.monotonic() + timeout_s)
            if self._closed or timeout_s <= 0:
                return self._start_nowhere(call)
            self._deadlines.watch(call)
        pool = self._pool
        if pool.down:
            self._hub = self._hub or gevent.get_hub()
            pool.reconnect()
        ready = pool.ready
        if ready and not self._waiting:
            socket = ready[0] if len(ready) == 1 else min(ready, key=_in_flight)
            connection = socket.connection
            calls = connection.calls
            if len(calls.streams) < calls.limit:
                connection.send(call, self._blocks.get(timeout_s) or self._block(timeout_s))
                if not socket.scheduled:
                    socket.schedule()
                return call
        if self._closed:
            return self._start_nowhere(call)
        self._waiting[call] = timeout_s
        self._pump()
        return call

    def call(self, payload: bytes | PreparedRequest, timeout_s: float | None = None) -> Reply:
        """A call that blocks this greenlet only. Where the greenlet is killed meanwhile, the call is cancelled."""
        self._hub = self._hub or gevent.get_hub()
        wakeup = _Wakeup(self._hub)
        call = self.start(payload, timeout_s, wakeup)
        try:
            return wakeup.waiter.get()
        except BaseException:
            self.cancel(call)
            raise

    def cancel(self, call: Call) -> None:
        """Ends a call in flight with CANCELLED, its `done` before this returns; does nothing to one that has ended."""
        if call.done is not None:
            self._end(call, Reply(CANCELLED, "cancelled on this side"))

    def flush(self) -> None:
        """Sends what has been started now, where the next turn of the event loop would be too late."""
        for socket in self._pool.ready:
            socket.flush()

    @property
    def in_flight(self) -> int:
        """Calls that have started and not ended, those that still wait for a connection or a stream included."""
        return sum(len(socket.connection.calls.streams) for socket in self._pool.sockets()) + len(self._waiting)

    @property
    def connected(self) -> bool:
        """False where connections were there and all are gone; true before the first, which a call opens."""
        return not self._pool.disconnected

    def renew(self, timeout_s: float) -> None:
        """Ends connections on which the server does not answer a PING in time, and resets the backoff of those that are
        down. For a server that is known to be healthy. Blocks this greenlet only."""
        sockets = self._pool.ping()
        limit = time.monotonic() + timeout_s
        while any(socket.connection.pings for socket in sockets) and time.monotonic() < limit:
            gevent.sleep(min(0.01, timeout_s))
        gevent.sleep(0)  # what came while this greenlet slept has been read
        silent = [socket for socket in sockets if socket.connection.pings]
        self._pool.reset_backoff()
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
        self._deadlines.stop()
        reply = Reply(CANCELLED, "the channel was closed")
        self._pool.close(reply)
        for call in waiting:
            self._done(call, reply)

    # Calls that cannot be sent at once, and calls that end on this side

    def _block(self, timeout_s: float | None) -> bytes:
        if len(self._blocks) >= _BLOCKS:
            self._blocks = {None: self._blocks[None]}
        block = self._blocks[timeout_s] = request_block(**self._fields, timeout_s=timeout_s)
        return block

    def _start_nowhere(self, call: Call) -> Call:
        hub = self._hub = self._hub or gevent.get_hub()
        reply = Reply(CANCELLED, "the channel is closed") if self._closed else _DEADLINE
        self._pool.counts.deadlines += not self._closed
        hub.loop.run_callback(self._done, call, reply)
        return call

    def _connections_changed(self) -> None:
        if self._waiting:
            self._pump()

    def _pump(self) -> None:
        """Gives streams to the calls that wait for one, first come, first served."""
        while self._waiting:
            free = [socket for socket in self._pool.ready if _in_flight(socket) < socket.connection.calls.limit]
            if not free:
                self._pool.retire_drained()
                if self._pool.down:
                    self._pool.reconnect()
                if not self._pool.may_connect():
                    self._hub.loop.run_callback(self._give_up)
                return
            socket = min(free, key=_in_flight)
            call, timeout_s = self._waiting.popitem(last=False)
            if timeout_s is not None:
                timeout_s = _rounded_up(call.deadline - time.monotonic())
            socket.connection.send(call, self._blocks.get(timeout_s) or self._block(timeout_s))
            socket.schedule()

    def _give_up(self) -> None:
        """Fails the waiting calls where no connection is up or being made, as gRPC does without wait_for_ready."""
        if self._pool.may_connect():
            return
        reply = NotConnected(UNAVAILABLE, self._pool.reason)
        while self._waiting:
            call, _ = self._waiting.popitem(last=False)
            self._done(call, reply)

    def _end(self, call: Call, reply: Reply) -> None:
        if call.owner is None:
            self._waiting.pop(call, None)
        else:
            call.owner.withdraw(call)
            for socket in self._pool.sockets():
                if socket.connection.calls is call.owner:
                    socket.schedule()
                    self._pool.close_if_idle(socket)
        self._done(call, reply)
        self._connections_changed()

    def _done(self, call: Call, reply: Reply) -> None:
        done = call.end()
        if done is not None:
            try:
                done(reply)
            except Exception:
                self._report()

    def _report(self) -> None:
        self._hub.handle_error(self, *sys.exc_info())

    def _expire(self, call: Call) -> None:
        self._pool.counts.deadlines += 1
        self._end(call, _DEADLINE)


_DEADLINE = Reply(DEADLINE_EXCEEDED, "the deadline has passed")


def _in_flight(socket: ClientSocket) -> int:
    return len(socket.connection.calls.streams)


def _rounded_up(seconds: float) -> float:
    """To three digits, so that calls which waited share their header blocks; never 0."""
    if seconds <= 1e-6:
        return 1e-6
    step = 10.0 ** (math.floor(math.log10(seconds)) - 2)
    return math.ceil(seconds / step) * step
