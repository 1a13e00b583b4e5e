"""A request is sent once more only where it was certainly not executed, within its limit and its deadline."""

import pytest

from loadgen.generator._retry import FIRST_S, LONGEST_S, RetryPolicy
from loadgen.transport import DEADLINE_EXCEEDED, OK, UNAVAILABLE, ConnectionLost, NotConnected, Reply
from worker.wire import StatusCode

REFUSED = Reply(UNAVAILABLE, "full")


def longest(low: float, high: float) -> float:
    assert low == 0
    return high


@pytest.mark.parametrize(
    ("reply", "sent_again"),
    [
        (REFUSED, True),
        (NotConnected(UNAVAILABLE, "no connection"), True),
        (ConnectionLost(UNAVAILABLE, "connection lost"), False),
        (Reply(DEADLINE_EXCEEDED, ""), False),
        (Reply(StatusCode.RESOURCE_EXHAUSTED, ""), False),
        (Reply(OK, "", b""), False),
    ],
)
def test_only_a_request_that_was_not_executed_is_sent_again(reply: Reply, sent_again: bool) -> None:
    assert (RetryPolicy(1).delay_s(reply, 0, 10.0) is not None) is sent_again


def test_the_number_of_retries_is_limited() -> None:
    policy = RetryPolicy(2)
    assert [policy.delay_s(REFUSED, retries, 10.0) is None for retries in range(4)] == [False, False, True, True]
    assert RetryPolicy(0).delay_s(REFUSED, 0, 10.0) is None


def test_the_longest_delay_doubles_up_to_a_limit() -> None:
    policy = RetryPolicy(100, longest)
    delays = [policy.delay_s(REFUSED, retries, 100.0) for retries in range(8)]
    assert delays == [min(FIRST_S * 2**retries, LONGEST_S) for retries in range(8)]


def test_no_retry_begins_after_the_deadline() -> None:
    policy = RetryPolicy(5, longest)
    assert policy.delay_s(REFUSED, 0, FIRST_S) is None
    assert policy.delay_s(REFUSED, 0, 2 * FIRST_S) == FIRST_S
    assert policy.delay_s(REFUSED, 0, -1.0) is None
