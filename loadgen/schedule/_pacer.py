"""Fires due times on schedule: one heap and one timer for all sources of this process, exact below a millisecond.

The schedule is absolute. After a stall everything overdue is fired at once, each with its own due time.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from itertools import count

import gevent

from loadgen.schedule._timer import Timer

#: Overdue requests fired before the sockets get a turn again.
BURST = 32
#: The timer is set this much early, and the rest is spent turning the event loop: a process that sleeps is woken tens
#: of microseconds late, more on a virtual machine.
EARLY_NS = 60_000


class Pacer:
    """Calls `fire(due_ns)` for every due time of every source, none before its time. `fire` must not block."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, Iterator[int], Callable[[int], None]]] = []
        self._numbers = count()
        self._active: set[int] = set()
        self._timer = Timer()
        self._greenlet = gevent.spawn(self._run)

    def add(self, start_ns: int, offsets: Iterator[int], fire: Callable[[int], None]) -> int:
        """A new source, due at start + each offset. Returns its number, for `remove`."""
        number = next(self._numbers)
        self._active.add(number)
        self._push(number, start_ns, offsets, fire)
        if self._heap:
            self._timer.arm(self._heap[0][0] - EARLY_NS)
        return number

    def remove(self, number: int) -> None:
        """The source fires no more."""
        self._active.discard(number)

    def _push(self, number: int, start_ns: int, offsets: Iterator[int], fire: Callable[[int], None]) -> None:
        offset = next(offsets, None)
        if offset is not None:
            heapq.heappush(self._heap, (start_ns + offset, number, start_ns, offsets, fire))

    def _run(self) -> None:
        while True:
            left = self._heap[0][0] - time.monotonic_ns() if self._heap else None
            if left is None:
                self._timer.wait()
            elif left > EARLY_NS:
                self._timer.arm(self._heap[0][0] - EARLY_NS)
                self._timer.wait()
            elif left > 0:
                gevent.sleep(0)
            else:
                self._fire_overdue(time.monotonic_ns(), BURST)
                gevent.sleep(0)

    def _fire_overdue(self, now_ns: int, at_most: int) -> int:
        fired = 0
        while self._heap and self._heap[0][0] <= now_ns and fired < at_most:
            due, number, start_ns, offsets, fire = heapq.heappop(self._heap)
            if number in self._active:
                fire(due)
                fired += 1
                self._push(number, start_ns, offsets, fire)
        return fired

    def catch_up(self) -> None:
        """Fires what is overdue at this moment."""
        now_ns = time.monotonic_ns()
        while self._fire_overdue(now_ns, BURST):
            pass

    def close(self) -> None:
        """Ends all sources. What is overdue at this moment is fired still, so that whoever fires can count it."""
        self._greenlet.kill()
        self.catch_up()
        self._heap.clear()
        self._timer.close()
