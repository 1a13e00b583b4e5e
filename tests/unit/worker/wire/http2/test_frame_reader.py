"""Bytes in, frames out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.wire.http2 import (
    CLIENT_PREFACE,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PRIORITY_FLAG,
    PROTOCOL_ERROR,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    FrameReader,
    PeerLimits,
    ProtocolError,
    encode_settings,
)
from worker.wire.http2 import (
    encode_frame as frame,
)

FIRST = encode_settings()


def reader(preface: bytes = b"", limits: PeerLimits = PeerLimits()) -> FrameReader:  # noqa: B008 - frozen
    return FrameReader(limits, preface=preface, not_http2="not HTTP/2")


def read(data: bytes) -> list[Frame]:
    """The frames after the first SETTINGS."""
    frames = list(reader().read(FIRST + data))
    assert frames[0].kind == SETTINGS
    return frames[1:]


CONVERSATION = (
    FIRST
    + frame(HEADERS, 0, 1, b"first ")
    + frame(CONTINUATION, 0, 1, b"second ")
    + frame(CONTINUATION, END_HEADERS, 1, b"third")
    + frame(DATA, PADDED | END_STREAM, 1, b"\x03" + b"data" + bytes(3))
    + frame(HEADERS, END_HEADERS | PRIORITY_FLAG | PADDED, 3, b"\x02" + bytes(5) + b"block" + bytes(2))
    + frame(0x77, 0xFF, 0, b"unknown")
    + frame(PING, 0, 0, bytes(8))
)
FRAMES = [
    Frame(SETTINGS, 0, 0, b"", 0),
    Frame(HEADERS, END_HEADERS, 1, b"first second third", 18),
    Frame(DATA, PADDED | END_STREAM, 1, b"data", 8),
    Frame(HEADERS, END_HEADERS | PRIORITY_FLAG | PADDED, 3, b"block", 13),
    Frame(0x77, 0xFF, 0, b"unknown", 7),
    Frame(PING, 0, 0, bytes(8), 8),
]


@given(st.lists(st.integers(0, len(CLIENT_PREFACE + CONVERSATION)), max_size=20))
def test_the_frames_do_not_depend_on_where_the_bytes_are_cut(cuts: list[int]) -> None:
    data = CLIENT_PREFACE + CONVERSATION
    server_side = reader(CLIENT_PREFACE)
    frames: list[Frame] = []
    for start, stop in itertools.pairwise([0, *sorted(cuts), len(data)]):
        frames += server_side.read(data[start:stop])
    assert frames == FRAMES


def test_a_header_block_that_has_begun_restricts_what_may_come() -> None:
    part = reader()
    assert not part.unrestricted
    list(part.read(FIRST))
    assert part.unrestricted
    list(part.read(frame(HEADERS, END_STREAM, 1, b"a")))
    assert part.in_header_block
    assert not part.unrestricted
    (block,) = part.read(frame(CONTINUATION, END_HEADERS, 1, b"b"))
    assert block == Frame(HEADERS, END_STREAM | END_HEADERS, 1, b"ab", 2)
    assert part.unrestricted


def test_the_reserved_bit_of_a_stream_number_is_ignored() -> None:
    (data,) = read(frame(DATA, 0, 0x80000001, b"x"))
    assert data.stream_id == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 0), PROTOCOL_ERROR),
        (frame(RST_STREAM, 0, 0, bytes(4)), PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 1), PROTOCOL_ERROR),
        (frame(PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
        (frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR),
        (frame(CONTINUATION, END_HEADERS, 1), PROTOCOL_ERROR),
        (frame(HEADERS, 0, 1) + frame(PING, 0, 0, bytes(8)), PROTOCOL_ERROR),
        (frame(HEADERS, 0, 1) + frame(CONTINUATION, END_HEADERS, 3), PROTOCOL_ERROR),
        (frame(HEADERS, 0, 1) + frame(0x77, 0, 1), PROTOCOL_ERROR),
        (frame(DATA, PADDED, 1), PROTOCOL_ERROR),
        (frame(DATA, PADDED, 1, b"\x04abc"), PROTOCOL_ERROR),
        (frame(HEADERS, PADDED | END_HEADERS, 1, b"\xff" + b"abc"), PROTOCOL_ERROR),
        (frame(HEADERS, PRIORITY_FLAG | END_HEADERS, 1, bytes(4)), FRAME_SIZE_ERROR),
        (frame(PRIORITY, 0, 1, bytes(4)), FRAME_SIZE_ERROR),
        (frame(RST_STREAM, 0, 1, bytes(3)), FRAME_SIZE_ERROR),
        (frame(PING, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
        (frame(WINDOW_UPDATE, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
        (frame(GOAWAY, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
        (frame(SETTINGS, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
        (frame(SETTINGS, 1, 0, bytes(6)), FRAME_SIZE_ERROR),
        (frame(DATA, 0, 1, bytes(65537)), FRAME_SIZE_ERROR),
        (frame(DATA, 0, 1, bytes(65537))[:9], FRAME_SIZE_ERROR),
        (frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1) * 64, ENHANCE_YOUR_CALM),
        (frame(HEADERS, END_HEADERS, 1, bytes(2 * 16384 + 1)), ENHANCE_YOUR_CALM),
        (frame(HEADERS, 0, 1, bytes(30000)) + frame(CONTINUATION, 0, 1, bytes(30000)), ENHANCE_YOUR_CALM),
    ],
)
def test_frames_that_may_not_come(data: bytes, code: int) -> None:
    with pytest.raises(ProtocolError) as raised:
        read(data)
    assert raised.value.code == code


@pytest.mark.parametrize("first", [frame(PING, 0, 0, bytes(8)), frame(SETTINGS, 1, 0), b"HTTP/1.1 400 Bad Request"])
def test_the_first_frame_is_settings(first: bytes) -> None:
    with pytest.raises(ProtocolError) as raised:
        list(reader().read(first))
    assert raised.value.code in (PROTOCOL_ERROR, FRAME_SIZE_ERROR)


@pytest.mark.parametrize("size", range(1, 24))
def test_a_client_begins_with_its_preface(size: int) -> None:
    with pytest.raises(ProtocolError):
        list(reader(CLIENT_PREFACE).read(CLIENT_PREFACE[: size - 1] + b"?"))


def test_one_frame_at_most_is_held_in_memory() -> None:
    part = reader()
    list(part.read(FIRST))
    assert list(part.read(frame(DATA, 0, 1, bytes(60000))[:50000])) == []
    data, ping = part.read(frame(DATA, 0, 1, bytes(60000))[50000:] + frame(PING, 0, 0, bytes(8)))
    assert (data.size, ping.kind) == (60000, PING)
