"""Deadlines of calls: one heap and one timer of the event loop."""

import heapq
import time
from collections.abc import Callable
from typing import Any

import gevent

from loadgen.transport.http2 import Call

_NEVER = float("inf")
# Entries at which those of ended calls are first removed.
_FIRST_SWEEP = 1024


class Deadlines:
    """Calls `expire(call)` from the hub when a call's deadline has passed and it has not ended.

    Calls that end otherwise are not removed one by one: their entries are dropped at their deadline, or all together
    when they are the larger part of the heap.
    """

    def __init__(self, expire: Callable[[Call], None]) -> None:
        self._expire = expire
        self._heap: list[tuple[float, int, Call]] = []
        self._sequence = 0
        self._sweep_at = _FIRST_SWEEP
        self._timer: Any = None
        self._timer_at = _NEVER
        self._stopped = False

    def watch(self, call: Call) -> None:
        """Adds a call with a deadline."""
        self._sequence += 1
        heapq.heappush(self._heap, (call.deadline, self._sequence, call))
        if call.deadline < self._timer_at:
            self._arm(call.deadline)
        if len(self._heap) > self._sweep_at:
            self._heap = [entry for entry in self._heap if entry[2].done is not None]
            heapq.heapify(self._heap)
            self._sweep_at = 2 * len(self._heap) + _FIRST_SWEEP

    def stop(self) -> None:
        """Ends the timer for good."""
        self._stopped = True
        self._disarm()

    def _arm(self, deadline: float) -> None:
        self._disarm()
        self._timer = gevent.get_hub().loop.timer(max(deadline - time.monotonic(), 0.0))
        self._timer.start(self._fire, update=True)
        self._timer_at = deadline

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
        self._timer_at = _NEVER

    def _fire(self) -> None:
        now = time.monotonic()
        while self._heap and not self._stopped:
            deadline, _, call = self._heap[0]
            if call.done is not None and deadline > now:
                self._arm(deadline)
                return
            heapq.heappop(self._heap)
            if call.done is not None:
                self._expire(call)
        self._disarm()
