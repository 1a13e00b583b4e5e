"""ResultDelivery: brings the results of forward passes from the executor thread to the event loop."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from worker.runtime import ForwardPass
from worker.serving.batch_queue import Job

# To wake the event loop costs more than the forward pass of a small model: results of passes that are at most so long
# may wait so long for others.
_SHORT_NS = 200_000
# Factor by which the longest pass lately shrinks with each pass.
_DECAY = 0.99


class FinishedBatch(NamedTuple):
    """A batch after its forward pass, and how long it kept the executor from the next one."""

    jobs: list[Job]
    rows: int
    result: ForwardPass | BaseException
    occupied_ns: int


class ResultDelivery:
    """Collects finished batches in the executor thread, and calls `on_batch` with each in the event loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_batch: Callable[[FinishedBatch], None]) -> None:
        self._loop = loop
        self._on_batch = on_batch
        self._batches: deque[FinishedBatch] = deque()
        # True from waking the event loop until it comes.
        self._is_scheduled = False
        # When the oldest batch that the event loop was not woken for ended; 0: there is none.
        self._pending_since_ns = 0
        self._longest_ns = 0.0
        # How long handing over the batch before took: it kept this one waiting.
        self._handing_ns = 0

    def add(self, jobs: list[Job], result: ForwardPass | BaseException, end_ns: int) -> None:
        """Hands over a batch whose forward pass ended at `end_ns`. Called in the executor thread."""
        pass_ns = end_ns - jobs[0].begun_ns
        self._batches.append(FinishedBatch(jobs, sum(job.rows for job in jobs), result, pass_ns + self._handing_ns))
        self._longest_ns = max(pass_ns, _DECAY * self._longest_ns)
        self._pending_since_ns = self._pending_since_ns or end_ns
        if self._longest_ns > _SHORT_NS or end_ns - self._pending_since_ns > _SHORT_NS:
            self.flush()
        self._handing_ns = time.monotonic_ns() - end_ns

    def flush(self) -> None:
        """Wakes the event loop, once for all batches that end until it comes. Called in the executor thread."""
        if not self._pending_since_ns:
            return
        self._pending_since_ns = 0
        if not self._is_scheduled and self._batches:
            self._is_scheduled = True
            self._loop.call_soon_threadsafe(self._deliver)

    def call_each(self, function: Callable[[Job], None], jobs: Sequence[Job]) -> None:
        """Calls a function with each job in the event loop's thread. Called in the executor thread."""
        for job in jobs:
            self._loop.call_soon_threadsafe(function, job)

    def _deliver(self) -> None:
        self._is_scheduled = False  # first, so that what ends from here on wakes the event loop again
        while self._batches:
            self._on_batch(self._batches.popleft())
