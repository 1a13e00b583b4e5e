"""Frames as bytes (RFC 9113): their types, flags, settings and error codes, and how they are built."""

from struct import Struct

# Frame types (RFC 9113, 6).
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
# Flags of frames.
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITY_FLAG = 0x4, 0x8, 0x20
# Error codes (RFC 9113, 7).
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED = 0x0, 0x1, 0x2, 0x3, 0x5
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0x6, 0x7, 0x8, 0x9, 0xB
# Settings (RFC 9113, 6.5.2).
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 2, 3, 4
MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 5, 6

CLIENT_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # what a client sends before its first frame (3.4)
LARGEST_WINDOW = LAST_STREAM_ID = 2**31 - 1
DEFAULT_WINDOW, DEFAULT_FRAME, DEFAULT_TABLE = 65535, 16384, 4096
LARGEST_CHUNK = 131072  # the largest frame we send, where the peer takes larger ones: a small call waits for no more

frame_head = Struct(">HBBBI")
stream_id_of = Struct(">I").pack
u32 = Struct(">I")
setting = Struct(">HI")


def encode_frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """A frame; the payload has at most 2^24 - 1 bytes."""
    return frame_head.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream_id) + payload


def encode_settings(*values: tuple[int, int]) -> bytes:
    """A SETTINGS frame of these names and values."""
    return encode_frame(SETTINGS, 0, 0, b"".join(setting.pack(name, value) for name, value in values))
