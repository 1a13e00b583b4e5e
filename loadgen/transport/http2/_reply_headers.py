"""How a unary call ends: header blocks decoded, the message put together, every ending turned into one status code.

Sources: gRPC over HTTP/2 (PROTOCOL-HTTP2.md), its HTTP status mapping (http-grpc-status-mapping.md) and compression.md.
Where those leave a choice, gRPC's C-core is followed, so that both transports count the same errors.
"""

from collections.abc import Sequence
from urllib.parse import unquote

from loadgen._reply import ConnectionLost, Reply
from loadgen.transport.http2._request_headers import LIMITS
from worker.wire import StatusCode
from worker.wire.http2 import Field, MessageError, MessageTooLargeError, decompress

# Replies without a grpc-status; every other HTTP status is UNKNOWN, 200 included.
_OF_HTTP = {
    400: StatusCode.INTERNAL,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.UNIMPLEMENTED,
    429: StatusCode.UNAVAILABLE,
    431: StatusCode.INTERNAL,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.UNAVAILABLE,
}
# RST_STREAM: REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY; every other one is INTERNAL.
_OF_RESET = {
    7: StatusCode.UNAVAILABLE,
    8: StatusCode.CANCELLED,
    11: StatusCode.RESOURCE_EXHAUSTED,
    12: StatusCode.PERMISSION_DENIED,
}
_LAST_CODE = max(StatusCode)


class ReplyHead:
    """The meaning of one header block, as far as a unary call needs it."""

    __slots__ = ("code", "encoding", "message", "oversized", "status")

    def __init__(self, fields: Sequence[Field] | None) -> None:
        """`fields` is None where they are larger than our SETTINGS allow."""
        self.status: int | None = None  # :status; None in trailers
        self.code: int | None = None  # grpc-status
        self.message = ""
        self.encoding = "identity"
        self.oversized = fields is None
        for name, value in fields or ():
            if name == b":status":
                self.status = int(value) if value.isdigit() and len(value) == 3 else 0
            elif name == b"grpc-status":
                number = int(value) if value.isdigit() and len(value) < 10 else -1
                self.code = number if 0 <= number <= _LAST_CODE else StatusCode.UNKNOWN.value
            elif name == b"grpc-message":
                self.message = unquote(value.decode("utf-8", "replace"), errors="replace")
            elif name == b"grpc-encoding":
                self.encoding = value.decode("ascii", "replace")


def reset_reply(error: int, expired: bool) -> Reply:
    """The end of a call by the server's RST_STREAM; a CANCEL after our own deadline is DEADLINE_EXCEEDED."""
    code = _OF_RESET.get(error, StatusCode.INTERNAL)
    if code == StatusCode.CANCELLED and expired:
        code = StatusCode.DEADLINE_EXCEEDED
    return Reply(code.value, f"the server reset the stream with HTTP/2 error {error}")


def final_reply(head: ReplyHead | None, trailers: ReplyHead | None, parts: Sequence[bytes], limit: int) -> Reply:
    """The end of a call by END_STREAM. `head` is None in a trailers-only reply, `trailers` where none came.

    `parts` are the DATA as received, the prefix included; a message of more than `limit` bytes is refused.
    """
    if (head and head.oversized) or (trailers and trailers.oversized):
        message = f"reply headers are larger than {LIMITS.header_list_bytes} bytes"
        return Reply(StatusCode.RESOURCE_EXHAUSTED.value, message)
    if trailers is None or trailers.code is None:
        first = head or trailers
        status = first.status if first else None
        if status != 200:
            # From a proxy, which does not say whether the server executed the call.
            code = _OF_HTTP.get(status or 0, StatusCode.UNKNOWN).value
            return ConnectionLost(code, f"the reply has HTTP status {status} and no grpc-status")
        return Reply(StatusCode.UNKNOWN.value, "the reply ended without a grpc-status")
    if trailers.code:
        return Reply(trailers.code, trailers.message)
    return _message_reply(parts, head.encoding if head else "identity", limit, trailers.message)


def _message_reply(parts: Sequence[bytes], encoding: str, limit: int, message: str) -> Reply:
    """The one message of a reply with status OK; INTERNAL where it is missing, incomplete, doubled or unreadable."""
    if parts and len(parts[0]) < 5:
        parts = [b"".join(parts)]
    if not parts or len(parts[0]) < 5:
        return _internal("the reply has status OK and no message")
    flag, announced = parts[0][0], int.from_bytes(parts[0][1:5], "big")
    body = b"".join((parts[0][5:], *parts[1:]))
    if len(body) != announced:
        return _internal(f"the reply's message has {len(body)} bytes (expected the {announced} of its prefix)")
    try:
        return Reply(StatusCode.OK.value, message, decompress(flag, body, encoding, limit))
    except MessageTooLargeError as error:
        return Reply(StatusCode.RESOURCE_EXHAUSTED.value, f"the reply's message {error}")
    except MessageError as error:
        return _internal(f"the reply's message {error}")


def _internal(message: str) -> Reply:
    return Reply(StatusCode.INTERNAL.value, message)
