"""Frames out: within windows, in turn, and no more than the socket takes."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.wire.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    PING,
    RST_STREAM,
    WINDOW_UPDATE,
    ConnectionLimits,
    ConnectionSettings,
    FlowWindow,
    FrameWriter,
    OutgoingStream,
    PeerLimits,
    ProtocolError,
)
from worker.wire.http2 import (
    encode_frame as frame,
)
from worker.wire.http2.frame_writer import HIGH_WATER


class Socket:
    """Takes what a writer has, frame by frame."""

    def __init__(self) -> None:
        self.wakes = 0
        self.limits = ConnectionLimits(PeerLimits(unread_answers=3), lambda: 0.0)
        self.writer = FrameWriter(ConnectionSettings(peer_is_server=True), self.limits, self.wake)

    def wake(self) -> None:
        self.wakes += 1

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        return list(split(self.writer.take()))

    def stream(self, stream_id: int, data: bytes, *, window: int = 10**9) -> OutgoingStream:
        """A stream whose last DATA ends it."""
        outgoing = OutgoingStream(stream_id, FlowWindow(window))
        outgoing.append(data)
        outgoing.end_with_data = True
        return outgoing


def split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    while data:
        size = int.from_bytes(data[:3], "big")
        yield data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]
        data = data[9 + size :]


@pytest.fixture
def socket() -> Socket:
    return Socket()


def test_a_block_is_cut_to_frames_of_the_smallest_size_that_every_peer_takes(socket: Socket) -> None:
    block = bytes(range(256)) * 160
    socket.writer.write_headers(1, block, END_STREAM)
    frames = socket.frames()
    assert [(kind, flags) for kind, flags, _, _ in frames] == [
        *((HEADERS, END_STREAM), (CONTINUATION, 0)),
        (CONTINUATION, END_HEADERS),
    ]
    assert b"".join(payload for *_, payload in frames) == block


def test_a_size_of_the_table_goes_before_the_next_block_alone(socket: Socket) -> None:
    socket.writer.table_update = True
    socket.writer.write_headers(1, b"block")
    socket.writer.write_headers(3, b"block")
    assert [payload for *_, payload in socket.frames()] == [b"\x20block", b"block"]


def test_control_frames(socket: Socket) -> None:
    socket.writer.reset(3, 8)
    socket.writer.update_window(0, 9)
    socket.writer.go_away(5, 1)
    assert socket.frames() == [
        (RST_STREAM, 0, 3, struct.pack(">I", 8)),
        (WINDOW_UPDATE, 0, 0, struct.pack(">I", 9)),
        (GOAWAY, 0, 0, struct.pack(">II", 5, 1)),
    ]


def test_the_owner_is_woken_once_until_it_takes(socket: Socket) -> None:
    for _ in range(3):
        socket.writer.write(frame(PING, 0, 0, bytes(8)))
    socket.writer.enqueue(socket.stream(1, b"data"))
    assert socket.wakes == 1
    socket.writer.take()
    socket.writer.write(frame(PING, 0, 0, bytes(8)))
    assert socket.wakes == 2


def test_streams_take_turns_frame_by_frame(socket: Socket) -> None:
    socket.writer.window.enlarge(10**6)
    socket.writer.blocked = True
    for stream_id in (1, 3):
        socket.writer.enqueue(socket.stream(stream_id, bytes(40000)))
    socket.writer.unblock()
    frames = [(stream_id, len(payload), flags) for _, flags, stream_id, payload in socket.frames()]
    assert frames == [
        *((1, 16384, 0), (3, 16384, 0), (1, 16384, 0), (3, 16384, 0)),
        *((1, 7232, END_STREAM), (3, 7232, END_STREAM)),
    ]


def test_frames_are_as_large_as_the_peer_takes(socket: Socket) -> None:
    socket.writer.window.enlarge(10**6)
    socket.writer.settings.apply(struct.pack(">HI", MAX_FRAME_SIZE, 30000))
    socket.writer.enqueue(socket.stream(1, bytes(40000)))
    assert [len(payload) for *_, payload in socket.frames()] == [30000, 10000]


def test_data_waits_for_both_windows(socket: Socket) -> None:
    outgoing = socket.stream(1, bytes(70000), window=100)
    socket.writer.enqueue(outgoing)
    assert [len(payload) for *_, payload in socket.frames()] == [100]
    outgoing.window.enlarge(10**6)
    socket.writer.fill()
    assert sum(len(payload) for *_, payload in socket.frames()) == 65535 - 100
    socket.writer.window.enlarge(10**6)
    socket.writer.fill()
    assert sum(len(payload) for *_, payload in socket.frames()) == 70000 - 65535
    assert not socket.writer.queue


def test_a_stream_that_waits_for_its_window_blocks_nobody(socket: Socket) -> None:
    socket.writer.enqueue(socket.stream(1, bytes(10), window=0))
    socket.writer.enqueue(socket.stream(3, bytes(10)))
    assert [stream_id for _, _, stream_id, _ in socket.frames()] == [3]


def test_no_more_than_high_water_is_handed_out_at_once(socket: Socket) -> None:
    socket.writer.window.enlarge(10**7)
    socket.writer.enqueue(socket.stream(1, bytes(10**6)))
    sizes = []
    while frames := socket.frames():
        sizes.append(sum(len(payload) for *_, payload in frames))
        socket.writer.fill()
    assert max(sizes) < HIGH_WATER + 16384
    assert sum(sizes) == 10**6


def test_a_blocked_socket_gets_no_queued_data(socket: Socket) -> None:
    socket.writer.blocked = True
    socket.writer.enqueue(socket.stream(1, b"data"))
    assert socket.frames() == []
    socket.writer.unblock()
    assert [payload for *_, payload in socket.frames()] == [b"data"]


def test_a_reply_is_head_data_and_trailers(socket: Socket) -> None:
    ends: list[str] = []
    outgoing = OutgoingStream(
        1, FlowWindow(), drained=lambda: ends.append("drained"), ended=lambda: ends.append("ended")
    )
    outgoing.head = b"head"
    outgoing.append(b"data")
    socket.writer.enqueue(outgoing)
    assert ends == ["drained"]
    outgoing.trailers = b"trailers"
    socket.writer.enqueue(outgoing)
    assert ends == ["drained", "ended"]
    assert socket.frames() == [
        (HEADERS, END_HEADERS, 1, b"head"),
        (DATA, 0, 1, b"data"),
        (HEADERS, END_HEADERS | END_STREAM, 1, b"trailers"),
    ]


def test_a_reset_drops_what_is_queued(socket: Socket) -> None:
    socket.writer.enqueue(socket.stream(1, bytes(10), window=0))
    socket.writer.reset(1, 8)
    assert not socket.writer.queue


def test_a_stream_may_end_another_in_its_turn(socket: Socket) -> None:
    socket.writer.blocked = True
    first = socket.stream(1, b"first")
    first.ended = lambda: socket.writer.reset(3, 8)
    socket.writer.enqueue(first)
    socket.writer.enqueue(socket.stream(3, b"second"))
    socket.writer.unblock()
    assert [(kind, stream_id) for kind, _, stream_id, _ in socket.frames()] == [(DATA, 1), (RST_STREAM, 3)]


def test_answers_that_nobody_reads_are_limited(socket: Socket) -> None:
    for _ in range(10):
        socket.writer.answer(frame(PING, 1, 0, bytes(8)))
    socket.writer.blocked = True
    for _ in range(3):
        socket.writer.answer(frame(PING, 1, 0, bytes(8)))
    with pytest.raises(ProtocolError):
        socket.writer.answer(frame(PING, 1, 0, bytes(8)))


@given(
    st.lists(st.tuples(st.integers(0, 40000), st.integers(0, 40000)), min_size=1, max_size=6),
    st.integers(0, 40000),
    st.integers(16384, 40000),
)
def test_every_byte_leaves_once_and_in_order(streams: list[tuple[int, int]], change: int, max_frame: int) -> None:
    socket = Socket()
    writer = socket.writer
    writer.settings.apply(struct.pack(">HIHI", MAX_FRAME_SIZE, max_frame, INITIAL_WINDOW_SIZE, change))
    messages, windows = {}, {}
    for number, (size, window) in enumerate(streams):
        stream_id = 2 * number + 1
        messages[stream_id] = bytes([number + 1]) * (size + 1)
        outgoing = socket.stream(stream_id, messages[stream_id], window=window)
        windows[stream_id] = outgoing.window
        writer.enqueue(outgoing)
    sent = dict.fromkeys(messages, b"")
    for _ in range(100):
        for _, flags, stream_id, payload in socket.frames():
            assert 0 < len(payload) <= max_frame
            sent[stream_id] += payload
            assert bool(flags & END_STREAM) == (len(sent[stream_id]) == len(messages[stream_id]))
        assert writer.window.size >= 0
        if not writer.queue:
            break
        writer.window.enlarge(30000)
        for stream_id in writer.queue:
            windows[stream_id].enlarge(1 + stream_id * 10000)
        writer.fill()
    assert sent == messages
