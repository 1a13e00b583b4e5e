"""The one encoding of counts, in snapshots and in generators' logs: tallies without their empty buckets, checked.

An encoded tally is plain data: numbers, texts, lists, and bytes for the buckets (base64 text in JSON). Decoding trusts
nothing: whatever it returns could have been encoded by `encode_tally`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from capacity.measures.names import HISTOGRAMS, LATENCY_ERROR
from capacity.measures.tally import Tally
from capacity.statistics import BUCKET_COUNT, BUCKET_FLOORS_US, HIGHEST_US, Histogram

_TOP_BUCKET = int(np.searchsorted(BUCKET_FLOORS_US, HIGHEST_US, side="right")) - 1
_COUNT_LIMIT = 2**48
_CODE_LENGTH_LIMIT = 255
# Bytes of an unsigned integer, and numpy's name of it.
_WIDTHS = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}


class SparseHistogram(NamedTuple):
    """A histogram without its empty buckets: their indices, ascending, and their counts; shapes (k,), k at least 1."""

    indices: NDArray[np.int64]
    counts: NDArray[np.int64]
    sum_ns: int
    min_ns: int
    max_ns: int
    above: int

    def follows(self, earlier: SparseHistogram) -> bool:
        """Whether this can be a later state of the same cumulative histogram."""
        if self.sum_ns < earlier.sum_ns or self.above < earlier.above:
            return False
        low, high = int(self.indices[0]), int(self.indices[-1])
        if int(earlier.indices[0]) < low or int(earlier.indices[-1]) > high:
            return False
        growth = np.zeros(high - low + 1, np.int64)
        growth[self.indices - low] = self.counts
        growth[earlier.indices - low] -= earlier.counts
        return bool(np.minimum.reduce(growth) >= 0)


@dataclass(frozen=True)
class SparseTally:
    """A Tally whose histograms are sparse; empty ones are left out."""

    due: int
    answered: int
    unsent: int
    errors: dict[str, int]
    bytes_in: int
    bytes_out: int
    retries: int
    histograms: dict[str, SparseHistogram]

    @property
    def requests(self) -> int:
        """Requests that were sent."""
        return self.answered + sum(self.errors.values())

    def follows(self, earlier: SparseTally) -> bool:
        """Whether this can be a later state of the same cumulative tally."""
        return (
            self.unsent >= earlier.unsent
            and self.bytes_in >= earlier.bytes_in
            and self.bytes_out >= earlier.bytes_out
            and all(self.errors.get(code, 0) >= count for code, count in earlier.errors.items())
            and all(
                name in self.histograms and self.histograms[name].follows(histogram)
                for name, histogram in earlier.histograms.items()
            )
        )


def encode_counts(tally: Tally) -> dict[str, Any]:
    """The counts of a tally without its histograms."""
    return {
        "counts": [tally.due, tally.answered, tally.unsent, tally.bytes_in, tally.bytes_out, tally.retries],
        "errors": dict(tally.errors),
    }


def encode_tally(tally: Tally) -> dict[str, Any]:
    """A tally with those of its histograms that are not empty."""
    histograms = {name: _encode_histogram(histogram) for name, histogram in tally.histograms.items() if histogram.count}
    return {**encode_counts(tally), "histograms": histograms}


def decode_counts(data: Mapping[str, Any]) -> SparseTally:
    """The counts that `encode_counts` encoded, without histograms.

    Raises ValueError, KeyError or TypeError on anything else, and where the counts contradict each other.
    """
    due, answered, unsent, bytes_in, bytes_out, retries = (checked_count(value) for value in data["counts"])
    errors = {_checked_code(code): checked_count(count) for code, count in data["errors"].items()}
    if due != answered + sum(errors.values()) + unsent:
        raise ValueError("counts contradict each other")
    return SparseTally(due, answered, unsent, errors, bytes_in, bytes_out, retries, {})


def decode_tally(data: Mapping[str, Any]) -> SparseTally:
    """The tally that `encode_tally` encoded; raises as `decode_counts` does, and where samples are missing."""
    tally = decode_counts(data)
    histograms = {_checked_measure(name): _decode_histogram(*parts) for name, parts in data["histograms"].items()}
    for name, count in (("latency", tally.answered), (LATENCY_ERROR, tally.requests - tally.answered)):
        samples = int(histograms[name].counts.sum()) if name in histograms else 0
        if samples != count:
            raise ValueError(f"{name} holds {samples} samples of {count}")
    tally.histograms.update(histograms)
    return tally


def sum_tallies(tallies: Iterable[SparseTally]) -> Tally:
    """The sum of several tallies of one series."""
    total = Tally()
    parts: dict[str, list[SparseHistogram]] = {}
    for tally in tallies:
        total.due += tally.due
        total.answered += tally.answered
        total.unsent += tally.unsent
        total.bytes_in += tally.bytes_in
        total.bytes_out += tally.bytes_out
        total.retries += tally.retries
        for code, count in tally.errors.items():
            total.errors[code] = total.errors.get(code, 0) + count
        for name, histogram in tally.histograms.items():
            parts.setdefault(name, []).append(histogram)
    for name, histograms in parts.items():
        dense = total.histograms[name]
        for part in histograms:
            dense.counts[part.indices] += part.counts
        dense.count = int(dense.counts.sum())
        dense.sum_ns = sum(part.sum_ns for part in histograms)
        dense.min_ns = min(part.min_ns for part in histograms)
        dense.max_ns = max(part.max_ns for part in histograms)
        dense.above = sum(part.above for part in histograms)
    return total


def tally_to_json(encoded: Mapping[str, Any]) -> dict[str, Any]:
    """An encoded tally as JSON can hold it: the bytes of its buckets as base64 text."""
    histograms = {
        name: [base64.b64encode(part).decode("ascii") if isinstance(part, bytes) else part for part in parts]
        for name, parts in encoded["histograms"].items()
    }
    return {**encoded, "histograms": histograms}


def tally_from_json(data: Mapping[str, Any]) -> dict[str, Any]:
    """What `tally_to_json` was given; raises ValueError, KeyError or TypeError on text that is not base64."""
    histograms = {
        name: [base64.b64decode(part, validate=True) if isinstance(part, str) else part for part in parts]
        for name, parts in data["histograms"].items()
    }
    return {**data, "histograms": histograms}


def checked_count(value: object) -> int:
    """A count from outside; ValueError for anything but an integer of at least 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value


