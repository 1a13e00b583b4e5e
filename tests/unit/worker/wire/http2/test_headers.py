"""Header blocks without state, and the decoder of one connection."""

from __future__ import annotations

import hpack
import pytest

from worker.wire.http2 import (
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    BlockCache,
    HeaderDecoder,
    ProtocolError,
    literal_block,
)
from worker.wire.http2.headers import EMPTY_TABLE, STORED_BLOCK_BYTES, STORED_BLOCKS

FIELDS = [("a", "1"), ("b", "2")]
DECODED = [(b"a", b"1"), (b"b", b"2")]


def test_a_literal_block_leaves_no_state_in_its_decoder() -> None:
    decoder = hpack.Decoder()
    for _ in range(2):
        assert decoder.decode(literal_block(FIELDS)) == FIELDS
    assert not decoder.header_table.dynamic_entries
    assert literal_block(FIELDS) == literal_block(FIELDS)


def test_a_decoder_follows_the_dynamic_table_until_the_peer_gives_it_up() -> None:
    encoder, decoder = hpack.Encoder(), HeaderDecoder(1000)
    for _ in range(2):
        assert decoder.decode(encoder.encode(FIELDS)) == DECODED
        assert not decoder.stateless
    encoder.header_table_size = 0
    assert decoder.decode(encoder.encode(FIELDS)) == DECODED
    assert decoder.stateless


def test_after_the_acknowledgement_a_table_that_is_gone_may_not_come_again() -> None:
    grow = b"\x3f\xe1\x1f"  # dynamic table size update to 4096
    decoder = HeaderDecoder(1000)
    decoder.forbid_table()  # a peer that has not applied it yet is decoded with its table
    assert decoder.decode(grow + literal_block(FIELDS)) == DECODED
    assert decoder.decode(EMPTY_TABLE + literal_block(FIELDS)) == DECODED
    decoder.forbid_table()
    with pytest.raises(ProtocolError) as raised:
        decoder.decode(grow + literal_block(FIELDS))
    assert raised.value.code == COMPRESSION_ERROR


@pytest.mark.parametrize("block", [b"\xff\xff\x01", literal_block(FIELDS)[:-1], b"\x3f\xe1\x1f", b"\xbe"])
def test_a_block_that_cannot_be_decoded_is_a_compression_error(block: bytes) -> None:
    with pytest.raises(ProtocolError) as raised:
        HeaderDecoder(1000, stateless=True).decode(block)
    assert raised.value.code == COMPRESSION_ERROR


def test_a_list_that_is_too_large_is_an_error_only_where_the_decoder_has_state() -> None:
    large = literal_block([("a", "x" * 2000)])
    assert HeaderDecoder(1000, stateless=True).decode(large) is None
    with pytest.raises(ProtocolError) as raised:
        HeaderDecoder(1000).decode(large)
    assert raised.value.code == ENHANCE_YOUR_CALM


def test_a_block_that_changes_the_table_is_not_stored() -> None:
    assert HeaderDecoder.storable(literal_block(FIELDS))
    assert not HeaderDecoder.storable(EMPTY_TABLE + literal_block(FIELDS))
    assert not HeaderDecoder.storable(b"")


def test_the_cache_is_bounded() -> None:
    cache: BlockCache[int] = BlockCache()
    cache.store(bytes(STORED_BLOCK_BYTES + 1), 0)
    assert cache.values == {}
    for number in range(STORED_BLOCKS + 1):
        cache.store(number.to_bytes(4, "big"), number)
    assert cache.values == {STORED_BLOCKS.to_bytes(4, "big"): STORED_BLOCKS}
