"""Flow-control windows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.wire.http2 import FLOW_CONTROL_ERROR, LARGEST_WINDOW, PROTOCOL_ERROR, FlowWindow, ProtocolError


def test_data_up_to_the_window_is_allowed_and_one_byte_more_is_an_error() -> None:
    window = FlowWindow(100)
    window.consume(100)
    with pytest.raises(ProtocolError) as raised:
        window.consume(1)
    assert raised.value.code == FLOW_CONTROL_ERROR


def test_an_increment_of_0_is_an_error() -> None:
    with pytest.raises(ProtocolError) as raised:
        FlowWindow(1).enlarge(0)
    assert raised.value.code == PROTOCOL_ERROR


def test_a_window_has_at_most_31_bits() -> None:
    window = FlowWindow(1)
    window.enlarge(LARGEST_WINDOW - 1)
    with pytest.raises(ProtocolError) as raised:
        window.enlarge(1)
    assert raised.value.code == FLOW_CONTROL_ERROR


def test_a_smaller_initial_window_may_make_it_negative() -> None:
    window = FlowWindow(100)
    window.consume(80)
    window.shift(-50)
    assert window.size == -30
    window.enlarge(31)
    assert window.size == 1


@given(st.integers(1, 1000), st.lists(st.integers(0, 50), max_size=100))
def test_a_receiver_that_refills_at_half_never_stops_its_sender(full: int, sizes: list[int]) -> None:
    receiver, sender = FlowWindow(full), FlowWindow(full)
    for size in sizes:
        sent = min(size, sender.size)
        assert sent > 0 or size == 0
        sender.size -= sent
        receiver.consume(sent)
        if receiver.half_used and (increment := receiver.refill()):
            sender.enlarge(increment)
        assert sender.size == receiver.size


def test_a_full_window_needs_no_refill() -> None:
    assert FlowWindow(10).refill() == 0
