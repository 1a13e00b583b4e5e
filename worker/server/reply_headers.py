"""Header blocks of replies, encoded without state: before the first message, after the last, or instead of any."""

import base64
import functools
import re
from urllib.parse import quote

from worker.server.request_headers import Metadata, Rejection
from worker.wire import StatusCode
from worker.wire.http2 import ACCEPTED_ENCODINGS, literal_block

# A grpc-message of more could be more than a client takes of headers; gRPC's own clients take 8 KiB.
_LONGEST_MESSAGE = 4096

# Index 8 of HPACK's static table is ":status: 200".
REPLY_HEAD = b"\x88" + literal_block([("content-type", "application/grpc")])
OK_TRAILERS = literal_block([("grpc-status", "0")])


def reply_head(metadata: Metadata) -> bytes:
    """The headers before a reply's first message."""
    return REPLY_HEAD + literal_block(_fields(metadata)) if metadata else REPLY_HEAD


def reply_trailers(code: int, message: str, metadata: Metadata = ()) -> bytes:
    """The header block that ends a reply, after its messages."""
    trailers = _status(int(code), message)
    return trailers + literal_block(_fields(metadata)) if metadata else trailers


@functools.lru_cache(256)
def _status(code: int, message: str) -> bytes:
    if not code and not message:
        return OK_TRAILERS
    fields = [("grpc-status", str(code))]
    if message:
        # "Percent-Encoded" of gRPC's protocol: printable ASCII but for "%" stays as it is.
        encoded = quote(message, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}", errors="replace")
        fields.append(("grpc-message", re.sub("%.?$", "", encoded[:_LONGEST_MESSAGE])))
    return literal_block(fields)


@functools.lru_cache(256)
def rejection_block(rejection: Rejection) -> bytes:
    """A whole reply in one header block."""
    if rejection.http_status != 200:
        return literal_block([(":status", str(rejection.http_status))])
    accepted = [("grpc-accept-encoding", ACCEPTED_ENCODINGS)] if rejection.code == StatusCode.UNIMPLEMENTED else []
    return REPLY_HEAD + literal_block(accepted) + _status(int(rejection.code), rejection.message)


def _fields(metadata: Metadata) -> list[tuple[str, str]]:
    return [
        (name, base64.b64encode(value).rstrip(b"=").decode() if isinstance(value, bytes) else value)
        for name, value in metadata
    ]
