"""Batches by table and by property: order, priority, what may be joined, limits, and that a job leaves the queue once.

Neither threads nor clocks: every test passes the time in.
"""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import ServiceError
from worker.runtime import Tensor
from worker.serving import batch_queue
from worker.serving.batch_queue import Batch, BatchingPolicy, BatchQueue, Job
from worker.wire import StatusCode

US = 1_000
DELAY = BatchingPolicy(4, max_queue_delay_us=100)


def job(
    name: str = "", rows: int = 1, key: object = None, priority: int = 0, arrived_ns: int = 0, expires_ns: int = 0
) -> Job:
    one = Job([Tensor(name, (rows,), b"")], rows=rows, key=key, priority=priority, expires_ns=expires_ns)
    one.arrived_ns = arrived_ns
    return one


def names(jobs: Sequence[Job]) -> list[str]:
    return [one.inputs[0].datatype for one in jobs]


def batches(policy: BatchingPolicy, *jobs: Job) -> list[list[str]]:
    """The batches that these jobs, all in the queue at once, run in when nothing follows."""
    queue = BatchQueue(policy)
    for one in jobs:
        queue.submit(one)
    result = []
    while (batch := queue.next_batch(1, final=True)).jobs:
        result.append(names(batch.jobs))
    assert batch == Batch([], [], None)
    assert queue.depth == 0
    return result


def letters(text: str) -> list[Job]:
    return [job(letter) for letter in text]


@pytest.mark.parametrize(
    ("policy", "jobs", "expected"),
    [
        (BatchingPolicy(), letters("abc"), ["a", "b", "c"]),
        (BatchingPolicy(1), letters("abc"), ["a", "b", "c"]),
        (BatchingPolicy(3), letters("abcde"), ["abc", "de"]),
        (BatchingPolicy(4), [job("a", 3), job("b", 2), job("c", 2)], ["a", "bc"]),
        (BatchingPolicy(2), [job("a", 5), job("b")], ["a", "b"]),
        (BatchingPolicy(8), [job("a", key=7), job("b", key=7), job("c", key=8), job("d", key=7)], ["ab", "c", "d"]),
        (BatchingPolicy(8, preferred=(2, 4)), letters("abcdefg"), ["abcd", "ef", "g"]),
        (BatchingPolicy(8, preferred=(3,)), [job("a", 2), job("b", 2)], ["a", "b"]),
        (
            BatchingPolicy(priority_levels=2),
            [job("a", priority=2), job("b", priority=1), job("c", priority=2), job("d", priority=1)],
            ["b", "d", "a", "c"],
        ),
        (
            BatchingPolicy(2, priority_levels=2),
            [job("a", priority=2), job("b", priority=1), job("c", priority=2)],
            ["ba", "c"],
        ),
    ],
)
def test_batches_follow_the_policy(policy: BatchingPolicy, jobs: list[Job], expected: list[str]) -> None:
    assert batches(policy, *jobs) == [list(batch) for batch in expected]


def test_an_incomplete_batch_waits_until_its_oldest_job_has_waited_the_delay() -> None:
    queue = BatchQueue(DELAY)
    queue.submit(job("a", arrived_ns=0))
    assert queue.next_batch(40 * US) == Batch([], [], 60 * US)
    queue.submit(job("b", arrived_ns=50 * US))
    assert queue.next_batch(50 * US) == Batch([], [], 50 * US)
    batch = queue.next_batch(100 * US)
    assert names(batch.jobs) == ["a", "b"]
    assert {one.begun_ns for one in batch.jobs} == {100 * US}


@pytest.mark.parametrize("last", [job("d", rows=2), job("d", key="other"), job("d", rows=3)])
def test_a_batch_that_nothing_more_can_join_does_not_wait(last: Job) -> None:
    queue = BatchQueue(DELAY)
    for one in (job("a"), job("b"), last):
        queue.submit(one)
    assert names(queue.next_batch(0).jobs)[:2] == ["a", "b"]


def test_the_last_jobs_do_not_wait_for_others() -> None:
    queue = BatchQueue(DELAY)
    queue.submit(job("a"))
    assert names(queue.next_batch(0, final=True).jobs) == ["a"]


