"""Header blocks (HPACK, RFC 7541): encoded without state, decoded once and then looked up by their bytes.

Our SETTINGS give the peer's dynamic table the size 0. A block of an encoder that follows them carries no state: the
same fields are the same bytes, whatever came before, so that a dictionary of blocks replaces decoding.
"""

import logging
from collections.abc import Iterable
from typing import Generic, TypeVar

from hpack import Decoder, Encoder, HPACKError, OversizedHeaderListError

from worker.wire.http2.errors import ProtocolError
from worker.wire.http2.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM

EMPTY_TABLE = b"\x20"  # dynamic table size update to 0 (RFC 7541, 6.3)
STORED_BLOCK_BYTES, STORED_BLOCKS = 1024, 4096

# At level DEBUG, hpack logs every header field, tokens too.
logging.getLogger("hpack").setLevel(logging.INFO)

Field = tuple[bytes, bytes]
Value = TypeVar("Value")


def literal_block(fields: Iterable[tuple[str, str]]) -> bytes:
    """Encodes a header block without state: every field is a literal that is "never indexed" (RFC 7541, 6.2.3)."""
    encoder = Encoder()
    return b"".join(
        encoder.add((name.encode(), value.encode()), sensitive=True, huffman=True) for name, value in fields
    )


class BlockCache(Generic[Value]):
    """What stateless header blocks mean, by their bytes. Bounded: long blocks are not stored, a full cache is emptied.

    `values` is read directly where a method call would cost too much.
    """

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: dict[bytes, Value] = {}

    def store(self, block: bytes, value: Value) -> None:
        """Stores the meaning of a block that carries no state."""
        if len(block) <= STORED_BLOCK_BYTES:
            if len(self.values) >= STORED_BLOCKS:
                self.values.clear()
            self.values[block] = value


class HeaderDecoder:
    """Decodes the header blocks of one connection, in order.

    `stateless` is true once the peer's dynamic table has the size 0; from then on a block may be looked up instead.
    A peer that has not yet applied our SETTINGS, or never does, is decoded with its table.
    """

    __slots__ = ("_decoder", "stateless")

    def __init__(self, max_list_bytes: int, *, stateless: bool = False) -> None:
        self._decoder = Decoder(max_header_list_size=max_list_bytes)
        self.stateless = stateless
        if stateless:
            self._decoder.max_allowed_table_size = 0
            self._decoder.header_table_size = 0

    def decode(self, block: bytes) -> list[Field] | None:
        """The fields of a block; None where they are larger than the limit.

        Raises ProtocolError where the block, and with it every later one, cannot be decoded.
        """
        decoder = self._decoder
        before = self.stateless
        try:
            fields = decoder.decode(block, raw=True)
        except OversizedHeaderListError:
            if not before or decoder.header_table_size:
                raise ProtocolError(ENHANCE_YOUR_CALM, "a header list larger than our SETTINGS allow") from None
            return None
        except (HPACKError, UnicodeError, IndexError) as error:
            raise ProtocolError(COMPRESSION_ERROR, f"a header block cannot be decoded: {error}") from None
        self.stateless = decoder.header_table_size == 0
        return [(bytes(name), bytes(value)) for name, value in fields]

    def forbid_table(self) -> None:
        """The peer has acknowledged our SETTINGS: a table that has the size 0 may not grow again (RFC 7541, 4.2)."""
        if self.stateless:
            self._decoder.max_allowed_table_size = 0

    @staticmethod
    def storable(block: bytes) -> bool:
        """Whether a block of a stateless decoder means the same every time: it does not change the table's size."""
        return bool(block) and block[0] & 0xE0 != 0x20
