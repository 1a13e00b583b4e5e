"""Header blocks: a request's, read once and remembered by its bytes; a reply's, encoded beforehand.

Our SETTINGS give the peer's dynamic table the size 0. Once its encoder has obeyed, its blocks carry no state, and what
one says is looked up. Until then, and for a peer that never obeys, each block is decoded in turn.
"""

import base64
import binascii
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

from hpack import Decoder, HPACKError, OversizedHeaderListError

from worker.server.status import INTERNAL, RESOURCE_EXHAUSTED, UNAUTHENTICATED, UNIMPLEMENTED
from worker.wire.http2.frames import (
    ACCEPTED_ENCODINGS,
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    KEPT_BLOCK,
    KEPT_BLOCKS,
    WINDOW_BITS,
    ProtocolError,
    literal_block,
)

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]

# What a client may send of headers, as RFC 9113 (6.5.2) counts them; gRPC's own servers take 16 KiB at most too.
MAX_HEADER_LIST = 16384
# A grpc-message of more could be more than a client takes of headers: gRPC's take 8 KiB.
_LONGEST_WORDS = 4096
# Seconds in each unit of grpc-timeout.
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
# Fields that HTTP/2 has other means for (RFC 9113, 8.2.2).
_FORBIDDEN = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_PSEUDO = {b":method", b":scheme", b":path", b":authority"}


class Method(NamedTuple):
    """How an RPC is begun: with the request's whole bytes, or, where requests are a stream, with its headers."""

    begin: Callable[[Any, bytes], None]
    request_streaming: bool = False
    response_streaming: bool = False


class Refusal(NamedTuple):
    """Why a call is answered without being begun: a gRPC status, or only an HTTP status (where it is not 200)."""

    code: int
    words: str
    http_status: int = 200


class Route(NamedTuple):
    """What a request's header block says."""

    path: str
    method: Method | None
    metadata: Metadata = ()
    timeout_s: float | None = None
    encoding: str = "identity"
    refusal: Refusal | None = None
    malformed: bool = False


class Router:
    """Makes Routes out of header fields, and remembers those of blocks without state, for all connections."""

    def __init__(
        self, find: Callable[[str, Metadata], Method | None], authorized: Callable[[str, Metadata], bool]
    ) -> None:
        self._find = find
        self._authorized = authorized
        self.seen: dict[bytes, Route] = {}

    def remember(self, block: bytes, route: Route) -> None:
        if len(block) <= KEPT_BLOCK:
            if len(self.seen) >= KEPT_BLOCKS:
                self.seen.clear()
            self.seen[block] = route

    def route(self, fields: Sequence[tuple[bytes, bytes]]) -> Route:
        pseudo: dict[bytes, bytes] = {}
        metadata: list[tuple[str, str | bytes]] = []
        for name, value in fields:
            if not _NAME.fullmatch(name) or name in _FORBIDDEN or any(byte in value for byte in b"\0\r\n"):
                return _MALFORMED
            if name.startswith(b":"):
                if metadata or name in pseudo or name not in _PSEUDO:
                    return _MALFORMED
                pseudo[name] = value
            else:
                metadata.append(_entry(name.decode("ascii"), value))
        if not pseudo.get(b":path") or b":method" not in pseudo or b":scheme" not in pseudo:
            return _MALFORMED
        path = pseudo[b":path"].decode("utf-8", "replace")
        route = Route(path, None, tuple(metadata))
        said = {name: value for name, value in metadata if isinstance(value, str)}
        refusal = self._refusal(pseudo[b":method"], said)
        if refusal is not None:
            return route._replace(refusal=refusal)
        encoding = said.get("grpc-encoding", "identity")
        timeout_s = None
        if "grpc-timeout" in said and (timeout_s := timeout(said["grpc-timeout"])) is None:
            return route._replace(refusal=Refusal(INTERNAL, f"grpc-timeout is {said['grpc-timeout']!r}"))
        if not self._authorized(path, route.metadata):
            words = "a bearer token is needed in the metadata: authorization"
            return route._replace(refusal=Refusal(UNAUTHENTICATED, words))
        method = self._find(path, route.metadata)
        if method is None:
            return route._replace(refusal=Refusal(UNIMPLEMENTED, f"there is no method {path}"))
        if encoding != "identity" and encoding not in WINDOW_BITS:
            words = f"messages compressed with {encoding!r} are not read; {ACCEPTED_ENCODINGS} are"
            return route._replace(refusal=Refusal(UNIMPLEMENTED, words))
        return route._replace(method=method, timeout_s=timeout_s, encoding=encoding)

    @staticmethod
    def _refusal(method: bytes, said: dict[str, str]) -> Refusal | None:
        if method != b"POST":
            return Refusal(INTERNAL, "", 405)
        kind = said.get("content-type", "")
        if kind != "application/grpc" and not kind.startswith(("application/grpc+", "application/grpc;")):
            return Refusal(INTERNAL, "", 415)
        return None