@pytest.mark.parametrize("policy", [BatchingPolicy(max_queue_size=2), BatchingPolicy(2, max_queue_size=2)])
def test_a_full_queue_refuses_and_a_cancelled_job_makes_room(policy: BatchingPolicy) -> None:
    queue = BatchQueue(policy)
    first, second = job("a"), job("b")
    queue.submit(first)
    queue.submit(second)
    with pytest.raises(ServiceError, match="the queue is full: 2 requests wait") as raised:
        queue.submit(job("c"))
    assert raised.value.code is StatusCode.UNAVAILABLE
    assert queue.cancel(first)
    assert not queue.cancel(first)
    assert queue.depth == 1
    queue.submit(job("d"))
    assert [name for batch in (queue.next_batch(0), queue.next_batch(0)) for name in names(batch.jobs)] == ["b", "d"]


@pytest.mark.parametrize("policy", [BatchingPolicy(), BatchingPolicy(4)])
def test_cancelled_jobs_let_go_of_their_tensors_and_too_many_are_refused(
    policy: BatchingPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_queue, "MAX_CANCELLED", 2)
    queue = BatchQueue(policy)
    jobs = letters("abc")
    for one in jobs:
        queue.submit(one)
        queue.cancel(one)
    assert [list(one.inputs) for one in jobs] == [[], [], []]
    with pytest.raises(ServiceError, match="cancelled"):
        queue.submit(job("d"))
    assert queue.next_batch(0) == Batch([], [], None)
    queue.submit(job("d"))
    assert names(queue.next_batch(0).jobs) == ["d"]


@pytest.mark.parametrize("policy", [BatchingPolicy(), BatchingPolicy(4)])
def test_a_job_that_waited_too_long_is_expired_and_not_run(policy: BatchingPolicy) -> None:
    queue = BatchQueue(policy)
    by_timeout, by_deadline, last = job("a", expires_ns=10), job("b"), job("c", expires_ns=11)
    by_deadline.deadline_ns = 10
    for one in (by_timeout, by_deadline, last):
        queue.submit(one)
    assert queue.next_batch(10, final=True) == Batch([last], [by_timeout, by_deadline], None)
    assert queue.depth == 0


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(1, 5), st.integers(0, 1), st.integers(1, 2), st.integers(1, 200)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("take"), st.integers(0, 50)),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=300)
@given(
    actions=ACTIONS,
    max_batch_size=st.integers(0, 6),
    levels=st.sampled_from([0, 2]),
    delay_us=st.integers(0, 1),
    preferred=st.sampled_from([(), (2,), (2, 3)]),
)
def test_every_job_leaves_the_queue_once_and_batches_respect_the_policy(
    actions: list[tuple[object, ...]],
    max_batch_size: int,
    levels: int,
    delay_us: int,
    preferred: tuple[int, ...],
) -> None:
    queue = BatchQueue(BatchingPolicy(max_batch_size, delay_us, preferred, priority_levels=levels))
    jobs: list[Job] = []
    cancelled: list[Job] = []
    left: list[Job] = []
    now_ns = 0

    def take(final: bool) -> Batch:
        batch = queue.next_batch(now_ns, final=final)
        left.extend([*batch.jobs, *batch.expired])
        if max_batch_size > 1 and len(batch.jobs) > 1:
            assert sum(one.rows for one in batch.jobs) <= max_batch_size
            assert len({one.key for one in batch.jobs}) == 1
        if max_batch_size <= 1:
            assert len(batch.jobs) <= 1
        assert batch.wait_ns is None or (batch.wait_ns > 0 and not batch.jobs and not batch.expired)
        assert all(now_ns < one.expires_ns for one in batch.jobs)
        assert all(now_ns >= one.expires_ns for one in batch.expired)
        return batch

    for action in actions:
        match action:
            case ("submit", int(rows), int(key), int(level), int(life_ns)):
                one = job("x", rows, key, level if levels else 0, now_ns, now_ns + life_ns)
                jobs.append(one)
                queue.submit(one)
            case ("cancel", int(index)) if jobs:
                one = jobs[index % len(jobs)]
                if queue.cancel(one):
                    cancelled.append(one)
            case ("take", int(step_ns)):
                now_ns += step_ns
                take(final=False)
        assert queue.depth == len(jobs) - len(cancelled) - len(left)
    while (batch := take(final=True)).jobs or batch.expired:
        pass
    assert queue.depth == 0
    assert sorted(map(id, [*left, *cancelled])) == sorted(map(id, jobs))
