"""Three exact ways to simulate queues of single-threaded ordinals: Lindley's recursion, by request, by event.

All take the same QueueWork and return the same QueueResult where their conditions hold. Times are in µs.
"""

from __future__ import annotations

import heapq
import math
from collections import deque

import numpy as np

from capacity.simulation.event_engine import simulate_by_event
from capacity.simulation.least_outstanding import OutstandingCounts
from capacity.simulation.queue_work import DEADLINE_EXCEEDED, OK, UNAVAILABLE, QueueResult, QueueWork


def simulate_queues(work: QueueWork) -> QueueResult:
    """Simulates by the fastest of the three ways that is exact for this work."""
    single = work.batching.max_size == 1 and not work.failures
    if single and work.routes is not None and work.batching.queue_limit is None:
        result = simulate_by_lindley(work)
        if result is not None:
            return result
    return simulate_by_request(work) if single else simulate_by_event(work)


def simulate_by_lindley(work: QueueWork) -> QueueResult | None:
    """Simulates by Lindley's recursion, as a running maximum in numpy: no batching, no queue bounds, and no router that
    looks at the pool. Returns None where a request waited past its deadline, which the recursion cannot express.

    Departure i of a queue is max over j ≤ i of (arrival j + services j…i); Lindley, The theory of queues with a single
    server, 1952.
    """
    assert work.routes is not None
    n, k = work.due.size, len(work.overheads)
    order = np.argsort(work.routes, kind="stable")
    ends = np.cumsum(np.bincount(work.routes, minlength=k))
    latency, busy = np.empty(n), np.zeros(k)
    start = 0
    for ordinal, end in enumerate(ends.tolist()):
        members = order[start:end]
        start = end
        due, service = work.due[members], np.asarray(work.passes(ordinal, 1))[work.quantile[members]]
        total = np.cumsum(service)
        wait = np.maximum.accumulate(due - total + service) + total - service - due
        if (wait >= work.deadline_us).any():
            return None
        # Sums of millions of services leave a rounding error where no request waited.
        wait = np.maximum(wait, 0.0)
        latency[members] = wait + service + np.asarray(work.overheads[ordinal])[work.overhead_quantile[members]]
        busy[ordinal] = float(total[-1]) if members.size else 0.0
    late = latency > work.deadline_us
    code = np.where(late, DEADLINE_EXCEEDED, OK).astype(np.int8)
    latency[late] = math.inf
    return QueueResult(latency, code, work.routes.astype(np.int32), np.ones(n, np.int32), busy, {1: n} if n else {})


def simulate_by_request(work: QueueWork) -> QueueResult:
    """Simulates in one loop over requests, without batching: what a request meets is certain when it is due."""
    k, deadline, limit = len(work.overheads), work.deadline_us, work.batching.queue_limit
    quantile, overhead_quantile = work.quantile.tolist(), work.overhead_quantile.tolist()
    tables, overheads = [work.passes(ordinal, 1) for ordinal in range(k)], work.overheads
    routes = None if work.routes is None else work.routes.tolist()
    free, busy = [0.0] * k, [0.0] * k
    waiting: list[deque[float]] = [deque() for _ in range(k)]
    latencies: list[float] = []
    ordinals: list[int] = []
    codes: list[int] = []
    never_executed: list[int] = []
    outstanding = OutstandingCounts(k)
    replies: list[tuple[float, int]] = []
    push, pop = heapq.heappush, heapq.heappop
    for i, due in enumerate(work.due.tolist()):
        if routes is not None:
            w = routes[i]
        else:
            while replies and replies[0][0] <= due:
                outstanding.decrement(pop(replies)[1])
            w = outstanding.fewest((i + 1) % k)
            outstanding.increment(w)
        overhead = overheads[w][overhead_quantile[i]]
        start = free[w]
        if start < due:
            start = due
        latency, code = start - due, OK
        if limit is not None:
            queue = waiting[w]
            while queue and queue[0] <= due:
                queue.popleft()
            if len(queue) >= limit:
                latency, code = overhead, UNAVAILABLE
            elif start > due:
                queue.append(min(start, due + deadline))
        if code == OK:
            if latency >= deadline:
                latency, code = deadline, DEADLINE_EXCEEDED
                never_executed.append(i)
            else:
                duration = tables[w][quantile[i]]
                free[w] = start + duration
                busy[w] += duration
                latency += duration + overhead
                if latency > deadline:
                    latency, code = deadline, DEADLINE_EXCEEDED
        else:
            never_executed.append(i)
        latencies.append(latency)
        ordinals.append(w)
        codes.append(code)
        if routes is None:
            push(replies, (due + latency, w))
    code_array = np.array(codes, np.int8)
    latency_us = np.array(latencies, np.float64)
    latency_us[code_array != OK] = math.inf
    rows = np.ones(len(codes), np.int32)
    rows[never_executed] = 0
    passes = int(rows.sum())
    return QueueResult(
        latency_us, code_array, np.array(ordinals, np.int32), rows, np.array(busy), {1: passes} if passes else {}
    )
