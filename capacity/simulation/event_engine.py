"""A pool of ordinals from event to event: batches, bounds of queues, deadlines, ordinals that are down."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from capacity.simulation.least_outstanding import Outstanding
from capacity.simulation.queue_work import DEADLINE_EXCEEDED, OK, UNAVAILABLE, Played, Work


def by_event(work: Work) -> Played:
    """Everything: batches are formed when an ordinal is free, so the loop goes from event to event."""
    return _Events(work).play()


class _Events:
    """One play. An ordinal is looked at when it becomes free, when a batch has waited enough, and when it fails."""

    def __init__(self, work: Work) -> None:
        self._work = work
        n, k = work.due.size, len(work.overheads)
        self._due: list[float] = work.due.tolist()
        self._quantile: list[int] = work.quantile.tolist()
        self._overhead: list[int] = work.overhead_quantile.tolist()
        self._tables: list[dict[int, Sequence[float]]] = [{} for _ in range(k)]
        self._waiting: list[deque[int]] = [deque() for _ in range(k)]
        self._free = [0.0] * k
        # When a batch that is being waited for has waited long enough; None: none is.
        self._ready: list[float | None] = [None] * k
        self._looks: list[tuple[float, int]] = [(begin, ordinal) for ordinal, begin, _ in work.down]
        heapq.heapify(self._looks)
        self._down: list[list[tuple[float, float]]] = [
            sorted((begin, end) for ordinal, begin, end in work.down if ordinal == w) for w in range(k)
        ]
        #: When the router learns that an ordinal is down, and that it is back.
        self._news: deque[tuple[float, int, bool]] = deque(
            sorted(
                news
                for ordinal, begin, end in work.down
                if begin + work.noticed < end
                for news in ((begin + work.noticed, ordinal, False), (end, ordinal, True))
                # Where one failure ends within another the ordinal is not back.
                if not (news[2] and self._is_down(ordinal, end))
            )
        )
        self._counts_outstanding = work.routes is None
        self._bounded = math.isfinite(work.deadline)
        self._outstanding = Outstanding(k)
        self._replies: list[tuple[float, int]] = []
        self._replied = bytearray(n)
        self._ends = [math.inf] * n
        self._code = [UNAVAILABLE] * n
        self._worker = [0] * n
        self._rows = [0] * n
        self._busy = [0.0] * k
        self._passes: dict[int, int] = {}

    def play(self) -> Played:
        work, k = self._work, len(self._work.overheads)
        routes = None if work.routes is None else work.routes.tolist()
        looks, replies, outstanding = self._looks, self._replies, self._outstanding
        limit, deadline, pop = work.batching.queue_limit, work.deadline, heapq.heappop
        bounded = self._bounded
        expiring: deque[int] = deque()
        news, known_down = self._news, set[int]()
        up, up_mask = list[int](), -1
        for i, due in enumerate(self._due):
            while looks and looks[0][0] <= due:
                self._look(*pop(looks))
            while news and news[0][0] <= due:
                _, ordinal, is_up = news.popleft()
                (known_down.discard if is_up else known_down.add)(ordinal)
                # Where all are down all are asked.
                up = [one for one in range(k) if one not in known_down] if known_down else []
                up_mask = sum(1 << one for one in up)
            if routes is None:
                while replies and replies[0][0] <= due:
                    self._reply(pop(replies)[1])
                # A request ends with its deadline too, where that comes before its reply.
                while expiring and self._due[expiring[0]] + deadline <= due:
                    self._reply(expiring.popleft())
                w = outstanding.fewest(up[(i + 1) % len(up)], up_mask) if up else outstanding.fewest((i + 1) % k)
                outstanding.up(w)
            else:
                w = work.around(i, up) if up and work.around else routes[i]
            self._worker[i] = w
            if self._down[w] and self._is_down(w, due):
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
                self._look(due, w)
        while looks:
            self._look(*pop(looks))
        return self._played()

    def _reply(self, i: int) -> None:
        if not self._replied[i]:
            self._replied[i] = 1
            self._outstanding.down(self._worker[i])

    def _refuse(self, i: int, now: float) -> None:
        """Answered at once, without a place in the queue."""
        if self._counts_outstanding:
            over = self._work.overheads[self._worker[i]][self._overhead[i]]
            heapq.heappush(self._replies, (now + over, i))

    def _is_down(self, w: int, now: float) -> bool:
        return any(begin <= now < end for begin, end in self._down[w])

    def _drop_expired(self, w: int, now: float) -> None:
        """All have the same deadline, so the first in the queue expires first."""
        queue, latest = self._waiting[w], now - self._work.deadline
        while queue and self._due[queue[0]] <= latest:
            self._code[queue.popleft()] = DEADLINE_EXCEEDED

    def _look(self, now: float, w: int) -> None:
        """Begins a pass where the ordinal is free and a batch is due."""
        queue = self._waiting[w]
        if self._down[w] and self._is_down(w, now):
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
            self._begin(w, rows, now)

    def _size(self, w: int, waiting: int, now: float) -> int:
        """Rows of the pass to begin now; 0: wait for more. worker/batching.py decides alike."""
        batching = self._work.batching
        if batching.max_size == 1:
            return 1
        ready = self._ready[w]
        if ready is None:
            ready = self._ready[w] = self._due[self._waiting[w][0]] + batching.delay_us
            if ready > now:
                heapq.heappush(self._looks, (ready, w))
        rows = min(waiting, batching.max_size)
        if batching.preferred and (formed := [size for size in batching.preferred if size <= rows]):
            return max(formed)
        return rows if rows == batching.max_size or now >= ready else 0

    def _begin(self, w: int, rows: int, now: float) -> None:
        work, queue = self._work, self._waiting[w]
        batch = [queue.popleft() for _ in range(rows)]
        table = self._tables[w].get(rows)
        if table is None:
            table = self._tables[w][rows] = work.passes(w, rows)
        ends = now + table[self._quantile[batch[0]]]
        fails = None
        if self._down[w]:
            fails = min((begin for begin, _ in self._down[w] if now < begin < ends), default=None)
        free = ends if fails is None else fails
        self._busy[w] += free - now
        self._passes[rows] = self._passes.get(rows, 0) + 1
        overheads, counts, deadline = work.overheads[w], self._counts_outstanding, work.deadline
        for i in batch:
            self._rows[i] = rows
            answered = ends + overheads[self._overhead[i]]
            expires = self._due[i] + deadline
            if fails is not None and fails < expires:
                answered = fails
            elif answered > expires:
                answered = expires
                self._code[i] = DEADLINE_EXCEEDED
            else:
                self._code[i] = OK
                self._ends[i] = answered
            if counts:
                heapq.heappush(self._replies, (answered, i))
        self._free[w] = free
        heapq.heappush(self._looks, (free, w))

    def _played(self) -> Played:
        return Played(
            np.array(self._ends) - self._work.due,
            np.array(self._code, np.int8),
            np.array(self._worker, np.int32),
            np.array(self._rows, np.int32),
            np.array(self._busy),
            dict(sorted(self._passes.items())),
        )
