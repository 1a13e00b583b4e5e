"""Header blocks of requests: read once, checked, and stored by their bytes for all connections of a server."""

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from worker.wire import StatusCode
from worker.wire.http2 import ACCEPTED_ENCODINGS, COMPRESSIONS, BlockCache, Field, HeaderDecoder

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]

# Seconds in each unit of grpc-timeout.
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
# Fields that HTTP/2 replaces by other means (RFC 9113, 8.2.2).
_FORBIDDEN = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_PSEUDO = {b":method", b":scheme", b":path", b":authority"}


class Method(NamedTuple):
    """How an RPC begins: with the request's whole message, or, where requests are a stream, with b""."""

    begin: Callable[[Any, bytes], None]
    request_streaming: bool = False
    response_streaming: bool = False


class Rejection(NamedTuple):
    """Why a call is answered without being begun: a gRPC status, or only an HTTP status where that is not 200."""

    code: int
    message: str
    http_status: int = 200


class RequestHead(NamedTuple):
    """The meaning of a request's header block."""

    path: str
    method: Method | None
    metadata: Metadata = ()
    timeout_s: float | None = None
    encoding: str = "identity"
    content_length: int | None = None
    rejection: Rejection | None = None
    malformed: bool = False
    simple: bool = False
    """Whether the fast path may begin the call: one message, and nothing else to check."""


class RequestHeadParser:
    """Makes RequestHeads of header fields. `cache` has those of blocks without state, for all connections."""

    def __init__(
        self,
        find_method: Callable[[str, Metadata], Method | None],
        authorized: Callable[[str, Metadata], bool],
        max_list_bytes: int,
    ) -> None:
        """`authorized(path, metadata)` says whether the call may be made."""
        self._find_method = find_method
        self._authorized = authorized
        self.max_list_bytes = max_list_bytes
        self.cache: BlockCache[RequestHead] = BlockCache()
        self.oversized = RequestHead(
            "",
            None,
            rejection=Rejection(
                StatusCode.RESOURCE_EXHAUSTED, f"the request's headers are larger than {max_list_bytes} bytes"
            ),
        )

    def parse(self, fields: Sequence[Field]) -> RequestHead:
        """The meaning of these fields; `malformed` where HTTP/2 forbids them (RFC 9113, 8.2 and 8.3)."""
        pseudo: dict[bytes, bytes] = {}
        metadata: list[tuple[str, str | bytes]] = []
        for name, value in fields:
            if not _well_formed(name, value):
                return _MALFORMED
            if name.startswith(b":"):
                if metadata or name in pseudo or name not in _PSEUDO:
                    return _MALFORMED
                pseudo[name] = value
            else:
                metadata.append(_metadata_entry(name.decode("ascii"), value))
        if not pseudo.get(b":path") or b":method" not in pseudo or b":scheme" not in pseudo:
            return _MALFORMED
        text = {name: value for name, value in metadata if isinstance(value, str)}
        length = text.get("content-length")
        if length is not None and not (length.isascii() and length.isdigit() and len(length) < 19):
            return _MALFORMED
        path = pseudo[b":path"].decode("utf-8", "replace")
        head = RequestHead(path, None, tuple(metadata), content_length=None if length is None else int(length))
        return self._resolve(head, pseudo[b":method"], text)

    def _resolve(self, head: RequestHead, http_method: bytes, text: dict[str, str]) -> RequestHead:
        """Adds the method that the call is for, or why it is rejected."""
        rejection = _not_grpc(http_method, text)
        if rejection is not None:
            return head._replace(rejection=rejection)
        timeout_s = None
        if "grpc-timeout" in text and (timeout_s := parse_timeout(text["grpc-timeout"])) is None:
            message = f"grpc-timeout is {text['grpc-timeout']!r} (expected up to 8 digits and one of H, M, S, m, u, n)"
            return head._replace(rejection=Rejection(StatusCode.INTERNAL, message))
        if not self._authorized(head.path, head.metadata):
            message = "a bearer token is needed in the metadata: authorization"
            return head._replace(rejection=Rejection(StatusCode.UNAUTHENTICATED, message))
        method = self._find_method(head.path, head.metadata)
        if method is None:
            return head._replace(rejection=Rejection(StatusCode.UNIMPLEMENTED, f"there is no method {head.path}"))
        encoding = text.get("grpc-encoding", "identity")
        if encoding != "identity" and encoding not in COMPRESSIONS:
            message = f"messages compressed with {encoding!r} are not read (expected one of {ACCEPTED_ENCODINGS})"
            return head._replace(rejection=Rejection(StatusCode.UNIMPLEMENTED, message))
        simple = not method.request_streaming and head.content_length is None
        return head._replace(method=method, timeout_s=timeout_s, encoding=encoding, simple=simple)


_MALFORMED = RequestHead("", None, malformed=True)


class RequestHeadReader:
    """Reads the header blocks of one connection, in order. Every method raises ProtocolError where a block cannot be
    decoded: the next ones could not be either."""

    __slots__ = ("_parser", "decoder", "stored")

    def __init__(self, parser: RequestHeadParser) -> None:
        self._parser = parser
        self.stored = parser.cache.values
        """What blocks without state mean; good for this connection while `decoder.stateless`."""
        self.decoder = HeaderDecoder(parser.max_list_bytes)

    def read(self, block: bytes) -> RequestHead:
        """The meaning of a block that begins a request."""
        decoder, parser = self.decoder, self._parser
        stateless = decoder.stateless
        if stateless and (stored := self.stored.get(block)) is not None:
            return stored
        fields = decoder.decode(block)
        if fields is None:
            return parser.oversized
        head = parser.parse(fields)
        if stateless and decoder.stateless and decoder.storable(block):
            parser.cache.store(block, head)
        return head

    def read_trailers(self, block: bytes) -> bool:
        """Whether the fields of a block that ends a request are well-formed: no pseudo-headers among them."""
        fields = self.decoder.decode(block)
        return fields is not None and all(
            _well_formed(name, value) and not name.startswith(b":") for name, value in fields
        )


def _well_formed(name: bytes, value: bytes) -> bool:
    return (
        _NAME.fullmatch(name) is not None
        and name not in _FORBIDDEN
        and not any(byte in value for byte in b"\0\r\n")
        and (name != b"te" or value == b"trailers")
    )


def _not_grpc(http_method: bytes, text: dict[str, str]) -> Rejection | None:
    if http_method != b"POST":
        return Rejection(StatusCode.INTERNAL, "", 405)
    content_type = text.get("content-type", "")
    if content_type != "application/grpc" and not content_type.startswith(("application/grpc+", "application/grpc;")):
        return Rejection(StatusCode.INTERNAL, "", 415)
    return None


def _metadata_entry(name: str, value: bytes) -> tuple[str, str | bytes]:
    """A field as gRPC's metadata; a binary one travels as base64, padded or not."""
    if not name.endswith("-bin"):
        return name, value.decode("ascii", "replace")
    try:
        return name, base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        return name, value


def parse_timeout(text: str) -> float | None:
    """The value of `grpc-timeout` in seconds; None where it is not well-formed."""
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit() and len(number) <= 8) or unit not in _UNITS:
        return None
    return int(number) * _UNITS[unit]