def _encode_histogram(histogram: Histogram) -> list[Any]:
    used = np.flatnonzero(histogram.counts)
    # Small numbers take one byte each: that leaves little to deflate.
    steps, counts = _narrow(np.diff(used)), _narrow(histogram.counts[used])
    return [int(used[0]), steps.itemsize, steps.tobytes(), counts.itemsize, counts.tobytes(), *histogram.exact[1:]]


def _narrow(values: NDArray[np.int64]) -> NDArray[Any]:
    """The values in the smallest unsigned integers that hold them."""
    highest = int(values.max()) if values.size else 0
    return values.astype(next(kind for size, kind in _WIDTHS.items() if highest < 1 << 8 * size))


def _decode_histogram(
    first: int,
    step_bytes: int,
    steps: bytes,
    count_bytes: int,
    counts: bytes,
    sum_ns: int,
    min_ns: int,
    max_ns: int,
    above: int,
) -> SparseHistogram:
    narrow_counts = np.frombuffer(counts, _WIDTHS[count_bytes])
    indices = np.empty(narrow_counts.size, np.int64)
    if step_bytes not in (1, 2) or not narrow_counts.size or len(steps) != step_bytes * (narrow_counts.size - 1):
        raise ValueError("buckets and their counts differ in number")
    indices[0] = checked_count(first)
    if narrow_counts.size > BUCKET_COUNT or first >= BUCKET_COUNT:
        raise ValueError("there are more buckets than a histogram has")
    narrow_steps = np.frombuffer(steps, _WIDTHS[step_bytes])
    np.cumsum(narrow_steps, out=indices[1:])
    indices[1:] += first
    # A coordinator decodes thousands of histograms a second, and counting zeros is the fastest pass over an array.
    if int(indices[-1]) >= BUCKET_COUNT or np.count_nonzero(narrow_steps) < narrow_steps.size:
        raise ValueError("buckets are out of order")
    if np.count_nonzero(narrow_counts) < narrow_counts.size or (
        count_bytes == 8 and int(narrow_counts.max()) >= _COUNT_LIMIT
    ):
        raise ValueError("a bucket's count is out of range")
    wide_counts = narrow_counts.astype(np.int64)
    samples = int(np.add.reduce(wide_counts))
    if not (_in_bucket(min_ns, int(indices[0])) and _in_bucket(max_ns, int(indices[-1])) and min_ns <= max_ns):
        raise ValueError("a histogram's exact minimum and maximum are not in its first and last bucket")
    if not min_ns * samples <= checked_count(sum_ns) <= max_ns * samples:
        raise ValueError("a histogram's exact sum, minimum and maximum contradict each other")
    if not 0 <= above <= (int(wide_counts[-1]) if int(indices[-1]) == _TOP_BUCKET else 0):
        raise ValueError("more samples out of range than the highest bucket holds")
    return SparseHistogram(
        indices, wide_counts, checked_count(sum_ns), checked_count(min_ns), checked_count(max_ns), checked_count(above)
    )


def _in_bucket(ns: int, index: int) -> bool:
    """Whether a duration belongs into this bucket, as Histogram.record_ns rounds it."""
    us = min((checked_count(ns) + 500) // 1000, HIGHEST_US)
    return bool(BUCKET_FLOORS_US[index] <= us < BUCKET_FLOORS_US[index + 1])


def _checked_code(value: object) -> str:
    if not isinstance(value, str) or len(value) > _CODE_LENGTH_LIMIT:
        raise ValueError(f"a code of an error is a text of at most {_CODE_LENGTH_LIMIT} characters")
    return value


def _checked_measure(value: object) -> str:
    if value not in HISTOGRAMS:
        raise ValueError(f"no histogram is called {value!r}")
    return str(value)
