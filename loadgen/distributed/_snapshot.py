"""A generator's cumulative state on its way to the master: only the buckets that hold something, checked on arrival.

Its size depends on how many series there are and how their latencies spread, not on how many requests there were.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import msgpack

from capacity.measures import Series, SparseTally, Tally, checked_count, decode_tally, encode_tally
from capacity.rundir import series_tag
from loadgen.measure import GeneratorHealth

#: A snapshot may unpack to this much, and so much more for each series of the run.
BASE_BYTES = 2 << 20
SERIES_BYTES = 1 << 20
#: Values of all devices of one host that a snapshot may carry.
_MOST_READINGS = 10_000


@dataclass(frozen=True)
class Snapshot:
    """What a generator knows. Times in seconds or, where they are named so, in ns and µs."""

    run: str
    sequence: int
    final: bool
    host: str
    measured_s: float
    totals: dict[Series, SparseTally]
    warmups: dict[Series, SparseTally]
    first_ns: dict[Series, int]
    autocorrelation_times: dict[Series, float]
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
                totals={known[tag]: decode_tally(tally) for tag, tally in wire["total"].items()},
                warmups={known[tag]: decode_tally(tally) for tag, tally in wire["warmup"].items()},
                first_ns={known[tag]: checked_count(ns) for tag, ns in wire["first"].items()},
                autocorrelation_times={
                    known[tag]: _number(samples) for tag, samples in wire["autocorrelation_times"].items()
                },
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
    autocorrelation_times: Mapping[Series, float],
    in_flight: Mapping[Series, int],
    health: GeneratorHealth | None,
    **rest: Any,
) -> bytes:
    """A Snapshot's fields, as the wire carries them."""
    wire = {
        **rest,
        "total": {series_tag(series, "latency"): encode_tally(tally) for series, tally in totals.items()},
        "warmup": {series_tag(series, "latency"): encode_tally(tally) for series, tally in warmups.items()},
        "first": {series_tag(series, "latency"): ns for series, ns in first_ns.items()},
        "autocorrelation_times": {
            series_tag(series, "latency"): samples for series, samples in autocorrelation_times.items()
        },
        "in_flight": {series_tag(series, "latency"): number for series, number in in_flight.items()},
        "health": None if health is None else health.to_wire(),
    }
    return zlib.compress(msgpack.packb(wire), 1)


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
