"""What a peer may cost, counted for one connection."""

from __future__ import annotations

import pytest

from worker.wire.http2 import ENHANCE_YOUR_CALM, BufferedBytes, ConnectionLimits, PeerLimits, ProtocolError

TABLE = PeerLimits(idle_frames=10, rapid_resets=3, period_s=10.0, unread_answers=2, buffered_bytes=100)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_idle_frames_are_limited_within_a_period() -> None:
    limits = ConnectionLimits(TABLE, Clock())
    limits.idle_frame(10)
    with pytest.raises(ProtocolError) as raised:
        limits.idle_frame()
    assert raised.value.code == ENHANCE_YOUR_CALM


def test_a_reply_and_a_new_period_start_the_count_of_idle_frames_again() -> None:
    clock = Clock()
    limits = ConnectionLimits(TABLE, clock)
    limits.idle_frame(10)
    limits.idle = 0  # as the writer does when it sends a reply
    limits.idle_frame(10)
    clock.now = 11.0
    limits.idle_frame()
    limits.idle_frame(10)
    with pytest.raises(ProtocolError):
        limits.idle_frame()


def test_rapid_resets_are_limited_within_a_period() -> None:
    clock = Clock()
    limits = ConnectionLimits(TABLE, clock)
    for _ in range(3):
        limits.rapid_reset()
    clock.now = 11.0
    for _ in range(4):
        limits.rapid_reset()
    with pytest.raises(ProtocolError):
        limits.rapid_reset()


def test_unread_answers_are_limited_until_the_peer_reads() -> None:
    limits = ConnectionLimits(TABLE, Clock())
    for _ in range(2):
        limits.unread_answer()
    limits.answers_read()
    for _ in range(2):
        limits.unread_answer()
    with pytest.raises(ProtocolError):
        limits.unread_answer()


def test_buffered_bytes_are_counted_over_connections() -> None:
    process = BufferedBytes()
    first, second = (ConnectionLimits(TABLE, Clock(), process) for _ in range(2))
    first.buffer(60)
    second.buffer(41)
    assert first.buffer_full
    assert second.buffer_full
    first.buffer(-60)
    assert not second.buffer_full
    assert (first.buffered, second.buffered, process.total) == (0, 41, 41)


def test_a_frame_size_that_http2_does_not_allow_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16384"):
        PeerLimits(frame_bytes=1000)
