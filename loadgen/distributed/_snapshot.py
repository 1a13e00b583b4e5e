"""A generator's cumulative state on its way to the master: only the buckets that hold something, checked on arrival.

Its size depends on how many series there are and how their latencies spread, not on how many requests there were.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import msgpack
import numpy as np
import numpy.typing as npt

from capacity.measures import HISTOGRAMS, LATENCY_ERROR, Series, Tally, checked_count
from capacity.rundir import series_tag
from capacity.statistics import BUCKET_COUNT, BUCKET_FLOORS_US, HIGHEST_US, Histogram
from loadgen.measure import GeneratorHealth

#: A snapshot may unpack to this much, and so much more for each series of the run.
BASE_BYTES = 2 << 20
SERIES_BYTES = 1 << 20
_TOP = int(np.searchsorted(BUCKET_FLOORS_US, HIGHEST_US, side="right")) - 1
_MOST = 2**48
#: Bytes of an integer, and how numpy calls it.
_WIDTHS = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}
#: Values of all devices of one host that a snapshot may carry.
_MOST_READINGS = 10_000


class Buckets(NamedTuple):
    """A histogram without its empty buckets: their numbers, ascending, and what each holds; shapes (k,)."""

    numbers: npt.NDArray[np.int64]
    held: npt.NDArray[np.int64]
    sum_ns: int
    min_ns: int
    max_ns: int
    above: int

    def follow(self, earlier: Buckets) -> bool:
        """Whether these can be a later state of the same histogram."""
        if self.sum_ns < earlier.sum_ns or self.above < earlier.above:
            return False
        low, high = int(self.numbers[0]), int(self.numbers[-1])
        if int(earlier.numbers[0]) < low or int(earlier.numbers[-1]) > high:
            return False
        counts = np.zeros(high - low + 1, np.int64)
        counts[self.numbers - low] = self.held
        counts[earlier.numbers - low] -= earlier.held
        return bool(np.minimum.reduce(counts) >= 0)


@dataclass(frozen=True)
class Counted:
    """A Tally with its histograms as Buckets; empty ones are not there."""

    due: int
    answered: int
    unsent: int
    errors: dict[str, int]
    bytes_in: int
    bytes_out: int
    retries: int
    histograms: dict[str, Buckets]

    @property
    def requests(self) -> int:
        """Requests that were sent."""
        return self.answered + sum(self.errors.values())

    def follows(self, earlier: Counted) -> bool:
        """Whether this can be a later state of the same count."""
        return (
            self.unsent >= earlier.unsent
            and self.bytes_in >= earlier.bytes_in
            and self.bytes_out >= earlier.bytes_out
            and all(self.errors.get(code, 0) >= count for code, count in earlier.errors.items())
            and all(
                name in self.histograms and self.histograms[name].follow(buckets)
                for name, buckets in earlier.histograms.items()
            )
        )


@dataclass(frozen=True)
class Snapshot:
    """What a generator knows. Times in seconds or, where they are named so, in ns and µs."""

    run: str
    sequence: int
    final: bool
    host: str
    measured_s: float
    totals: dict[Series, Counted]
    warmups: dict[Series, Counted]
    first_ns: dict[Series, int]
    dependence: dict[Series, float]
    in_flight: dict[Series, int]
    readings: list[Any]
    offset_us: float | None
    round_trip_us: float | None
    probe: int
    sources: list[int]
    health: GeneratorHealth | None

    @classmethod
    def unpack(cls, packed: object, known: Mapping[str, Series]) -> Self:
        """What `pack` made, of series in `known` (by tag). ValueError on anything else, however large it unpacks."""
        if not isinstance(packed, bytes):
            raise ValueError("a snapshot is bytes")
        try:
            wire = msgpack.unpackb(_inflated(packed, BASE_BYTES + SERIES_BYTES * len(known)), raw=False)
            return cls(
                run=_text(wire["run"]),
                sequence=checked_count(wire["sequence"]),
                final=bool(wire["final"]),
                host=_text(wire["host"]),
                measured_s=_number(wire["measured_s"]),
                totals={known[tag]: _counted(tally) for tag, tally in wire["total"].items()},
                warmups={known[tag]: _counted(tally) for tag, tally in wire["warmup"].items()},
                first_ns={known[tag]: checked_count(ns) for tag, ns in wire["first"].items()},
                dependence={known[tag]: _number(samples) for tag, samples in wire["dependence"].items()},
                in_flight={known[tag]: checked_count(number) for tag, number in wire["in_flight"].items()},
                readings=_readings(wire["readings"]),
                offset_us=None if wire["offset_us"] is None else _finite(wire["offset_us"]),
                round_trip_us=None if wire["round_trip_us"] is None else _number(wire["round_trip_us"]),
                probe=checked_count(wire["probe"]),
                sources=[checked_count(number) for number in wire["sources"]],
                health=None if wire["health"] is None else GeneratorHealth.from_wire(wire["health"]),
            )
        except (KeyError, IndexError, TypeError, AttributeError, OverflowError, zlib.error, ValueError) as error:
            raise ValueError(f"a snapshot came malformed: {error}") from None

    def follows(self, earlier: Self) -> bool:
        """Whether everything that was counted in the earlier one is in this one too."""
        parts = ((self.totals, earlier.totals), (self.warmups, earlier.warmups))
        return all(
            series in later and later[series].follows(tally)
            for later, before in parts
            for series, tally in before.items()
        )


def pack(
    *,
    totals: Mapping[Series, Tally],
    warmups: Mapping[Series, Tally],
    first_ns: Mapping[Series, int],
    dependence: Mapping[Series, float],
    in_flight: Mapping[Series, int],
    health: GeneratorHealth | None,
    **rest: Any,
) -> bytes:
    """A Snapshot's fields, as the wire carries them."""
    wire = {
        **rest,
        "total": {series_tag(series, "latency"): _to_wire(tally) for series, tally in totals.items()},
        "warmup": {series_tag(series, "latency"): _to_wire(tally) for series, tally in warmups.items()},
        "first": {series_tag(series, "latency"): ns for series, ns in first_ns.items()},
        "dependence": {series_tag(series, "latency"): samples for series, samples in dependence.items()},
        "in_flight": {series_tag(series, "latency"): number for series, number in in_flight.items()},
        "health": None if health is None else health.to_wire(),
    }
    return zlib.compress(msgpack.packb(wire), 1)


