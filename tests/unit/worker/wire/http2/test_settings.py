"""The peer's SETTINGS: which values apply, and which are errors."""

from __future__ import annotations

import struct

import pytest

from worker.wire.http2 import (
    ENABLE_PUSH,
    FLOW_CONTROL_ERROR,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    PROTOCOL_ERROR,
    ConnectionSettings,
    ProtocolError,
)
from worker.wire.http2.frames import LARGEST_CHUNK


def payload(*values: tuple[int, int]) -> bytes:
    return b"".join(struct.pack(">HI", name, value) for name, value in values)


def test_until_the_peer_sets_them_the_values_are_those_of_the_standard() -> None:
    settings = ConnectionSettings(peer_is_server=True)
    assert (settings.header_table, settings.initial_window, settings.max_frame) == (4096, 65535, 16384)
    assert settings.max_streams == 2**31 - 1


def test_values_apply_in_order_and_unknown_ones_are_ignored() -> None:
    settings = ConnectionSettings(peer_is_server=True)
    change = settings.apply(
        payload(
            *((HEADER_TABLE_SIZE, 0), (MAX_CONCURRENT_STREAMS, 7), (INITIAL_WINDOW_SIZE, 1), (0xFFFF, 9)),
            *((MAX_FRAME_SIZE, 20000), (INITIAL_WINDOW_SIZE, 100)),
        )
    )
    assert (settings.header_table, settings.max_streams, settings.max_frame) == (0, 7, 20000)
    assert (settings.initial_window, change) == (100, 100 - 65535)
    assert settings.apply(b"") == 0


def test_a_small_call_waits_for_no_larger_frame_than_ours() -> None:
    settings = ConnectionSettings(peer_is_server=True)
    settings.apply(payload((MAX_FRAME_SIZE, 2**24 - 1)))
    assert settings.max_frame == LARGEST_CHUNK


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        (INITIAL_WINDOW_SIZE, 2**31, FLOW_CONTROL_ERROR),
        (MAX_FRAME_SIZE, 16383, PROTOCOL_ERROR),
        (MAX_FRAME_SIZE, 2**24, PROTOCOL_ERROR),
        (ENABLE_PUSH, 2, PROTOCOL_ERROR),
    ],
)
@pytest.mark.parametrize("peer_is_server", [True, False])
def test_values_that_the_standard_forbids(name: int, value: int, code: int, peer_is_server: bool) -> None:
    with pytest.raises(ProtocolError) as raised:
        ConnectionSettings(peer_is_server=peer_is_server).apply(payload((name, value)))
    assert raised.value.code == code


def test_a_client_may_enable_push_and_a_server_may_not() -> None:
    ConnectionSettings(peer_is_server=False).apply(payload((ENABLE_PUSH, 1)))
    with pytest.raises(ProtocolError):
        ConnectionSettings(peer_is_server=True).apply(payload((ENABLE_PUSH, 1)))
