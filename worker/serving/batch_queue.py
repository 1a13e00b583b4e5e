"""The queue in front of the one executor thread, and the dynamic batcher that empties it.

The event loop puts jobs into a mailbox; the executor thread alone sorts, joins and runs them, so that nothing is
locked. A job is claimed exactly once, by whoever comes first: the executor that runs it, or the loop that gives it up.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

import grpc

from worker.errors import Refused, unavailable
from worker.runtime.context import Context, Ran
from worker.serving.job import Done, Job, Policy

# A job that was cancelled lies in the queue until the executor comes by; more than so many are not let in.
MOST_CANCELLED = 10_000
# Results wait so long for others at most, and only where passes are as short; how fast a long one is forgotten.
SHORT_NS = 200_000
FORGET = 0.99


class Batcher:
    """One executor thread and the queue in front of it. Its methods belong to the event loop's thread."""

    def __init__(
        self,
        context: Context,
        policy: Policy,
        loop: asyncio.AbstractEventLoop,
        on_execution: Callable[[int, Ran, int], None] = lambda rows, ran, held_ns: None,
    ) -> None:
        self._context = context
        self._policy = policy
        self._loop = loop
        self._on_execution = on_execution
        self._mailbox: SimpleQueue[Job | Callable[[], None] | None] = SimpleQueue()
        self._finished: deque[tuple[int, Ran | BaseException, list[Job], int]] = deque()
        # How long the executor took to hand its last pass over: that keeps the next one waiting.
        self._handing_ns = 0
        self._woken = False
        # The executor's own: when the oldest result that the loop does not know of came, and the longest pass lately.
        self._unreported_ns = 0
        self._longest_ns = 0.0
        self._active: set[Job] = set()
        # The executor's own: one queue a priority level.
        self._levels: list[deque[Job]] = [deque() for _ in range(policy.priority_levels + 1)]
        # Each is written by one thread only; their difference is the depth of the queue.
        self._submitted = 0
        self._given_up = 0
        self._taken = 0
        self._discarded = 0
        self._thread = threading.Thread(target=self._execute, name="executor", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Requests that wait for their forward pass."""
        return self._submitted - self._given_up - self._taken

    def call(self, function: Callable[[], Any]) -> "asyncio.Future[Any]":
        """Runs `function` in the executor thread, ahead of all jobs submitted later."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def run() -> None:
            try:
                result = function()
            except BaseException as error:
                self._loop.call_soon_threadsafe(_fail, future, error)
            else:
                self._loop.call_soon_threadsafe(_succeed, future, result)

        self._mailbox.put(run)
        return future

    async def infer(self, job: Job) -> Done:
        """Waits for the job's end. Raises Refused or what the model raised. Cancelled while it waits it never runs."""
        future: asyncio.Future[Done] = self._loop.create_future()

        def done(result: Done | BaseException) -> None:
            if isinstance(result, BaseException):
                _fail(future, result)
            else:
                _succeed(future, result)

        self.submit(job, done)
        try:
            return await future
        except asyncio.CancelledError:
            self.cancel(job)
            raise

    def submit(self, job: Job, done: Callable[[Done | BaseException], None]) -> None:
        """Puts the job into the queue; `done` is called with how it ended. Raises Refused where it cannot wait."""
        policy = self._policy
        if policy.max_queue_size and self.depth >= policy.max_queue_size:
            raise unavailable(f"the queue is full: {policy.max_queue_size} requests wait")
        if self._given_up - self._discarded > MOST_CANCELLED:
            raise unavailable(f"the queue is full of requests that were cancelled: {MOST_CANCELLED}")
        job.done = done
        if job.expires_ns:
            delay = (job.expires_ns - job.arrived_ns) / 1e9
            job.timer = self._loop.call_later(delay, self._expire, job)
        self._submitted += 1
        self._active.add(job)
        self._mailbox.put(job)

    def cancel(self, job: Job) -> None:
        """Nobody waits for the job any more: its `done` is not called. While it waits it never runs."""
        self._withdraw(job)
        self._ends(job)

    def _withdraw(self, job: Job) -> bool:
        """True where the job had not been taken to be run, and now never is."""
        waited = job.claim()
        if waited:
            self._given_up += 1
            job.inputs = ()  # it lies in the queue until the executor comes by
        return waited

    def _ends(self, job: Job) -> Callable[[Done | BaseException], None] | None:
        """Forgets the job; its `done`, the first time."""
        done, job.done = job.done, None
        self._active.discard(job)
        if job.timer is not None:
            job.timer.cancel()
        return done

    def _end(self, job: Job, result: Done | BaseException) -> None:
        done = self._ends(job)
        if done is not None:
            done(result)

    def _expire(self, job: Job) -> None:
        if self._withdraw(job):
            self._end(job, _expired())

    def give_up(self) -> None:
        """Answers everything that waits or runs with UNAVAILABLE; what waits is never run."""
        for job in list(self._active):
            self._withdraw(job)
            self._end(job, unavailable("the worker is ending"))

    async def stop(self, patience_s: float) -> bool:
        """Ends the thread after what is queued already. False where it does not end in time."""
        self._mailbox.put(None)
        await asyncio.to_thread(self._thread.join, patience_s)
        return not self._thread.is_alive()

    # What follows runs in the executor thread.

    def _execute(self) -> None:
        mailbox = self._mailbox
        alone = self._policy.max_batch_size <= 1
        while True:
            if not any(self._levels):
                if self._unreported_ns and mailbox.empty():
                    self._report()
                item = mailbox.get()
                if item is None:
                    self._report()
                    return
                if alone and isinstance(item, Job) and mailbox.empty():
                    # The usual case, without the sorting.
                    if self._claimed(item, time.monotonic_ns()):
                        self._run([item])
                    continue
                self._sort(item)
            while not mailbox.empty():
                item = mailbox.get()
                if item is None:
                    mailbox.put(None)
                    break
                self._sort(item)
            jobs = self._next_batch()
            if jobs:
                self._run(jobs)

    def _sort(self, item: Job | Callable[[], None]) -> None:
        if isinstance(item, Job):
            self._levels[item.priority].append(item)
        else:
            item()

    def _next_batch(self) -> list[Job]:
        head = self._candidates(1)
        if not head or self._policy.max_batch_size <= 1:
            return self._take(head)
        policy = self._policy
        limit = policy.max_batch_size
        ready_at = min(job.arrived_ns for job in head) + policy.max_queue_delay_us * 1000
        while True:
            jobs = self._candidates(limit)
            rows = sum(job.rows for job in jobs)
            closed = rows >= limit or len(jobs) < sum(map(len, self._levels))  # full, or the next one does not fit
            if sizes := [size for size in policy.preferred if size <= rows]:
                return self._take(_up_to(jobs, max(sizes)))
            wait_ns = ready_at - time.monotonic_ns()
            if closed or wait_ns <= 0:
                return self._take(jobs)
            if self._unreported_ns:
                self._report()
            try:
                item = self._mailbox.get(timeout=wait_ns / 1e9)
            except Empty:
                return self._take(jobs)
            if item is None:
                self._mailbox.put(None)
                return self._take(jobs)
            self._sort(item)

    def _candidates(self, limit: int) -> list[Job]:
        """The first jobs in order that may run as one: of equal keys, no more rows than `limit`, at least one."""
        jobs: list[Job] = []
        rows = 0
        for level in self._levels:
            while level and level[0].claimed:
                level.popleft()
                self._discarded += 1
            for job in level:
                if jobs and (job.key != jobs[0].key or rows + job.rows > limit):
                    return jobs
                jobs.append(job)
                rows += job.rows
                if rows >= limit:
                    return jobs
        return jobs

    def _take(self, jobs: list[Job]) -> list[Job]:
        """Removes `jobs` from the queue and claims them; what was given up or has expired is left out."""
        now = time.monotonic_ns()
        for job in jobs:
            self._levels[job.priority].popleft()
        return [job for job in jobs if self._claimed(job, now)]

    def _claimed(self, job: Job, now: int) -> bool:
        """True where the job is to be run now. One that has expired is answered."""
        if not job.claim():
            self._discarded += 1
            return False
        self._taken += 1
        if (job.expires_ns and now >= job.expires_ns) or (job.deadline_ns and now >= job.deadline_ns):
            self._loop.call_soon_threadsafe(self._end, job, _expired())
            return False
        job.begun_ns = now
        return True

    def _run(self, jobs: list[Job]) -> None:
        rows = sum(job.rows for job in jobs)
        result: Ran | BaseException
        try:
            result = self._context.run([job.inputs for job in jobs])
        except BaseException as error:
            result = error
        over_ns = time.monotonic_ns()
        self._finished.append((rows, result, jobs, over_ns - jobs[0].begun_ns + self._handing_ns))
        self._longest_ns = max(over_ns - jobs[0].begun_ns, FORGET * self._longest_ns)
        self._unreported_ns = self._unreported_ns or over_ns
        # A wake-up of the loop costs more than a small model: while passes are short and more jobs wait, it is put off.
        if self._longest_ns > SHORT_NS or over_ns - self._unreported_ns > SHORT_NS:
            self._report()
        self._handing_ns = time.monotonic_ns() - over_ns

    def _report(self) -> None:
        """Wakes the loop, once for all that has finished until it comes."""
        self._unreported_ns = 0
        if not self._woken and self._finished:
            self._woken = True
            self._loop.call_soon_threadsafe(self._hand_over)

    # And this in the event loop's again.

    def _hand_over(self) -> None:
        self._woken = False  # first, so that what finishes from here on wakes the loop again
        while self._finished:
            rows, result, jobs, held_ns = self._finished.popleft()
            if isinstance(result, BaseException):
                for job in jobs:
                    self._end(job, result)
            else:
                self._on_execution(rows, result, held_ns)
                for job, outputs in zip(jobs, result.outputs, strict=True):
                    self._end(job, Done(outputs, result, job.begun_ns - job.arrived_ns))


def _up_to(jobs: list[Job], rows: int) -> list[Job]:
    chosen: list[Job] = []
    for job in jobs:
        if sum(other.rows for other in chosen) + job.rows > rows:
            break
        chosen.append(job)
    return chosen or jobs[:1]


def _expired() -> Refused:
    return Refused(grpc.StatusCode.UNAVAILABLE, "the request's timeout expired while it waited")


def _succeed(future: "asyncio.Future[Any]", result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
