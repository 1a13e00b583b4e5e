"""Queues of single-threaded ordinals, three ways: a recursion in numpy, a loop over requests, and a loop over events.

All take the same Work and give the same Outcome where their conditions hold. Times are in µs.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from capacity.outstanding import Outstanding

OK, DEADLINE_EXCEEDED, UNAVAILABLE = 0, 4, 14

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: Time of a pass of so many rows on this ordinal, by the number of a quantile.
Table = Callable[[int, int], Sequence[float]]


@dataclass(frozen=True)
class Batching:
    """Dynamic batching as a worker has it: --max-batch-size, --max-queue-delay-us, --preferred-batch-size,
    --max-queue-size (None: no bound). `max_size` 1: every request is a pass of its own."""

    max_size: int = 1
    delay_us: float = 0.0
    preferred: tuple[int, ...] = ()
    queue_limit: int | None = None

    def __post_init__(self) -> None:
        if self.max_size < 1 or self.delay_us < 0 or (self.queue_limit is not None and self.queue_limit < 1):
            raise ValueError(f"batching has a size and a queue of at least 1 and no negative delay, not {self}")
        if any(not 1 <= size <= self.max_size for size in self.preferred):
            raise ValueError(f"preferred batch sizes lie between 1 and {self.max_size}, not {self.preferred}")


@dataclass(frozen=True)
class Work:
    """n requests for k ordinals: when each is due (ascending), and which quantiles its pass and its overhead are.

    `passes(ordinal, rows)` and `overheads[ordinal]` are tables of equally likely times. `routes`, shape (n,), says the
    ordinal of each; None: the one with the fewest outstanding. `down` has (ordinal, from, to). `noticed` after its
    beginning the router goes around it: `around(i, up)` is then the ordinal of request i, where there are `routes`.
    """

    due: Floats
    quantile: Ints
    overhead_quantile: Ints
    passes: Table
    overheads: Sequence[Sequence[float]]
    routes: Ints | None
    batching: Batching
    deadline: float = math.inf
    down: tuple[tuple[int, float, float], ...] = ()
    noticed: float = math.inf
    around: Callable[[int, Sequence[int]], int] | None = None


@dataclass
class Played:
    """Of each request: latency in µs (inf where it failed), gRPC code, ordinal, rows of its pass (0: never run).

    `busy_us` is how long passes held each ordinal, `passes` how many of each size there were.
    """

    latency: Floats
    code: NDArray[np.int8]
    worker: NDArray[np.int32]
    rows: NDArray[np.int32]
    busy_us: Floats
    passes: dict[int, int] = field(default_factory=dict)


def play(work: Work) -> Played:
    """By the quickest of the three ways that is exact for this work."""
    single = work.batching.max_size == 1 and not work.down
    if single and work.routes is not None and work.batching.queue_limit is None:
        played = lindley(work)
        if played is not None:
            return played
    return by_request(work) if single else by_event(work)


def lindley(work: Work) -> Played | None:
    """Without batching, bounds or a router that looks: Lindley's recursion as a running maximum. None where a request
    waited past the deadline, which the recursion does not know.

    Departure i of a queue is max over j ≤ i of (arrival j + services j…i).
    """
    assert work.routes is not None
    n, k = work.due.size, len(work.overheads)
    order = np.argsort(work.routes, kind="stable")
    ends = np.cumsum(np.bincount(work.routes, minlength=k))
    latency, busy = np.empty(n), np.zeros(k)
    start = 0
    for ordinal, end in enumerate(ends.tolist()):
        mine = order[start:end]
        start = end
        due, service = work.due[mine], np.asarray(work.passes(ordinal, 1))[work.quantile[mine]]
        total = np.cumsum(service)
        waited = np.maximum.accumulate(due - total + service) + total - service - due
        if (waited >= work.deadline).any():
            return None
        # Sums of millions of services leave a rest of rounding where nobody waited.
        waited = np.maximum(waited, 0.0)
        latency[mine] = waited + service + np.asarray(work.overheads[ordinal])[work.overhead_quantile[mine]]
        busy[ordinal] = float(total[-1]) if mine.size else 0.0
    late = latency > work.deadline
    code = np.where(late, DEADLINE_EXCEEDED, OK).astype(np.int8)
    latency[late] = math.inf
    return Played(latency, code, work.routes.astype(np.int32), np.ones(n, np.int32), busy, {1: n} if n else {})


def by_request(work: Work) -> Played:
    """Without batching: what a request will meet is known when it is due, so one loop over requests is enough."""
    k, deadline, limit = len(work.overheads), work.deadline, work.batching.queue_limit
    quantile, overhead_quantile = work.quantile.tolist(), work.overhead_quantile.tolist()
    tables, overheads = [work.passes(ordinal, 1) for ordinal in range(k)], work.overheads
    routes = None if work.routes is None else work.routes.tolist()
    free, busy = [0.0] * k, [0.0] * k
    waiting: list[deque[float]] = [deque() for _ in range(k)]
    latency: list[float] = []
    worker: list[int] = []
    code: list[int] = []
    never_run: list[int] = []
    outstanding = Outstanding(k)
    replies: list[tuple[float, int]] = []
    push, pop = heapq.heappush, heapq.heappop
    for i, due in enumerate(work.due.tolist()):
        if routes is not None:
            w = routes[i]
        else:
            while replies and replies[0][0] <= due:
                outstanding.down(pop(replies)[1])
            w = outstanding.fewest((i + 1) % k)
            outstanding.up(w)
        over = overheads[w][overhead_quantile[i]]
        began = free[w]
        if began < due:
            began = due
        ends, said = began - due, OK
        if limit is not None:
            queue = waiting[w]
            while queue and queue[0] <= due:
                queue.popleft()
            if len(queue) >= limit:
                ends, said = over, UNAVAILABLE
            elif began > due:
                queue.append(min(began, due + deadline))
        if said == OK:
            if ends >= deadline:
                ends, said = deadline, DEADLINE_EXCEEDED
                never_run.append(i)
            else:
                takes = tables[w][quantile[i]]
                free[w] = began + takes
                busy[w] += takes
                ends += takes + over
                if ends > deadline:
                    ends, said = deadline, DEADLINE_EXCEEDED
        else:
            never_run.append(i)
        latency.append(ends)
        worker.append(w)
        code.append(said)
        if routes is None:
            push(replies, (due + ends, w))
    codes = np.array(code, np.int8)
    latencies = np.array(latency, np.float64)
    latencies[codes != OK] = math.inf
    rows = np.ones(len(code), np.int32)
    rows[never_run] = 0
    ran = int(rows.sum())
    return Played(latencies, codes, np.array(worker, np.int32), rows, np.array(busy), {1: ran} if ran else {})


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
        up: list[int] = []
        for i, due in enumerate(self._due):
            while looks and looks[0][0] <= due:
                self._look(*pop(looks))
            while news and news[0][0] <= due:
                _, ordinal, is_up = news.popleft()
                (known_down.discard if is_up else known_down.add)(ordinal)
                # Where all are down all are asked.
                up = [one for one in range(k) if one not in known_down] if known_down else []
            if routes is None:
                while replies and replies[0][0] <= due:
                    self._reply(pop(replies)[1])
                # A request ends with its deadline too, where that comes before its reply.
                while expiring and self._due[expiring[0]] + deadline <= due:
                    self._reply(expiring.popleft())
                if up:
                    w = outstanding.fewest(up[(i + 1) % len(up)], sum(1 << ordinal for ordinal in up))
                else:
                    w = outstanding.fewest((i + 1) % k)
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