_MALFORMED = Route("", None, malformed=True)
_OVERSIZED = Route(
    "", None, refusal=Refusal(RESOURCE_EXHAUSTED, f"the request's headers are larger than {MAX_HEADER_LIST} bytes")
)


class HeaderReader:
    """Reads the header blocks of one connection, in order."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._decoder = Decoder(max_header_list_size=MAX_HEADER_LIST)
        # The peer's blocks carry no state: its table is empty and stays so.
        self.stateless = False

    def read(self, block: bytes) -> Route:
        """Raises ProtocolError where the block cannot be decoded: the next ones could not be either."""
        if self.stateless and (known := self._router.seen.get(block)) is not None:
            return known
        decoder = self._decoder
        stateless = self.stateless
        try:
            fields = decoder.decode(block, raw=True)
        except OversizedHeaderListError:
            if not stateless or decoder.header_table_size:
                raise ProtocolError(ENHANCE_YOUR_CALM, "a header list larger than our SETTINGS allow") from None
            return _OVERSIZED
        except (HPACKError, UnicodeError, IndexError) as error:
            raise ProtocolError(COMPRESSION_ERROR, f"a header block cannot be decoded: {error}") from None
        route = self._router.route([(name, value) for name, value in fields])
        self.stateless = decoder.header_table_size == 0
        # A block that changes the table's size says something beyond its fields.
        if stateless and self.stateless and block[:1] and block[0] & 0xE0 != 0x20:
            self._router.remember(block, route)
        return route


def _entry(name: str, value: bytes) -> tuple[str, str | bytes]:
    """A field as gRPC's metadata; what is binary travels as base64, padded or not."""
    if not name.endswith("-bin"):
        return name, value.decode("ascii", "replace")
    try:
        return name, base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        return name, value


def timeout(text: str) -> float | None:
    """`grpc-timeout` in seconds; None where it is none."""
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit() and len(number) <= 8) or unit not in _UNITS:
        return None
    return int(number) * _UNITS[unit]


# Index 8 of HPACK's static table is ":status: 200".
REPLY = b"\x88" + literal_block([("content-type", "application/grpc")])
OK_TRAILERS = literal_block([("grpc-status", "0")])


def reply_head(extra: Metadata) -> bytes:
    """The headers before a reply's first message."""
    return REPLY + literal_block(_fields(extra)) if extra else REPLY


def trailers(code: int, words: str, extra: Metadata = ()) -> bytes:
    """The header block that ends a reply, after its messages."""
    return _trailers(code, words) + literal_block(_fields(extra)) if extra else _trailers(code, words)


@functools.lru_cache(256)
def _trailers(code: int, words: str) -> bytes:
    if not code and not words:
        return OK_TRAILERS
    fields = [("grpc-status", str(code))]
    if words:
        # "Percent-Encoded" of gRPC's protocol: printable ASCII but for "%" stays as it is.
        encoded = quote(words, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}", errors="replace")
        fields.append(("grpc-message", re.sub("%.?$", "", encoded[:_LONGEST_WORDS])))
    return literal_block(fields)


@functools.lru_cache(256)
def refusal_block(refusal: Refusal) -> bytes:
    """A whole reply in one header block."""
    if refusal.http_status != 200:
        return literal_block([(":status", str(refusal.http_status))])
    accepted = [("grpc-accept-encoding", ACCEPTED_ENCODINGS)] if refusal.code == UNIMPLEMENTED else []
    return REPLY + literal_block(accepted) + _trailers(refusal.code, refusal.words)


def _fields(metadata: Metadata) -> list[tuple[str, str]]:
    return [
        (name, base64.b64encode(value).rstrip(b"=").decode() if isinstance(value, bytes) else value)
        for name, value in metadata
    ]
