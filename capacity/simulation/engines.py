"""Queues of single-threaded ordinals, three ways: a recursion in numpy, a loop over requests, and one over events.

All take the same Work and give the same Played where their conditions hold. Times are in µs.
"""

from __future__ import annotations

import heapq
import math
from collections import deque

import numpy as np

from capacity.simulation.event_engine import by_event
from capacity.simulation.least_outstanding import Outstanding
from capacity.simulation.queue_work import DEADLINE_EXCEEDED, OK, UNAVAILABLE, Played, Work


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