def added(tallies: Iterable[Counted]) -> Tally:
    """The sum of many generators' tallies of one series."""
    total = Tally()
    parts: dict[str, list[Buckets]] = {}
    for tally in tallies:
        total.due += tally.due
        total.answered += tally.answered
        total.unsent += tally.unsent
        total.bytes_in += tally.bytes_in
        total.bytes_out += tally.bytes_out
        total.retries += tally.retries
        for code, count in tally.errors.items():
            total.errors[code] = total.errors.get(code, 0) + count
        for name, buckets in tally.histograms.items():
            parts.setdefault(name, []).append(buckets)
    for name, several in parts.items():
        histogram = total.histograms[name]
        for one in several:
            histogram.counts[one.numbers] += one.held
        histogram.count = int(histogram.counts.sum())
        histogram.sum_ns = sum(one.sum_ns for one in several)
        histogram.min_ns = min(one.min_ns for one in several)
        histogram.max_ns = max(one.max_ns for one in several)
        histogram.above = sum(one.above for one in several)
    return total


def _to_wire(tally: Tally) -> dict[str, Any]:
    return {
        "counts": [tally.due, tally.answered, tally.unsent, tally.bytes_in, tally.bytes_out, tally.retries],
        "errors": dict(tally.errors),
        "histograms": {name: _packed(histogram) for name, histogram in tally.histograms.items() if histogram.count},
    }


def _packed(histogram: Histogram) -> list[Any]:
    used = np.flatnonzero(histogram.counts)
    # What is small is sent in one byte: that leaves little to deflate.
    steps, counts = _narrowed(np.diff(used)), _narrowed(histogram.counts[used])
    return [int(used[0]), steps.itemsize, steps.tobytes(), counts.itemsize, counts.tobytes(), *histogram.exact[1:]]


