"""Calls back when requests are due: one heap and one timer for all sources of this process, exact below a millisecond.

The schedule is absolute. After a stall everything overdue is called at once, each with its own due time.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from itertools import count

import gevent

from loadgen.schedule._timer import Timer

#: Overdue requests that are sent before the sockets get a turn again.
BURST = 32
#: The timer is set this much early, and the rest is spent turning the event loop: a process that sleeps is woken tens
#: of microseconds late, more on a virtual machine.
EARLY_NS = 60_000


class Pacer:
    """Calls `send(due_ns)` for every due time of every source, never before that time. `send` must not block."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, Iterator[int], Callable[[int], None]]] = []
        self._numbers = count()
        self._active: set[int] = set()
        self._timer = Timer()
        self._greenlet = gevent.spawn(self._run)

    def add(self, start_ns: int, offsets: Iterator[int], send: Callable[[int], None]) -> int:
        """Adds a source that is due at `start_ns` + each offset. Returns its number, for `remove`."""
        number = next(self._numbers)
        self._active.add(number)
        self._push(number, start_ns, offsets, send)
        if self._heap:
            self._timer.set(self._heap[0][0] - EARLY_NS)
        return number

    def remove(self, number: int) -> None:
        """Removes a source: it is not called any more."""
        self._active.discard(number)

    def _push(self, number: int, start_ns: int, offsets: Iterator[int], send: Callable[[int], None]) -> None:
        offset = next(offsets, None)
        if offset is not None:
            heapq.heappush(self._heap, (start_ns + offset, number, start_ns, offsets, send))

    def _run(self) -> None:
        while True:
            wait_ns = self._heap[0][0] - time.monotonic_ns() if self._heap else None
            if wait_ns is None:
                self._timer.wait()
            elif wait_ns > EARLY_NS:
                self._timer.set(self._heap[0][0] - EARLY_NS)
                self._timer.wait()
            elif wait_ns > 0:
                gevent.sleep(0)
            else:
                self._send_overdue(time.monotonic_ns(), BURST)
                gevent.sleep(0)

    def _send_overdue(self, now_ns: int, at_most: int) -> int:
        count = 0
        while self._heap and self._heap[0][0] <= now_ns and count < at_most:
            due, number, start_ns, offsets, send = heapq.heappop(self._heap)
            if number in self._active:
                send(due)
                count += 1
                self._push(number, start_ns, offsets, send)
        return count

    def catch_up(self) -> None:
        """Calls back for everything that is overdue at this moment."""
        now_ns = time.monotonic_ns()
        while self._send_overdue(now_ns, BURST):
            pass

    def close(self) -> None:
        """Ends all sources, after a last call for each due time that is overdue: the caller counts those as unsent."""
        self._greenlet.kill()
        self.catch_up()
        self._heap.clear()
        self._timer.close()
