"""The queue's promises: order, priority, joining only what may be joined, and that what was given up is never run."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

import grpc
import pytest

from worker.errors import ServiceError
from worker.runtime.context import Ran, WarmUp
from worker.runtime.simulation import DEFAULT_SPECIFICATION
from worker.runtime.tensors import Tensor
from worker.serving import batch_queue as batching
from worker.serving.batch_queue import Batcher
from worker.serving.job import Done, Job, Policy


class Held:
    """A context that notes each batch, and waits inside forward while `gate` is closed."""

    specification = DEFAULT_SPECIFICATION
    parameter_bytes = threads = 0
    precision = ""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.running = threading.Event()

    def load(self) -> None: ...

    def warm_up(self, batch_sizes: Sequence[int]) -> WarmUp:
        return WarmUp(0, [])

    def run(self, batch: Sequence[Sequence[Tensor]]) -> Ran:
        self.batches.append([request[0].datatype for request in batch])
        self.running.set()
        assert self.gate.wait(30)
        return Ran([tuple(request) for request in batch], 1, 2, 3)

    def peak_bytes(self) -> int:
        return 0

    def versions(self) -> dict[str, str]:
        return {}


def job(name: str, rows: int = 1, key: object = None, priority: int = 0, timeout_ns: int = 0) -> Job:
    made = Job([Tensor(name, (rows,), b"")], rows=rows, key=key, priority=priority)
    made.expires_ns = made.arrived_ns + timeout_ns if timeout_ns else 0
    return made


Body = Callable[[Held, Batcher], Awaitable[None]]


def drive(policy: Policy, body: Body) -> Held:
    """Runs `body` while the executor is held inside the forward of a first job, named "first"."""

    async def main() -> Held:
        held = Held()
        batcher = Batcher(held, policy, asyncio.get_running_loop())
        held.gate.clear()
        first = asyncio.create_task(batcher.infer(job("first", key="first")))
        await asyncio.to_thread(held.running.wait, 10)
        try:
            await body(held, batcher)
        finally:
            held.gate.set()
        await first
        assert await batcher.stop(10)
        assert batcher.depth == 0
        return held

    return asyncio.run(main())


async def queued(batcher: Batcher, *jobs: Job) -> list["asyncio.Task[Done]"]:
    tasks = []
    for one in jobs:
        tasks.append(asyncio.create_task(batcher.infer(one)))
        await asyncio.sleep(0)  # lets the task put its job into the queue
    return tasks


def waiting(policy: Policy, *jobs: Job) -> list[list[str]]:
    """The batches that these jobs, all waiting at once, are run in."""

    async def body(held: Held, batcher: Batcher) -> None:
        tasks = await queued(batcher, *jobs)
        held.gate.set()
        for one, task in zip(jobs, tasks, strict=True):
            assert (await task).outputs == tuple(one.inputs)

    return drive(policy, body).batches[1:]


def test_without_batching_each_request_runs_alone_in_order() -> None:
    assert waiting(Policy(), job("a"), job("b"), job("c")) == [["a"], ["b"], ["c"]]


def test_waiting_requests_are_joined_up_to_the_largest_batch() -> None:
    assert waiting(Policy(3), *(job(name) for name in "abcde")) == [["a", "b", "c"], ["d", "e"]]


def test_rows_count_not_requests() -> None:
    assert waiting(Policy(4), job("a", 3), job("b", 2), job("c", 2)) == [["a"], ["b", "c"]]


def test_unequal_shapes_are_never_joined() -> None:
    jobs = [job("a", key=7), job("b", key=7), job("c", key=8), job("d", key=7)]
    assert waiting(Policy(8), *jobs) == [["a", "b"], ["c"], ["d"]]


def test_a_preferred_size_is_formed_as_soon_as_it_can_be() -> None:
    assert waiting(Policy(8, preferred=(2, 4)), *(job(name) for name in "abcdefg")) == [
        ["a", "b", "c", "d"],
        ["e", "f"],
        ["g"],
    ]


def test_level_one_goes_first() -> None:
    jobs = [job("low", priority=2), job("high", priority=1), job("low2", priority=2), job("high2", priority=1)]
    assert waiting(Policy(priority_levels=2), *jobs) == [["high"], ["high2"], ["low"], ["low2"]]


def test_a_delay_lets_others_join_and_a_full_batch_does_not_wait() -> None:
    async def main() -> list[list[str]]:
        held = Held()
        batcher = Batcher(held, Policy(2, max_queue_delay_us=60_000_000), asyncio.get_running_loop())
        tasks = await queued(batcher, job("a"), job("b"))
        await asyncio.gather(*tasks)
        assert await batcher.stop(10)
        return held.batches

    assert asyncio.run(main()) == [["a", "b"]]


def test_a_delay_ends() -> None:
    async def main() -> list[list[str]]:
        held = Held()
        batcher = Batcher(held, Policy(2, max_queue_delay_us=1000), asyncio.get_running_loop())
        done = await batcher.infer(job("a"))
        assert done.queue_ns >= 1_000_000
        assert await batcher.stop(10)
        return held.batches

    assert asyncio.run(main()) == [["a"]]


def test_a_full_queue_refuses_at_once() -> None:
    async def body(held: Held, batcher: Batcher) -> None:
        tasks = await queued(batcher, job("a"), job("b"))
        with pytest.raises(ServiceError, match="the queue is full") as raised:
            await batcher.infer(job("c"))
        assert raised.value.code is grpc.StatusCode.UNAVAILABLE
        held.gate.set()
        await asyncio.gather(*tasks)

    assert drive(Policy(max_queue_size=2), body).batches == [["first"], ["a"], ["b"]]


def test_a_cancelled_request_is_never_run_and_makes_room() -> None:
    async def body(held: Held, batcher: Batcher) -> None:
        (task,) = await queued(batcher, job("a"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert batcher.depth == 0
        tasks = await queued(batcher, job("b"))
        held.gate.set()
        await asyncio.gather(*tasks)

    assert drive(Policy(max_queue_size=1), body).batches == [["first"], ["b"]]


def test_a_request_whose_timeout_expires_in_the_queue_is_answered_then_and_never_run() -> None:
    async def body(held: Held, batcher: Batcher) -> None:
        (task,) = await queued(batcher, job("a", timeout_ns=1_000_000))
        with pytest.raises(ServiceError, match="timeout expired") as raised:
            await task
        assert raised.value.code is grpc.StatusCode.UNAVAILABLE

    assert drive(Policy(), body).batches == [["first"]]


def test_a_request_past_its_deadline_is_never_run_even_if_nobody_cancelled_it() -> None:
    async def body(held: Held, batcher: Batcher) -> None:
        late = job("a")
        late.deadline_ns = time.monotonic_ns()
        (task,) = await queued(batcher, late)
        held.gate.set()
        with pytest.raises(ServiceError):
            await task

    assert drive(Policy(), body).batches == [["first"]]


def test_what_the_model_raises_reaches_each_request_of_the_batch() -> None:
    async def main() -> None:
        held = Held()
        batcher = Batcher(held, Policy(), asyncio.get_running_loop())
        held.run = lambda batch: 1 / 0  # type: ignore[assignment,return-value]
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await batcher.infer(job("a"))
        assert await batcher.stop(10)

    asyncio.run(main())


def test_a_cancelled_request_lets_go_of_its_tensors_and_so_many_are_not_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MOST_CANCELLED", 2)

    async def body(held: Held, batcher: Batcher) -> None:
        jobs = [job(name) for name in "abc"]
        for task in await queued(batcher, *jobs):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert [list(one.inputs) for one in jobs] == [[], [], []]
        with pytest.raises(ServiceError, match="cancelled"):
            await batcher.infer(job("d"))
        held.gate.set()
        while True:  # until the executor has come by
            try:
                await batcher.infer(job("e"))
            except ServiceError:
                await asyncio.sleep(0)
            else:
                return

    assert drive(Policy(), body).batches == [["first"], ["e"]]


def test_a_result_is_told_before_the_executor_waits_for_others_to_join() -> None:
    async def main() -> list[list[str]]:
        held = Held()
        batcher = Batcher(held, Policy(2, max_queue_delay_us=3_600_000_000), asyncio.get_running_loop())
        full, half = await queued(batcher, job("a", 2), job("b", 1))
        await full
        assert not half.done()
        (other,) = await queued(batcher, job("c", 1))  # without it "b" would wait for an hour
        await asyncio.gather(half, other)
        assert await batcher.stop(10)
        return held.batches

    assert asyncio.run(main()) == [["a"], ["b", "c"]]


def test_giving_up_answers_what_waits_and_what_runs() -> None:
    async def body(held: Held, batcher: Batcher) -> None:
        (task,) = await queued(batcher, job("a"))
        running = asyncio.create_task(batcher.infer(job("b")))
        await asyncio.sleep(0)
        batcher.give_up()
        for one in (task, running):
            with pytest.raises(ServiceError, match="the worker is ending"):
                await one

    async def main() -> list[list[str]]:
        held = Held()
        batcher = Batcher(held, Policy(), asyncio.get_running_loop())
        held.gate.clear()
        first = asyncio.create_task(batcher.infer(job("first")))
        await asyncio.to_thread(held.running.wait, 10)
        await body(held, batcher)
        with pytest.raises(ServiceError, match="the worker is ending"):
            await first
        held.gate.set()
        assert await batcher.stop(10)
        return held.batches

    assert asyncio.run(main()) == [["first"]]


def test_a_forward_pass_that_hangs_does_not_hold_up_the_end() -> None:
    async def main() -> bool:
        held = Held()
        batcher = Batcher(held, Policy(), asyncio.get_running_loop())
        held.gate.clear()
        task = asyncio.create_task(batcher.infer(job("a")))
        await asyncio.to_thread(held.running.wait, 10)
        ended = await batcher.stop(0)
        held.gate.set()
        await task
        return ended

    assert asyncio.run(main()) is False


def test_a_thousand_requests_are_each_answered_once_with_their_own() -> None:
    async def main() -> None:
        held = Held()
        batcher = Batcher(held, Policy(8), asyncio.get_running_loop())
        names = [str(number) for number in range(1000)]
        done = await asyncio.gather(*(batcher.infer(job(name)) for name in names))
        assert [one.outputs[0].datatype for one in done] == names
        assert sorted(name for batch in held.batches for name in batch) == sorted(names)
        assert max(map(len, held.batches)) <= 8
        assert await batcher.stop(10)

    asyncio.run(main())
