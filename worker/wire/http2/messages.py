"""gRPC's length-prefixed messages: a byte that says whether the message is compressed, four of length, the message."""

import zlib
from struct import Struct

from worker.wire.http2.errors import MessageError, MessageTooLargeError

ACCEPTED_ENCODINGS = "identity,deflate,gzip"
_WINDOW_BITS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
COMPRESSIONS = frozenset(_WINDOW_BITS)

message_prefix = Struct(">BI")


def frame_message(message: bytes) -> bytes:
    """An uncompressed message with its prefix."""
    return message_prefix.pack(0, len(message)) + message


def decompress(flag: int, body: bytes, encoding: str, limit: int) -> bytes:
    """A message of at most `limit` bytes, by its compressed flag (0 or 1) and the call's `grpc-encoding`.

    Raises MessageError and MessageTooLargeError, whose texts continue a sentence that begins with "the message".
    """
    if flag == 0:
        return body
    if flag != 1 or encoding not in _WINDOW_BITS:
        raise MessageError(f"has compressed flag {flag} where grpc-encoding is {encoding!r}")
    inflater = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        message = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise MessageError(f"cannot be decompressed: {error}") from None
    if len(message) > limit:
        raise MessageTooLargeError(f"is larger than {limit} bytes when decompressed")
    if not inflater.eof:
        raise MessageError("is compressed and incomplete")
    return message


class MessageReader:
    """Puts together the messages of one stream of DATA."""

    __slots__ = ("_buffer", "_encoding", "_limit", "_needed", "messages")

    def __init__(self, encoding: str, limit: int) -> None:
        self._buffer = bytearray()
        self._needed = 5  # bytes in the buffer with which the next step can be taken
        self._encoding = encoding
        self._limit = limit
        self.messages: list[bytes] = []
        """Complete messages, decompressed; the caller removes them."""

    @property
    def incomplete(self) -> int:
        """Bytes of a message that is not complete."""
        return len(self._buffer)

    def receive(self, payload: bytes) -> None:
        """Appends complete messages to `messages`. Raises MessageError; one too large, as soon as its size is read."""
        buffer = self._buffer
        buffer += payload
        if len(buffer) < self._needed:
            return
        position = 0
        while len(buffer) - position >= 5:
            flag, size = message_prefix.unpack_from(buffer, position)
            if size > self._limit:
                raise MessageTooLargeError(f"has {size} bytes (expected at most {self._limit})")
            stop = position + 5 + size
            if len(buffer) < stop:
                self._needed = 5 + size
                break
            body = bytes(memoryview(buffer)[position + 5 : stop])
            position = stop
            self._needed = 5
            self.messages.append(decompress(flag, body, self._encoding, self._limit))
        if position:
            del buffer[:position]
