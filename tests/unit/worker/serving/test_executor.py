"""The executor thread and the event loop together: each job ends once, and one that was withdrawn never runs."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from worker.errors import ServiceError, unavailable
from worker.runtime import DEFAULT_SPECIFICATION, ForwardPass, Tensor, WarmUp
from worker.serving import batch_queue
from worker.serving.batch_queue import BatchingPolicy, Job, JobResult
from worker.serving.executor import BatchExecutor
from worker.wire import StatusCode


class BlockingContext:
    """A context that records each batch, and blocks inside forward until `may_run` is set."""

    specification = DEFAULT_SPECIFICATION
    parameter_bytes = threads = 0
    precision = ""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.may_run = threading.Event()
        self.may_run.set()
        self.running = threading.Event()

    def load(self) -> None: ...

    def warm_up(self, batch_sizes: Sequence[int]) -> WarmUp:
        return WarmUp(0, [])

    def run(self, batch: Sequence[Sequence[Tensor]]) -> ForwardPass:
        self.batches.append([request[0].datatype for request in batch])
        self.running.set()
        assert self.may_run.wait(30)
        return ForwardPass([tuple(request) for request in batch], 1, 2, 3)

    def peak_bytes(self) -> int:
        return 0

    def versions(self) -> dict[str, str]:
        return {}


def job(name: str, rows: int = 1, key: object = None, priority: int = 0, timeout_ns: int = 0) -> Job:
    one = Job([Tensor(name, (rows,), b"")], rows=rows, key=key, priority=priority)
    one.expires_ns = one.arrived_ns + timeout_ns if timeout_ns else 0
    return one


async def infer(executor: BatchExecutor, one: Job) -> JobResult:
    """Submits a job and waits for its end; cancels it where the wait is cancelled."""
    future: asyncio.Future[JobResult] = asyncio.get_running_loop().create_future()

    def on_end(result: JobResult | BaseException) -> None:
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)

    executor.submit(one, on_end)
    try:
        return await future
    except asyncio.CancelledError:
        executor.cancel(one)
        raise


Body = Callable[[BlockingContext, BatchExecutor], Awaitable[None]]


def drive(policy: BatchingPolicy, body: Body) -> BlockingContext:
    """Runs `body` while the executor is context inside the forward of a first job, named "first"."""

    async def main() -> BlockingContext:
        context = BlockingContext()
        executor = BatchExecutor(context, policy, asyncio.get_running_loop())
        context.may_run.clear()
        first = asyncio.create_task(infer(executor, job("first", key="first")))
        await asyncio.to_thread(context.running.wait, 10)
        try:
            await body(context, executor)
        finally:
            context.may_run.set()
        await first
        assert await executor.stop(10)
        assert executor.depth == 0
        return context

    return asyncio.run(main())


async def queued(executor: BatchExecutor, *jobs: Job) -> list["asyncio.Task[JobResult]"]:
    tasks = []
    for one in jobs:
        tasks.append(asyncio.create_task(infer(executor, one)))
        await asyncio.sleep(0)  # lets the task put its job into the queue
    return tasks


def waiting(policy: BatchingPolicy, *jobs: Job) -> list[list[str]]:
    """The batches that these jobs, all waiting at once, are run in."""

    async def body(context: BlockingContext, executor: BatchExecutor) -> None:
        tasks = await queued(executor, *jobs)
        context.may_run.set()
        for one, task in zip(jobs, tasks, strict=True):
            assert (await task).outputs == tuple(one.inputs)

    return drive(policy, body).batches[1:]


def test_without_batching_each_request_runs_alone_in_order() -> None:
    assert waiting(BatchingPolicy(), job("a"), job("b"), job("c")) == [["a"], ["b"], ["c"]]


def test_waiting_requests_are_joined_up_to_the_largest_batch() -> None:
    assert waiting(BatchingPolicy(3), *(job(name) for name in "abcde")) == [["a", "b", "c"], ["d", "e"]]


def test_rows_count_not_requests() -> None:
    assert waiting(BatchingPolicy(4), job("a", 3), job("b", 2), job("c", 2)) == [["a"], ["b", "c"]]


def test_unequal_shapes_are_never_joined() -> None:
    jobs = [job("a", key=7), job("b", key=7), job("c", key=8), job("d", key=7)]
    assert waiting(BatchingPolicy(8), *jobs) == [["a", "b"], ["c"], ["d"]]


def test_a_preferred_size_is_formed_as_soon_as_it_can_be() -> None:
    assert waiting(BatchingPolicy(8, preferred=(2, 4)), *(job(name) for name in "abcdefg")) == [
        ["a", "b", "c", "d"],
        ["e", "f"],
        ["g"],
    ]


def test_level_one_goes_first() -> None:
    jobs = [job("low", priority=2), job("high", priority=1), job("low2", priority=2), job("high2", priority=1)]
    assert waiting(BatchingPolicy(priority_levels=2), *jobs) == [["high"], ["high2"], ["low"], ["low2"]]


def test_a_delay_lets_others_join_and_a_full_batch_does_not_wait() -> None:
    async def main() -> list[list[str]]:
        context = BlockingContext()
        executor = BatchExecutor(context, BatchingPolicy(2, max_queue_delay_us=60_000_000), asyncio.get_running_loop())
        tasks = await queued(executor, job("a"), job("b"))
        await asyncio.gather(*tasks)
        assert await executor.stop(10)
        return context.batches

    assert asyncio.run(main()) == [["a", "b"]]


def test_a_delay_ends() -> None:
    async def main() -> list[list[str]]:
        context = BlockingContext()
        executor = BatchExecutor(context, BatchingPolicy(2, max_queue_delay_us=1000), asyncio.get_running_loop())
        done = await infer(executor, job("a"))
        assert done.queue_ns >= 1_000_000
        assert await executor.stop(10)
        return context.batches

    assert asyncio.run(main()) == [["a"]]


def test_a_full_queue_refuses_at_once() -> None:
    async def body(context: BlockingContext, executor: BatchExecutor) -> None:
        tasks = await queued(executor, job("a"), job("b"))
        with pytest.raises(ServiceError, match="the queue is full") as raised:
            await infer(executor, job("c"))
        assert raised.value.code is StatusCode.UNAVAILABLE
        context.may_run.set()
        await asyncio.gather(*tasks)

    assert drive(BatchingPolicy(max_queue_size=2), body).batches == [["first"], ["a"], ["b"]]


def test_a_cancelled_request_is_never_run_and_makes_room() -> None:
    async def body(context: BlockingContext, executor: BatchExecutor) -> None:
        (task,) = await queued(executor, job("a"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert executor.depth == 0
        tasks = await queued(executor, job("b"))
        context.may_run.set()
        await asyncio.gather(*tasks)

    assert drive(BatchingPolicy(max_queue_size=1), body).batches == [["first"], ["b"]]


def test_a_request_whose_timeout_expires_in_the_queue_is_answered_then_and_never_run() -> None:
    async def body(context: BlockingContext, executor: BatchExecutor) -> None:
        (task,) = await queued(executor, job("a", timeout_ns=1_000_000))
        with pytest.raises(ServiceError, match="timeout expired") as raised:
            await task
        assert raised.value.code is StatusCode.UNAVAILABLE

    assert drive(BatchingPolicy(), body).batches == [["first"]]


def test_a_request_past_its_deadline_is_never_run_even_if_it_was_not_cancelled() -> None:
    async def body(context: BlockingContext, executor: BatchExecutor) -> None:
        late = job("a")
        late.deadline_ns = time.monotonic_ns()
        (task,) = await queued(executor, late)
        context.may_run.set()
        with pytest.raises(ServiceError):
            await task

    assert drive(BatchingPolicy(), body).batches == [["first"]]


def test_what_the_model_raises_reaches_each_request_of_the_batch() -> None:
    async def main() -> None:
        context = BlockingContext()
        executor = BatchExecutor(context, BatchingPolicy(), asyncio.get_running_loop())
        context.run = lambda batch: 1 / 0  # type: ignore[assignment,return-value]
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await infer(executor, job("a"))
        assert await executor.stop(10)

    asyncio.run(main())


def test_a_cancelled_request_lets_go_of_its_tensors_and_so_many_are_not_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_queue, "MAX_CANCELLED", 2)

    async def body(context: BlockingContext, executor: BatchExecutor) -> None:
        jobs = [job(name) for name in "abc"]
        for task in await queued(executor, *jobs):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert [list(one.inputs) for one in jobs] == [[], [], []]
        with pytest.raises(ServiceError, match="cancelled"):
            await infer(executor, job("d"))
        context.may_run.set()
        while True:  # until the executor has come by
            try:
                await infer(executor, job("e"))
            except ServiceError:
                await asyncio.sleep(0)
            else:
                return

    assert drive(BatchingPolicy(), body).batches == [["first"], ["e"]]


def test_a_result_is_delivered_before_the_executor_waits_for_others_to_join() -> None:
    async def main() -> list[list[str]]:
        context = BlockingContext()
        executor = BatchExecutor(
            context, BatchingPolicy(2, max_queue_delay_us=3_600_000_000), asyncio.get_running_loop()
        )
        full, half = await queued(executor, job("a", 2), job("b", 1))
        await full
        assert not half.done()
        (other,) = await queued(executor, job("c", 1))  # without it "b" would wait for an hour
        await asyncio.gather(half, other)
        assert await executor.stop(10)
        return context.batches

    assert asyncio.run(main()) == [["a"], ["b", "c"]]


def test_fail_all_ends_what_waits_and_what_runs() -> None:
    async def body(context: BlockingContext, executor: BatchExecutor) -> None:
        (task,) = await queued(executor, job("a"))
        running = asyncio.create_task(infer(executor, job("b")))
        await asyncio.sleep(0)
        executor.fail_all(unavailable("the worker is ending"))
        for one in (task, running):
            with pytest.raises(ServiceError, match="the worker is ending"):
                await one

    async def main() -> list[list[str]]:
        context = BlockingContext()
        executor = BatchExecutor(context, BatchingPolicy(), asyncio.get_running_loop())
        context.may_run.clear()
        first = asyncio.create_task(infer(executor, job("first")))
        await asyncio.to_thread(context.running.wait, 10)
        await body(context, executor)
        with pytest.raises(ServiceError, match="the worker is ending"):
            await first
        context.may_run.set()
        assert await executor.stop(10)
        return context.batches

    assert asyncio.run(main()) == [["first"]]


def test_a_forward_pass_that_hangs_does_not_hold_up_the_end() -> None:
    async def main() -> bool:
        context = BlockingContext()
        executor = BatchExecutor(context, BatchingPolicy(), asyncio.get_running_loop())
        context.may_run.clear()
        task = asyncio.create_task(infer(executor, job("a")))
        await asyncio.to_thread(context.running.wait, 10)
        ended = await executor.stop(0)
        context.may_run.set()
        await task
        return ended

    assert asyncio.run(main()) is False


def test_a_thousand_requests_are_each_answered_once_with_their_own() -> None:
    async def main() -> None:
        context = BlockingContext()
        executor = BatchExecutor(context, BatchingPolicy(8), asyncio.get_running_loop())
        names = [str(number) for number in range(1000)]
        done = await asyncio.gather(*(infer(executor, job(name)) for name in names))
        assert [one.outputs[0].datatype for one in done] == names
        assert sorted(name for batch in context.batches for name in batch) == sorted(names)
        assert max(map(len, context.batches)) <= 8
        assert await executor.stop(10)

    asyncio.run(main())
