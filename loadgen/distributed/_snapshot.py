"""The cumulative state of a generator, as it sends it to the master every second: encoding, and checks on arrival.

The size depends on the number of series and the spread of their latencies, not on the number of requests.
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

#: Most bytes of a decompressed snapshot: a base, and more for each series of the run.
BASE_BYTES = 2 << 20
SERIES_BYTES = 1 << 20
#: Most telemetry readings of one host in a snapshot.
_READINGS_LIMIT = 10_000


@dataclass(frozen=True)
class Snapshot:
    """The state of one generator after snapshot number `sequence` of a run; everything is cumulative.

    Attributes:
        final: whether the generator has ended its part of the run.
        measured_s: length of the measured part so far.
        totals, warmups: requests of the measured part and of the warm-up.
        first_ns: latency of the first request.
        autocorrelation_times: of the latencies, in samples.
        readings: telemetry of the host: (device, identity, measure, value).
        offset_us, round_trip_us: estimate of the master's clock; None before there is one.
        probe: number of the last probe that has ended; 0 without a search.
        sources: how many sources take part in probes, for each pool of targets.
        health: the generator's own health; None if this snapshot has none.
    """

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
        """Returns the snapshot that `pack` encoded. `known` maps the tags of the run's series to the series.

        Raises ValueError for anything else. Decompression stops at the limit of size.
        """
        if not isinstance(packed, bytes):
            raise ValueError("malformed snapshot: expected bytes")
        try:
            wire = msgpack.unpackb(_decompress(packed, BASE_BYTES + SERIES_BYTES * len(known)), raw=False)
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
            raise ValueError(f"malformed snapshot: {error}") from None

    def follows(self, earlier: Self) -> bool:
        """Returns whether every count is at least that of an earlier snapshot of the same run."""
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
    """Encodes the fields of a Snapshot: a compressed msgpack map."""
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
    """Returns telemetry as (device, identity, measure, value), without values that are not finite."""
    if not isinstance(entries, list) or len(entries) > _READINGS_LIMIT:
        raise ValueError("telemetry is no list of readings")
    rows = [
        (_text(device), _text(identity), _text(measure), float(value)) for device, identity, measure, value in entries
    ]
    return [row for row in rows if math.isfinite(row[3])]


def _decompress(packed: bytes, limit: int) -> bytes:
    inflate = zlib.decompressobj()
    body = inflate.decompress(packed, limit)
    if not inflate.eof:
        raise ValueError("truncated, or larger than the limit")
    return body


def _number(value: object) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value < 1e18:
        raise ValueError(f"{value!r} is not a number of at least 0")
    return float(value)


def _finite(value: object) -> float:
    if not isinstance(value, (int, float)) or not -1e18 < value < 1e18:
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 255:
        raise ValueError("a name has at most 255 characters")
    return value
