"""BatchQueue: which requests run next, and which of them together. The queue has no thread, clock or future."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from worker.errors import unavailable
from worker.runtime import ForwardPass, Tensor

# A cancelled job stays in the queue until the executor thread takes its next batch. With more than so many of them,
# further jobs are refused.
MAX_CANCELLED = 10_000


@dataclass(frozen=True)
class BatchingPolicy:
    """Triton's dynamic batching, with its meanings and defaults. `max_batch_size` 0: requests are never joined."""

    max_batch_size: int = 0
    #: How long the oldest request may wait for others.
    max_queue_delay_us: int = 0
    #: Batch sizes to form as soon as possible; none: only the largest.
    preferred: tuple[int, ...] = ()
    #: Requests that may wait; 0: no limit.
    max_queue_size: int = 0
    #: 0: no levels. Level 1 goes first.
    priority_levels: int = 0
    default_priority: int = 0


class JobResult(NamedTuple):
    """The outputs of a job, the forward pass that it was part of, and how long it waited for it."""

    outputs: tuple[Tensor, ...]
    forward_pass: ForwardPass
    queue_ns: int


class Job:
    """One request in the queue. Times are of time.monotonic_ns.

    A job is claimed once: by the executor thread, which then runs it, or by the event loop, which then withdraws it.
    """

    __slots__ = (
        "_claims",
        "arrived_ns",
        "begun_ns",
        "deadline_ns",
        "expires_ns",
        "inputs",
        "key",
        "on_end",
        "priority",
        "rows",
        "timer",
    )

    def __init__(
        self,
        inputs: Sequence[Tensor],
        *,
        rows: int = 1,
        key: Any = None,
        priority: int = 0,
        expires_ns: int = 0,
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        # Only requests of equal keys are joined: all shapes except for the first dimension.
        self.key = key
        self.priority = priority
        # When it has waited too long and is answered with an error; 0: never.
        self.expires_ns = expires_ns
        # When the client stops waiting, and gRPC cancels the call; 0: never.
        self.deadline_ns = 0
        self.arrived_ns = time.monotonic_ns()
        self.begun_ns = 0
        # Called once, in the event loop's thread, with the result or the error; None afterwards.
        self.on_end: Callable[[JobResult | BaseException], None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._claims = [True]

    @property
    def is_claimed(self) -> bool:
        """True once the job has been taken to be run, or withdrawn."""
        return not self._claims

    def claim(self) -> bool:
        """Returns True for the first caller only, from whichever thread: list.pop is atomic."""
        try:
            return self._claims.pop()
        except IndexError:
            return False


class Batch(NamedTuple):
    """What to do next: run `jobs` together; answer `expired`, which waited too long; where both are empty, wait.

    `wait_ns` is how long to wait for jobs that could join those in the queue; None: until the next `submit`.
    """

    jobs: list[Job]
    expired: list[Job]
    wait_ns: int | None


class BatchQueue:
    """The queue in front of the executor, in order of priority and arrival, and the batches that the policy forms.

    Two threads may share a queue without a lock: one calls `submit` and `cancel`, the other `next_batch`. Jobs pass
    from one to the other through a deque, each is claimed once (Job.claim), and each counter is written by one thread.
    """

    def __init__(self, policy: BatchingPolicy) -> None:
        self._policy = policy
        # In this case the arrivals are the queue: nothing is sorted or joined.
        self._is_fifo = policy.max_batch_size <= 1 and not policy.priority_levels
        self._arrivals: deque[Job] = deque()
        # Written by the thread that submits.
        self._submitted = 0
        self._cancelled = 0
        # Written by the thread that takes batches: one queue for each priority level, jobs taken to be run, and
        # cancelled jobs that have left the queue.
        self._levels: list[deque[Job]] = [deque() for _ in range(policy.priority_levels + 1)]
        self._taken = 0
        self._discarded = 0

    @property
    def depth(self) -> int:
        """Jobs that wait for their forward pass."""
        return self._submitted - self._cancelled - self._taken

    @property
    def has_arrivals(self) -> bool:
        """True where `next_batch` has not looked yet at a job that was submitted."""
        return bool(self._arrivals)

    def submit(self, job: Job) -> None:
        """Adds a job. Raises ServiceError (UNAVAILABLE) where the queue is full."""
        limit = self._policy.max_queue_size
        if limit and self.depth >= limit:
            raise unavailable(f"the queue is full: {limit} requests wait")
        if self._cancelled - self._discarded > MAX_CANCELLED:
            raise unavailable(f"the queue is full of cancelled requests: more than {MAX_CANCELLED}")
        self._submitted += 1
        self._arrivals.append(job)

    def cancel(self, job: Job) -> bool:
        """Withdraws a job. Returns False where it has been taken to be run already; else it is never run."""
        if not job.claim():
            return False
        self._cancelled += 1
        job.inputs = ()  # the job stays in the queue until the next batch; its tensors need not
        return True

    def next_batch(self, now_ns: int, *, final: bool = False) -> Batch:
        """Takes the next batch out of the queue at a time of time.monotonic_ns.

        Jobs of a batch have equal keys, and together at most `max_batch_size` rows; `begun_ns` is set. `final`: no
        job will be submitted any more, so that none waits for others.
        """
        if self._is_fifo:
            return self._next_single(now_ns)
        self._sort_arrivals()
        jobs = self._candidates()
        if not jobs:
            return Batch([], [], None)
        policy = self._policy
        if policy.max_batch_size > 1:
            rows = sum(job.rows for job in jobs)
            if preferred := max((size for size in policy.preferred if size <= rows), default=0):
                jobs = _up_to(jobs, preferred)
            # A job of the queue that is not among them does not fit, so that the batch cannot grow.
            elif rows < policy.max_batch_size and len(jobs) == sum(map(len, self._levels)) and not final:
                oldest_ns = min(job.arrived_ns for job in jobs)
                wait_ns = oldest_ns + policy.max_queue_delay_us * 1000 - now_ns
                if wait_ns > 0:
                    return Batch([], [], wait_ns)
        for job in jobs:
            self._levels[job.priority].popleft()
        expired: list[Job] = []
        return Batch([job for job in jobs if self._take(job, now_ns, expired)], expired, None)

    def _next_single(self, now_ns: int) -> Batch:
        arrivals = self._arrivals
        expired: list[Job] = []
        while arrivals:
            job = arrivals.popleft()
            if self._take(job, now_ns, expired):
                return Batch([job], expired, None)
        return Batch([], expired, None)

    def _sort_arrivals(self) -> None:
        arrivals = self._arrivals
        while arrivals:
            job = arrivals.popleft()
            self._levels[job.priority].append(job)
        if self._cancelled != self._discarded:
            self._discard_cancelled()

    def _discard_cancelled(self) -> None:
        for number, level in enumerate(self._levels):
            waiting = deque(job for job in level if not job.is_claimed)
            self._discarded += len(level) - len(waiting)
            self._levels[number] = waiting

    def _candidates(self) -> list[Job]:
        """Returns the first jobs in order that may run together: at least one, if any waits."""
        limit = self._policy.max_batch_size
        jobs: list[Job] = []
        rows = 0
        for level in self._levels:
            for job in level:
                if jobs and (job.key != jobs[0].key or rows + job.rows > limit):
                    return jobs
                jobs.append(job)
                rows += job.rows
                if rows >= limit:
                    return jobs
        return jobs

    def _take(self, job: Job, now_ns: int, expired: list[Job]) -> bool:
        """Claims a job that has left the queue. Returns True where it is to run; adds it to `expired` if too late."""
        if not job.claim():
            self._discarded += 1
            return False
        self._taken += 1
        if (job.expires_ns and now_ns >= job.expires_ns) or (job.deadline_ns and now_ns >= job.deadline_ns):
            expired.append(job)
            return False
        job.begun_ns = now_ns
        return True


def _up_to(jobs: list[Job], rows: int) -> list[Job]:
    """Returns the first jobs that have together at most so many rows: at least one."""
    total = 0
    for count, job in enumerate(jobs):
        total += job.rows
        if total > rows:
            return jobs[: max(count, 1)]
    return jobs
