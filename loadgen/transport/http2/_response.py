"""What a gRPC reply says: header blocks decoded, messages put together, every ending turned into one status code.

Sources: gRPC over HTTP/2 (PROTOCOL-HTTP2.md), its HTTP status mapping (http-grpc-status-mapping.md) and compression.md.
Where those leave a choice, gRPC's C-core is followed, so that both transports count the same errors.
"""

from collections.abc import Sequence
from urllib.parse import unquote

from hpack import Decoder, HPACKError, OversizedHeaderListError

from loadgen.transport._reply import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    INTERNAL,
    OK,
    PERMISSION_DENIED,
    RESOURCE_EXHAUSTED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNIMPLEMENTED,
    UNKNOWN,
    Lost,
    Reply,
)
from worker.wire.http2.frames import ACCEPTED_ENCODINGS, WINDOW_BITS, Unreadable, inflate

LAST_CODE = 16

# Replies without a grpc-status; every other HTTP status is UNKNOWN, 200 included.
_OF_HTTP = {
    400: INTERNAL,
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: UNIMPLEMENTED,
    429: UNAVAILABLE,
    431: INTERNAL,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: UNAVAILABLE,
}
# RST_STREAM: REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY; every other one is INTERNAL.
_OF_RESET = {7: UNAVAILABLE, 8: CANCELLED, 11: RESOURCE_EXHAUSTED, 12: PERMISSION_DENIED}

MAX_HEADER_LIST = 65536


class Head:
    """What one header block said, as far as a unary call needs it."""

    __slots__ = ("code", "encoding", "message", "oversized", "status")

    def __init__(self) -> None:
        self.status: int | None = None  # :status; None in trailers
        self.code: int | None = None  # grpc-status
        self.message = ""
        self.encoding = "identity"
        self.oversized = False


def decode_head(block: bytes) -> Head:
    """Decodes a header block without any state, which a dynamic table of size 0 makes possible. Raises HPACKError."""
    decoder = Decoder(max_header_list_size=MAX_HEADER_LIST)
    decoder.max_allowed_table_size = 0
    decoder.header_table_size = 0
    head = Head()
    try:
        fields = decoder.decode(block, raw=True)
    except OversizedHeaderListError:
        head.oversized = True
        return head
    except UnicodeError as error:
        raise HPACKError(str(error)) from error
    for name, value in fields:
        if name == b":status":
            head.status = int(value) if value.isdigit() and len(value) == 3 else 0
        elif name == b"grpc-status":
            number = int(value) if value.isdigit() and len(value) < 10 else -1
            head.code = number if 0 <= number <= LAST_CODE else UNKNOWN
        elif name == b"grpc-message":
            head.message = unquote(value.decode("utf-8", "replace"), errors="replace")
        elif name == b"grpc-encoding":
            head.encoding = value.decode("ascii", "replace")
    return head


def reset_reply(error: int, expired: bool) -> Reply:
    """The end of a call by the server's RST_STREAM; a CANCEL once our own deadline is over is that deadline's doing."""
    code = _OF_RESET.get(error, INTERNAL)
    if code == CANCELLED and expired:
        code = DEADLINE_EXCEEDED
    return Reply(code, f"the server reset the stream with HTTP/2 error {error}")


def final_reply(head: Head | None, trailers: Head | None, parts: Sequence[bytes], limit: int) -> Reply:
    """The end of a call by END_STREAM. `head` is None in a trailers-only reply, `trailers` where none came.

    `parts` are the DATA as received, the prefix included; a message of more than `limit` bytes is refused.
    """
    if (head and head.oversized) or (trailers and trailers.oversized):
        return Reply(RESOURCE_EXHAUSTED, f"reply headers are larger than {MAX_HEADER_LIST} bytes")
    if trailers is None or trailers.code is None:
        status = (head or trailers or Head()).status
        if status != 200:
            # From something in between, which does not say whether the call was run.
            return Lost(_OF_HTTP.get(status or 0, UNKNOWN), f"the reply has HTTP status {status} and no grpc-status")
        return Reply(UNKNOWN, "the reply ended without a grpc-status")
    if trailers.code != OK:
        return Reply(trailers.code, trailers.message)
    return message_reply(parts, head.encoding if head else "identity", limit, trailers.message)


def message_reply(parts: Sequence[bytes], encoding: str, limit: int, words: str = "") -> Reply:
    """The one message of a reply whose status is OK; INTERNAL where it is missing, cut, doubled or unreadable."""
    if parts and len(parts[0]) < 5:
        parts = [b"".join(parts)]
    if not parts or len(parts[0]) < 5:
        return Reply(INTERNAL, "the reply has status OK and no message")
    compressed, announced = parts[0][0], int.from_bytes(parts[0][1:5], "big")
    body = b"".join((parts[0][5:], *parts[1:]))
    if len(body) != announced:
        return Reply(INTERNAL, f"the reply's message has {len(body)} bytes where {announced} were announced")
    if compressed == 0:
        return Reply(OK, words, body)
    if compressed != 1:
        return Reply(INTERNAL, f"the reply's compressed flag is {compressed}, neither 0 nor 1")
    if encoding not in WINDOW_BITS:
        return Reply(INTERNAL, f"the reply is compressed with {encoding!r}, not with one of {ACCEPTED_ENCODINGS}")
    try:
        message = inflate(encoding, body, limit)
    except Unreadable as error:
        return Reply(INTERNAL, f"the reply {error}")
    if len(message) > limit:
        return Reply(RESOURCE_EXHAUSTED, f"the decompressed reply is larger than {limit} bytes")
    return Reply(OK, words, message)
