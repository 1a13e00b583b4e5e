"""Buckets to HdrHistogram's V2 compressed payload in base64, and payloads from outside to buckets, with checks."""

from __future__ import annotations

import base64
import binascii
import struct
import zlib

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

# The one configuration: values in µs from 1 µs to 1 h, at three significant digits.
LOWEST_US = 1
HIGHEST_US = 3_600_000_000
SIGNIFICANT_DIGITS = 3

# The layout that HdrHistogram derives from it: 2,048 buckets of 1 µs, then 1,024 for each doubling.
HALF_BITS = 10
HALF = 1 << HALF_BITS
BUCKET_COUNT = 23 * HALF

_OUTER = struct.Struct(">II")
_INNER = struct.Struct(">IIIIQQd")
_COOKIE_OUTER = 0x1C849304
_COOKIE_INNER = 0x1C849303
# Every count at 9 bytes, not compressible, in base64, with headers, is 283 KiB; a larger payload is not of this layout.
_MAX_PAYLOAD = 300_000
_MAX_BODY = _INNER.size + 9 * BUCKET_COUNT
# A count of more than 8 bytes would be above 2**55, which no run reaches.
_MAX_WORD = 8
_MAX_COUNT = 2**48


def _floors() -> NDArray[np.int64]:
    index = np.arange(BUCKET_COUNT + 1, dtype=np.int64)
    shift = np.maximum((index >> HALF_BITS) - 1, 0)
    return np.where(index < 2 * HALF, index, (HALF + (index & (HALF - 1))) << shift)


# The lowest value in µs of each bucket, and of the one that would follow the last; shape (LENGTH + 1,).
BUCKET_FLOORS_US = _floors()


def encode_counts(counts: NDArray[np.int64]) -> bytes:
    """The payload of these buckets, shape (BUCKET_COUNT,), as a line of an interval log has it."""
    library = HdrHistogram(LOWEST_US, HIGHEST_US, SIGNIFICANT_DIGITS)
    np.frombuffer(library.counts, dtype=np.int64)[:] = counts
    used = np.flatnonzero(counts)
    if used.size:
        library.total_count = int(counts.sum())
        library.min_value, library.max_value = int(BUCKET_FLOORS_US[used[0]]), int(BUCKET_FLOORS_US[used[-1]])
    return bytes(library.encode())


def decode_counts(payload: bytes) -> NDArray[np.int64]:
    """The buckets of a payload, shape (BUCKET_COUNT,).

    Raises ValueError on anything but a payload of this configuration. Memory is bounded, whatever size it declares.
    """
    if len(payload) > _MAX_PAYLOAD:
        raise ValueError(f"a histogram of {len(payload)} bytes is larger than one can be")
    try:
        raw = base64.b64decode(payload, validate=True)
        cookie, length = _OUTER.unpack_from(raw)
        if cookie & ~0xF0 != _COOKIE_OUTER or length != len(raw) - _OUTER.size:
            raise ValueError("not a compressed V2 payload")
        inflate = zlib.decompressobj()
        body = inflate.decompress(raw[_OUTER.size :], _MAX_BODY)
        if not inflate.eof:
            raise ValueError("cut short, or larger than one can be")
        cookie, length, offset, digits, low, high, _ratio = _INNER.unpack_from(body)
        if cookie & ~0xF0 != _COOKIE_INNER or length != len(body) - _INNER.size or offset:
            raise ValueError("not a V2 header")
        if (low, high, digits) != (LOWEST_US, HIGHEST_US, SIGNIFICANT_DIGITS):
            raise ValueError(f"of another configuration, {low} to {high} at {digits} digits")
        return _unpack(np.frombuffer(body, np.uint8, offset=_INNER.size))
    except (binascii.Error, struct.error, zlib.error, ValueError) as error:
        raise ValueError(f"a histogram cannot be decoded: {error}") from None


def _unpack(data: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Zigzag LEB128 words to buckets: a positive word is a count, a negative one a run of so many empty buckets."""
    counts = np.zeros(BUCKET_COUNT, dtype=np.int64)
    if not data.size:
        return counts
    ends = np.flatnonzero(data < 0x80)
    if not ends.size or ends[-1] != data.size - 1:
        raise ValueError("its last word is cut")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_WORD:
        raise ValueError("a count is out of range")
    place = np.arange(data.size) - np.repeat(starts, lengths)
    words = np.add.reduceat((data & 0x7F).astype(np.int64) << (7 * place), starts)
    values = (words >> 1) ^ -(words & 1)
    # Summed as floats: runs of empty buckets in a forged payload could overflow as integers.
    steps = np.where(values < 0, -values, 1)
    if steps.sum(dtype=np.float64) > BUCKET_COUNT:
        raise ValueError("it has more buckets than one can have")
    if values.max() >= _MAX_COUNT:
        raise ValueError("a count is out of range")
    occupied = values > 0
    counts[(np.cumsum(steps) - steps)[occupied]] = values[occupied]
    return counts
