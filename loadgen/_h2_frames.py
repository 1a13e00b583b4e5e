"""HTTP/2 frames as bytes (RFC 9113): their types, flags and limits, our preface, a request's header block."""

import math
from struct import Struct

from hpack import Encoder

from loadgen._h2_reply import ACCEPTED_ENCODINGS, MAX_HEADER_LIST

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITY_FLAG = 0x4, 0x8, 0x20
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, CANCEL = 0x0, 0x1, 0x3, 0x6, 0x8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0x9, 0xB
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 2, 3, 4
MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 5, 6

LARGEST_WINDOW = LAST_STREAM_ID = 2**31 - 1
DEFAULT_WINDOW, DEFAULT_FRAME = 65535, 16384
OUR_FRAME = 65536  # the largest frame we accept: few frames for a large reply, and little to hold of a cut one
LARGEST_CHUNK = 131072  # the largest frame we send, where the peer takes larger ones: a small call waits for no more
EMPTY_TABLE = b"\x20"  # HPACK: dynamic table size update to 0 (RFC 7541, 6.3), due in a connection's first block

frame_head = Struct(">HBBBI")
prefix_head = Struct(">BI")
stream_id_of = Struct(">I").pack
u32 = Struct(">I")
setting = Struct(">HI")


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return frame_head.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream_id) + payload


PREFACE = b"".join(
    (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        frame(
            SETTINGS,
            0,
            0,
            b"".join(
                (
                    setting.pack(HEADER_TABLE_SIZE, 0),
                    setting.pack(ENABLE_PUSH, 0),
                    setting.pack(INITIAL_WINDOW_SIZE, LARGEST_WINDOW),
                    setting.pack(MAX_FRAME_SIZE, OUR_FRAME),
                    setting.pack(MAX_HEADER_LIST_SIZE, MAX_HEADER_LIST),
                )
            ),
        ),
        frame(WINDOW_UPDATE, 0, 0, u32.pack(LARGEST_WINDOW - DEFAULT_WINDOW)),
    )
)


class ProtocolError(Exception):
    """The peer broke HTTP/2: the connection ends. `code` goes out in our GOAWAY."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


def exactly(size: int, payload: bytes) -> None:
    if len(payload) != size:
        raise ProtocolError(FRAME_SIZE_ERROR, f"a frame of {len(payload)} bytes where its type has {size}")


def request_block(
    *, method: str, scheme: str, authority: str, token: str | None = None, timeout_s: float | None = None
) -> bytes:
    """The header block of a request. Literals go in "never indexed", so that the block is the same every time."""
    fields = [(":method", "POST"), (":scheme", scheme), (":path", method), (":authority", authority)]
    if timeout_s is not None:
        fields.append(("grpc-timeout", timeout_value(timeout_s)))
    fields += [
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-python-inferload/1"),
        ("grpc-accept-encoding", ACCEPTED_ENCODINGS),
    ]
    if token is not None:
        fields.append(("authorization", f"Bearer {token}"))
    encoder = Encoder()
    return b"".join(
        encoder.add((name.encode(), value.encode()), sensitive=True, huffman=True) for name, value in fields
    )


def timeout_value(seconds: float) -> str:
    """`grpc-timeout`: at most 8 digits and a unit, rounded up, the finest unit that holds it."""
    if seconds > 99_999_998:
        return "99999999S"
    for unit, scale in (("n", 1e9), ("u", 1e6), ("m", 1e3), ("S", 1.0)):
        number = max(math.ceil(seconds * scale), 1)
        if number < 10**8:
            return f"{number}{unit}"
    return "99999999S"