def _narrowed(values: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """In the smallest unsigned integers that hold them."""
    top = int(values.max()) if values.size else 0
    return values.astype(next(kind for size, kind in _WIDTHS.items() if top < 1 << 8 * size))


def _counted(wire: Mapping[str, Any]) -> Counted:
    due, answered, unsent, bytes_in, bytes_out, retries = (checked_count(value) for value in wire["counts"])
    errors = {_text(code): checked_count(count) for code, count in wire["errors"].items()}
    histograms = {_name(name): _buckets(*parts) for name, parts in wire["histograms"].items()}
    failed = sum(errors.values())
    for name, wanted in (("latency", answered), (LATENCY_ERROR, failed)):
        held = int(histograms[name].held.sum()) if name in histograms else 0
        if held != wanted:
            raise ValueError(f"{name} holds {held} samples of {wanted}")
    if due != answered + failed + unsent:
        raise ValueError("counts contradict each other")
    return Counted(due, answered, unsent, errors, bytes_in, bytes_out, retries, histograms)


def _buckets(
    first: int,
    step_bytes: int,
    steps: bytes,
    count_bytes: int,
    counts: bytes,
    sum_ns: int,
    min_ns: int,
    max_ns: int,
    above: int,
) -> Buckets:
    held = np.frombuffer(counts, _WIDTHS[count_bytes])
    numbers = np.empty(held.size, np.int64)
    if step_bytes not in (1, 2) or not held.size or len(steps) != step_bytes * (held.size - 1):
        raise ValueError("buckets and their counts differ in number")
    numbers[0] = checked_count(first)
    if held.size > BUCKET_COUNT or first >= BUCKET_COUNT:
        raise ValueError("there are more buckets than one can have")
    apart = np.frombuffer(steps, _WIDTHS[step_bytes])
    np.cumsum(apart, out=numbers[1:])
    numbers[1:] += first
    # A master does this for thousands of histograms a second: counting zeros is the quickest pass over an array.
    if int(numbers[-1]) >= BUCKET_COUNT or np.count_nonzero(apart) < apart.size:
        raise ValueError("buckets are out of order")
    if np.count_nonzero(held) < held.size or (count_bytes == 8 and int(held.max()) >= _MOST):
        raise ValueError("a bucket's count is out of range")
    held = held.astype(np.int64)
    samples = int(np.add.reduce(held))
    if not (_in_bucket(min_ns, int(numbers[0])) and _in_bucket(max_ns, int(numbers[-1])) and min_ns <= max_ns):
        raise ValueError("a histogram's exact minimum and maximum are not in its first and last bucket")
    if not min_ns * samples <= checked_count(sum_ns) <= max_ns * samples:
        raise ValueError("a histogram's exact sum, minimum and maximum contradict each other")
    if not 0 <= above <= (int(held[-1]) if int(numbers[-1]) == _TOP else 0):
        raise ValueError("more samples out of range than the highest bucket holds")
    return Buckets(
        numbers, held, checked_count(sum_ns), checked_count(min_ns), checked_count(max_ns), checked_count(above)
    )


def _in_bucket(ns: int, number: int) -> bool:
    """Whether a duration belongs into this bucket, as Histogram.record_ns rounds it."""
    us = min((checked_count(ns) + 500) // 1000, HIGHEST_US)
    return bool(BUCKET_FLOORS_US[number] <= us < BUCKET_FLOORS_US[number + 1])


def _readings(entries: Any) -> list[tuple[str, str, str, float]]:
    """Telemetry: rows of (device, identity, measure, value); a value that no device can have is left out."""
    if not isinstance(entries, list) or len(entries) > _MOST_READINGS:
        raise ValueError("telemetry came malformed")
    rows = [
        (_text(device), _text(identity), _text(measure), float(value)) for device, identity, measure, value in entries
    ]
    return [row for row in rows if math.isfinite(row[3])]


def _inflated(packed: bytes, most: int) -> bytes:
    inflate = zlib.decompressobj()
    body = inflate.decompress(packed, most)
    if not inflate.eof:
        raise ValueError("cut short, or larger than one can be")
    return body


def _number(value: object) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value < 1e18:
        raise ValueError(f"{value!r} is not a number of this kind")
    return float(value)


def _finite(value: object) -> float:
    if not isinstance(value, (int, float)) or not -1e18 < value < 1e18:
        raise ValueError(f"{value!r} is not a number of this kind")
    return float(value)


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 255:
        raise ValueError("a name is a short text")
    return value


def _name(value: object) -> str:
    if value not in HISTOGRAMS:
        raise ValueError(f"no histogram is called {value!r}")
    return str(value)
