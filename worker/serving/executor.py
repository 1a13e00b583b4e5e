"""The thread that runs the model, and BatchExecutor, through which the event loop submits requests to it."""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from worker.errors import ServiceError, unavailable
from worker.runtime import ExecutionContext, ForwardPass
from worker.serving.batch_queue import BatchingPolicy, BatchQueue, Job, JobResult
from worker.serving.delivery import FinishedBatch, ResultDelivery


class ExecutorThread:
    """The one thread in which the execution context lives: runs calls and, after them, batches of the queue.

    All methods belong to the event loop's thread. The thread sleeps while there is nothing to run.
    """

    def __init__(
        self,
        context: ExecutionContext,
        queue: BatchQueue,
        delivery: ResultDelivery,
        on_expired: Callable[[Job], None],
    ) -> None:
        self._context = context
        self._queue = queue
        self._delivery = delivery
        self._on_expired = on_expired
        self._calls: deque[Callable[[], None]] = deque()
        self._signals: SimpleQueue[None] = SimpleQueue()
        # True while the thread sleeps or is about to. It looks for work after it has set this, and `notify` reads it
        # after work was added, so that one of the two sees the other.
        self._is_idle = False
        self._is_stopping = False
        self._thread = threading.Thread(target=self._work, name="executor", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """Wakes the thread after something was added to the queue."""
        if self._is_idle:
            self._is_idle = False
            self._signals.put(None)

    def call(self, function: Callable[[], None]) -> None:
        """Runs a function in the thread before the next batch."""
        self._calls.append(function)
        self.notify()

    def stop(self) -> None:
        """Lets the thread end once the queue is empty."""
        self._is_stopping = True
        self.notify()

    def join(self, timeout_s: float) -> bool:
        """Waits until the thread has ended. Returns False where it has not after `timeout_s` seconds."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # What follows runs in the thread.

    def _work(self) -> None:
        queue, calls, delivery = self._queue, self._calls, self._delivery
        while True:
            while calls:
                calls.popleft()()
            batch = queue.next_batch(time.monotonic_ns(), final=self._is_stopping)
            if batch.expired:
                delivery.call_each(self._on_expired, batch.expired)
            if batch.jobs:
                self._run(batch.jobs)
                if not queue.depth:
                    # Nothing else to run: the results need not wait until the queue was asked again.
                    delivery.flush()
            elif not batch.expired:
                delivery.flush()
                if self._is_stopping and not queue.has_arrivals:
                    return
                self._sleep(batch.wait_ns)

    def _run(self, jobs: list[Job]) -> None:
        result: ForwardPass | BaseException
        try:
            result = self._context.run([job.inputs for job in jobs])
        except BaseException as error:
            result = error
        self._delivery.add(jobs, result, time.monotonic_ns())

    def _sleep(self, wait_ns: int | None) -> None:
        self._is_idle = True
        if not (self._queue.has_arrivals or self._calls or self._is_stopping):
            if wait_ns is None:
                self._signals.get()
            else:
                with contextlib.suppress(Empty):
                    self._signals.get(timeout=wait_ns / 1e9)
        self._is_idle = False


class BatchExecutor:
    """Runs jobs in batches: the queue, the executor thread that empties it, and the delivery of the results.

    All methods belong to the event loop's thread. `on_pass` is called with the rows of each forward pass that
    succeeded, the pass, and the nanoseconds for which it kept the executor from the next one.
    """

    def __init__(
        self,
        context: ExecutionContext,
        policy: BatchingPolicy,
        loop: asyncio.AbstractEventLoop,
        on_pass: Callable[[int, ForwardPass, int], None] = lambda rows, forward_pass, occupied_ns: None,
    ) -> None:
        self._loop = loop
        self._on_pass = on_pass
        self._active: set[Job] = set()
        self._queue = BatchQueue(policy)
        self._thread = ExecutorThread(context, self._queue, ResultDelivery(loop, self._end_batch), self._fail_expired)

    @property
    def depth(self) -> int:
        """Jobs that wait for their forward pass."""
        return self._queue.depth

    def call(self, function: Callable[[], Any]) -> "asyncio.Future[Any]":
        """Runs `function` in the executor thread before the next batch, and returns a future of its result."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def run() -> None:
            try:
                result = function()
            except BaseException as error:
                self._loop.call_soon_threadsafe(_fail, future, error)
            else:
                self._loop.call_soon_threadsafe(_succeed, future, result)

        self._thread.call(run)
        return future

    def submit(self, job: Job, on_end: Callable[[JobResult | BaseException], None]) -> None:
        """Queues a job; `on_end` is called once with its result or error. Raises ServiceError where it cannot wait."""
        self._queue.submit(job)
        job.on_end = on_end
        if job.expires_ns:
            delay_s = (job.expires_ns - job.arrived_ns) / 1e9
            job.timer = self._loop.call_later(delay_s, self._expire, job)
        self._active.add(job)
        self._thread.notify()

    def cancel(self, job: Job) -> None:
        """Cancels a job: `on_end` is not called, and a job in the queue is never run."""
        self._queue.cancel(job)
        self._forget(job)

    def fail_all(self, error: ServiceError) -> None:
        """Ends all jobs with this error; those in the queue are never run."""
        for job in list(self._active):
            self._queue.cancel(job)
            self._end(job, error)

    async def stop(self, timeout_s: float) -> bool:
        """Ends the thread once the queue is empty. Returns False where it has not ended after `timeout_s` seconds."""
        self._thread.stop()
        return await asyncio.to_thread(self._thread.join, timeout_s)

    def _expire(self, job: Job) -> None:
        if self._queue.cancel(job):
            self._fail_expired(job)

    def _fail_expired(self, job: Job) -> None:
        self._end(job, unavailable("the request's timeout expired while it waited"))

    def _end_batch(self, batch: FinishedBatch) -> None:
        jobs, result = batch.jobs, batch.result
        if isinstance(result, BaseException):
            for job in jobs:
                self._end(job, result)
        else:
            self._on_pass(batch.rows, result, batch.occupied_ns)
            for job, outputs in zip(jobs, result.outputs, strict=True):
                self._end(job, JobResult(outputs, result, job.begun_ns - job.arrived_ns))

    def _end(self, job: Job, result: JobResult | BaseException) -> None:
        on_end = self._forget(job)
        if on_end is not None:
            on_end(result)

    def _forget(self, job: Job) -> Callable[[JobResult | BaseException], None] | None:
        """Forgets a job, and returns its `on_end` the first time."""
        on_end, job.on_end = job.on_end, None
        self._active.discard(job)
        if job.timer is not None:
            job.timer.cancel()
        return on_end


def _succeed(future: "asyncio.Future[Any]", result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
