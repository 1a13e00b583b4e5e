"""Simulating a pool from event to event: batches, bounds of queues, deadlines, ordinals that fail."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from capacity.simulation.least_outstanding import OutstandingCounts
from capacity.simulation.queue_work import DEADLINE_EXCEEDED, OK, UNAVAILABLE, QueueResult, QueueWork


def simulate_by_event(work: QueueWork) -> QueueResult:
    """Simulates all that a pool can do. Batches are formed when an ordinal is free, so the loop is over events."""
    return _EventSimulation(work).run()


class _EventSimulation:
    """One simulation. An ordinal is visited when it becomes free, when a batch has waited enough, and when it fails."""

    def __init__(self, work: QueueWork) -> None:
        self._work = work
        n, k = work.due.size, len(work.overheads)
        self._due: list[float] = work.due.tolist()
        self._quantile: list[int] = work.quantile.tolist()
        self._overhead: list[int] = work.overhead_quantile.tolist()
        self._tables: list[dict[int, Sequence[float]]] = [{} for _ in range(k)]
        self._waiting: list[deque[int]] = [deque() for _ in range(k)]
        self._free = [0.0] * k
        # When a batch that waits for more requests has waited long enough; None: no batch waits.
        self._ready: list[float | None] = [None] * k
        self._visits: list[tuple[float, int]] = [(begin, ordinal) for ordinal, begin, _ in work.failures]
        heapq.heapify(self._visits)
        self._failures: list[list[tuple[float, float]]] = [
            sorted((begin, end) for ordinal, begin, end in work.failures if ordinal == w) for w in range(k)
        ]
        # When the router learns that an ordinal is down or up again: (time, ordinal, up).
        self._notices: deque[tuple[float, int, bool]] = deque(
            sorted(
                notice
                for ordinal, begin, end in work.failures
                if begin + work.detection_us < end
                for notice in ((begin + work.detection_us, ordinal, False), (end, ordinal, True))
                # Where one failure ends within another the ordinal is still down.
                if not (notice[2] and self._is_down(ordinal, end))
            )
        )
        self._counts_outstanding = work.routes is None
        self._bounded = math.isfinite(work.deadline_us)
        self._outstanding = OutstandingCounts(k)
        self._replies: list[tuple[float, int]] = []
        self._replied = bytearray(n)
        self._ends = [math.inf] * n
        self._code = [UNAVAILABLE] * n
        self._ordinal = [0] * n
        self._rows = [0] * n
        self._busy = [0.0] * k
        self._passes: dict[int, int] = {}

    def run(self) -> QueueResult:
        work, k = self._work, len(self._work.overheads)
        routes = None if work.routes is None else work.routes.tolist()
        visits, replies, outstanding = self._visits, self._replies, self._outstanding
        limit, deadline, pop = work.batching.queue_limit, work.deadline_us, heapq.heappop
        bounded = self._bounded
        expiring: deque[int] = deque()
        notices, down = self._notices, set[int]()
        up, up_mask = list[int](), -1
        for i, due in enumerate(self._due):
            while visits and visits[0][0] <= due:
                self._visit(*pop(visits))
            while notices and notices[0][0] <= due:
                _, ordinal, is_up = notices.popleft()
                (down.discard if is_up else down.add)(ordinal)
                # Where all are down, all are candidates.
                up = [other for other in range(k) if other not in down] if down else []
                up_mask = sum(1 << other for other in up)
            if routes is None:
                while replies and replies[0][0] <= due:
                    self._reply(pop(replies)[1])
                # A request ends with its deadline too, where that comes before its reply.
                while expiring and self._due[expiring[0]] + deadline <= due:
                    self._reply(expiring.popleft())
                w = outstanding.fewest(up[(i + 1) % len(up)], up_mask) if up else outstanding.fewest((i + 1) % k)
                outstanding.increment(w)
            else:
                w = work.reroute(i, up) if up and work.reroute else routes[i]
            self._ordinal[i] = w
            if self._failures[w] and self._is_down(w, due):
                self._refuse(i, due)
                continue
            queue = self._waiting[w]
            if limit is not None:
                if bounded:
                    self._drop_expired(w, due)
                if len(queue) >= limit:
                    self._refuse(i, due)
                    continue
            queue.append(i)
            if bounded and routes is None:
                expiring.append(i)
            if self._free[w] <= due:
                self._visit(due, w)
        while visits:
            self._visit(*pop(visits))
        return self._result()

    def _reply(self, i: int) -> None:
        if not self._replied[i]:
            self._replied[i] = 1
            self._outstanding.decrement(self._ordinal[i])

    def _refuse(self, i: int, now: float) -> None:
        """Fails a request at once: it takes no place in the queue."""
        if self._counts_outstanding:
            overhead = self._work.overheads[self._ordinal[i]][self._overhead[i]]
            heapq.heappush(self._replies, (now + overhead, i))

    def _is_down(self, w: int, now: float) -> bool:
        return any(begin <= now < end for begin, end in self._failures[w])

    def _drop_expired(self, w: int, now: float) -> None:
        """Fails the requests whose deadline has passed; in the order of the queue, since all have the same deadline."""
        queue, latest = self._waiting[w], now - self._work.deadline_us
        while queue and self._due[queue[0]] <= latest:
            self._code[queue.popleft()] = DEADLINE_EXCEEDED

    def _visit(self, now: float, w: int) -> None:
        """Starts a pass where the ordinal is free and a batch is ready."""
        queue = self._waiting[w]
        if self._failures[w] and self._is_down(w, now):
            while queue:
                self._refuse(queue.popleft(), now)
            self._ready[w] = None
            return
        if self._free[w] > now:
            return
        if self._bounded and queue:
            self._drop_expired(w, now)
        if not queue:
            self._ready[w] = None
            return
        rows = self._size(w, len(queue), now)
        if rows:
            self._ready[w] = None
            self._start(w, rows, now)

    def _size(self, w: int, waiting: int, now: float) -> int:
        """Rows of the pass to start now; 0: wait for more. The worker's batch queue decides by the same rules."""
        batching = self._work.batching
        if batching.max_size == 1:
            return 1
        ready = self._ready[w]
        if ready is None:
            ready = self._ready[w] = self._due[self._waiting[w][0]] + batching.delay_us
            if ready > now:
                heapq.heappush(self._visits, (ready, w))
        rows = min(waiting, batching.max_size)
        if batching.preferred and (sizes := [size for size in batching.preferred if size <= rows]):
            return max(sizes)
        return rows if rows == batching.max_size or now >= ready else 0

    def _start(self, w: int, rows: int, now: float) -> None:
        work, queue = self._work, self._waiting[w]
        batch = [queue.popleft() for _ in range(rows)]
        table = self._tables[w].get(rows)
        if table is None:
            table = self._tables[w][rows] = work.passes(w, rows)
        ends = now + table[self._quantile[batch[0]]]
        failure = None
        if self._failures[w]:
            failure = min((begin for begin, _ in self._failures[w] if now < begin < ends), default=None)
        free = ends if failure is None else failure
        self._busy[w] += free - now
        self._passes[rows] = self._passes.get(rows, 0) + 1
        overheads, counts, deadline = work.overheads[w], self._counts_outstanding, work.deadline_us
        for i in batch:
            self._rows[i] = rows
            answered = ends + overheads[self._overhead[i]]
            expires = self._due[i] + deadline
            if failure is not None and failure < expires:
                answered = failure
            elif answered > expires:
                answered = expires
                self._code[i] = DEADLINE_EXCEEDED
            else:
                self._code[i] = OK
                self._ends[i] = answered
            if counts:
                heapq.heappush(self._replies, (answered, i))
        self._free[w] = free
        heapq.heappush(self._visits, (free, w))

    def _result(self) -> QueueResult:
        return QueueResult(
            np.array(self._ends) - self._work.due,
            np.array(self._code, np.int8),
            np.array(self._ordinal, np.int32),
            np.array(self._rows, np.int32),
            np.array(self._busy),
            dict(sorted(self._passes.items())),
        )
