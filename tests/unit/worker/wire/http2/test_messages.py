"""gRPC's length-prefixed messages."""

from __future__ import annotations

import gzip
import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.wire.http2 import (
    MessageError,
    MessageReader,
    MessageTooLargeError,
    decompress,
    frame_message,
    message_prefix,
)

TEXT = b"text " * 1000


@given(st.lists(st.binary(max_size=50), max_size=5), st.lists(st.integers(0, 300), max_size=10))
def test_messages_do_not_depend_on_where_the_bytes_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(frame_message, messages))
    reader = MessageReader("identity", 100)
    for start, stop in itertools.pairwise([0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]):
        reader.receive(data[start:stop])
    assert reader.messages == messages
    assert reader.incomplete == 0


def test_bytes_of_an_incomplete_message_are_counted() -> None:
    reader = MessageReader("identity", 100)
    reader.receive(frame_message(b"whole") + frame_message(b"part")[:7])
    assert (reader.messages, reader.incomplete) == ([b"whole"], 7)


def test_a_message_above_the_limit_is_refused_when_it_is_announced() -> None:
    with pytest.raises(MessageTooLargeError):
        MessageReader("identity", 100).receive(message_prefix.pack(0, 101))


def test_compressed_and_plain_messages_may_alternate() -> None:
    packed = gzip.compress(TEXT)
    reader = MessageReader("gzip", 10000)
    reader.receive(message_prefix.pack(1, len(packed)) + packed + frame_message(b"plain"))
    assert reader.messages == [TEXT, b"plain"]


def test_both_compressions() -> None:
    assert decompress(1, gzip.compress(TEXT), "gzip", 5000) == TEXT
    assert decompress(1, zlib.compress(TEXT), "deflate", 5000) == TEXT
    assert decompress(0, TEXT, "gzip", 5000) == TEXT


@pytest.mark.parametrize(
    ("flag", "body", "encoding"),
    [
        (1, TEXT, "gzip"),
        (1, gzip.compress(TEXT)[:-4], "gzip"),
        (1, TEXT, "identity"),
        (1, TEXT, "snappy"),
        (2, gzip.compress(TEXT), "gzip"),
    ],
)
def test_what_cannot_be_read_is_an_error(flag: int, body: bytes, encoding: str) -> None:
    with pytest.raises(MessageError):
        decompress(flag, body, encoding, 10000)


def test_a_message_may_not_grow_above_the_limit_when_it_is_decompressed() -> None:
    with pytest.raises(MessageTooLargeError):
        decompress(1, gzip.compress(bytes(10**6)), "gzip", 1000)
