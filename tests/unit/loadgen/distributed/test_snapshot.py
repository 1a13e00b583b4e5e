"""Snapshots carry a generator's histograms to the last bit, add up to what one histogram of everything would be, and
anything else that comes in their place is refused."""

import zlib
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capacity.measures import HardwareCombination, Series, Tally, sum_tallies
from capacity.rundir import series_tag
from loadgen.distributed._snapshot import Snapshot, pack
from loadgen.measure import GeneratorHealth

#: A bucket of three significant digits is at most this wide, relative to what it holds; µs are rounded beside.
RESOLUTION = 2**-10
BOX = HardwareCombination.parse("box + cpu-1c")
ONE = Series(BOX, "gpt", "cpu:0 @ a:1", False)
KNOWN = {series_tag(ONE, "latency"): ONE}


def tally_of(values_ns: Any) -> Tally:
    tally = Tally(len(values_ns), len(values_ns))
    for name in ("latency", "service", "lateness"):
        tally.histograms[name].record_ns(values_ns)
    return tally


def packed(tally: Tally, **changed: Any) -> bytes:
    fields: dict[str, Any] = {
        "totals": {ONE: tally},
        "warmups": {ONE: Tally()},
        "first_ns": {ONE: 7},
        "autocorrelation_times": {ONE: 1.5},
        "in_flight": {ONE: 2},
        "health": GeneratorHealth(),
        "run": "r",
        "sequence": 3,
        "final": True,
        "host": "h",
        "measured_s": 2.5,
        "readings": [["cpu", "h", "utilisation_percent", 3.0]],
        "offset_us": -1.5,
        "round_trip_us": 4.0,
        "probe": 0,
        "sources": [2],
    }
    return pack(**{**fields, **changed})


def snapshot(values_ns: Any, **changed: Any) -> Snapshot:
    return Snapshot.unpack(packed(tally_of(values_ns), **changed), KNOWN)


@given(st.lists(st.integers(0, 2**45), max_size=60))
def test_what_arrives_is_what_was_measured_bit_for_bit(values_ns: list[int]) -> None:
    tally = tally_of(values_ns)
    decoded = sum_tallies([Snapshot.unpack(packed(tally), KNOWN).totals[ONE]])

    assert decoded == tally


def test_eight_generators_together_have_the_percentiles_of_all_their_values() -> None:
    rng = np.random.default_rng(8)
    # From 1 ms to 128 ms, the slower the fewer, as closed loops against such targets would be.
    values = [(rng.lognormal(0, 0.3, 20_000 >> n) * 1e6 * 2**n).astype(np.int64) for n in range(8)]
    merged = sum_tallies([snapshot(one).totals[ONE] for one in values]).histograms["latency"]
    everything = np.concatenate(values)

    for p in (50, 90, 95, 99, 99.9):
        exact_us = np.percentile(everything, p, method="inverted_cdf") / 1000
        ours_us = merged.percentile_us(p)
        average_us = np.mean(
            [sum_tallies([snapshot(one).totals[ONE]]).histograms["latency"].percentile_us(p) for one in values]
        )
        print(f"P{p:g}: {exact_us:.0f} µs of all values, {ours_us:.0f} merged, {average_us:.0f} as the mean of eight")
        assert ours_us == pytest.approx(exact_us, rel=RESOLUTION, abs=1)
        assert average_us != pytest.approx(exact_us, rel=0.1)
    assert merged.sum_ns == everything.sum()
    assert (merged.min_ns, merged.max_ns) == (everything.min(), everything.max())


def test_a_snapshot_is_as_large_for_many_requests_as_for_few() -> None:
    rng = np.random.default_rng(1)
    few, many = (rng.integers(1_000_000, 2_000_000, size) for size in (20_000, 400_000))

    # Twenty times the requests: the counts take a byte more here and there, and nothing else grows.
    assert len(packed(tally_of(many))) < 2 * len(packed(tally_of(few)))


def test_a_later_snapshot_holds_all_that_an_earlier_one_did() -> None:
    earlier, later = snapshot([1_000, 2_000]), snapshot([1_000, 2_000, 2_000_000])

    assert later.follows(earlier)
    assert not earlier.follows(later)
    assert not snapshot([1_000, 5_000_000, 5_000_000]).follows(earlier)
    assert not snapshot([1_000, 2_000], totals={}).follows(earlier)


def wire(**changed: Any) -> dict[str, Any]:
    original: dict[str, Any] = msgpack.unpackb(zlib.decompress(packed(tally_of([5_000, 9_000]))))
    return {**original, **changed}


def with_tally(**changed: Any) -> dict[str, Any]:
    """A snapshot whose one tally is changed."""
    (tag,) = KNOWN
    original = wire()
    return {**original, "total": {tag: {**original["total"][tag], **changed}}}


def with_latency(*parts: Any) -> dict[str, Any]:
    (tag,) = KNOWN
    histograms = wire()["total"][tag]["histograms"]
    return with_tally(histograms={**histograms, "latency": list(parts)})


#: Buckets 5 and 9, with one sample in each, as the wire has them.
STEPS, ONES = (1, b"\x04"), (1, b"\x01\x01")


def test_the_snapshot_that_the_malformed_ones_are_made_of_is_accepted() -> None:
    decoded = Snapshot.unpack(
        zlib.compress(msgpack.packb(with_latency(5, *STEPS, *ONES, 14_000, 5_000, 9_000, 0))), KNOWN
    )

    assert decoded.totals[ONE].requests == 2
    assert decoded.readings == [("cpu", "h", "utilisation_percent", 3.0)]


@pytest.mark.parametrize(
    "malformed",
    [
        None,
        [],
        "text",
        {},
        wire(run=7),
        wire(run="r" * 300),
        wire(sequence=-1),
        wire(sequence=True),
        wire(measured_s=float("nan")),
        wire(offset_us=float("nan")),
        wire(round_trip_us=float("inf")),
        wire(readings=[["cpu", "h", "utilisation_percent"]]),
        wire(readings=[[["cpu"], "h", "utilisation_percent", 1]]),
        wire(readings=[["cpu", "h", "m", 1.0]] * 10_001),
        wire(total={"box/other/worker/measured/latency": {}}),
        wire(total=[1]),
        wire(probe=-1),
        wire(sources=["one"]),
        wire(health={**wire()["health"], "processor": float("nan")}),
        wire(health={**wire()["health"], "due": [b"12345678"]}),
        wire(health={**wire()["health"], "timeline": [np.full(3, np.nan).tobytes()]}),
        wire(health={**wire()["health"], "timeline": [bytes(8)]}),
        with_tally(counts=[3, 2, 0, 0, 0]),
        with_tally(counts=[2, 2, 0, 0]),
        with_tally(counts=[-2, -2, 0, 0, 0]),
        with_tally(errors={"UNAVAILABLE": 1}),
        with_tally(errors={7: 0}),
        with_tally(histograms={"nothing": []}),
        with_tally(histograms={}),
        with_latency(5, *STEPS, 1, b"\x01", 14_000, 5_000, 9_000, 0),
        with_latency(5, *STEPS, 1, b"", 14_000, 5_000, 9_000, 0),
        with_latency(5, *STEPS, 3, b"\x01\x01\x01", 14_000, 5_000, 9_000, 0),
        with_latency(5, 1, b"\x00", *ONES, 14_000, 5_000, 5_000, 0),
        with_latency(5, 8, b"\xff" * 8, *ONES, 14_000, 5_000, 9_000, 0),
        with_latency(5, 8, (2**63 + 4).to_bytes(8, "little"), *ONES, 14_000, 5_000, 9_000, 0),
        with_latency(5, 2, b"\x00\xff", *ONES, 14_000, 5_000, 9_000, 0),
        with_latency(-5, *STEPS, *ONES, 14_000, 5_000, 9_000, 0),
        with_latency(60_000, *STEPS, *ONES, 14_000, 5_000, 9_000, 0),
        with_latency(5.0, *STEPS, *ONES, 14_000, 5_000, 9_000, 0),
        with_latency(5, *STEPS, 1, b"\x02\x00", 14_000, 5_000, 9_000, 0),
        with_latency(5, *STEPS, 8, b"\xff" * 16, 14_000, 5_000, 9_000, 0),
        with_latency(5, *STEPS, *ONES, 30_000, 5_000, 9_000, 0),
        with_latency(5, *STEPS, *ONES, 14_000, 9_000, 5_000, 0),
        with_latency(5, *STEPS, *ONES, 14_000, 5_000, 99_000, 0),
        with_latency(5, *STEPS, *ONES, 14_000, -5_000, 9_000, 0),
        with_latency(5, *STEPS, *ONES, 14_000, 5_000, 9_000, 1),
        with_latency(5, *STEPS, *ONES),
    ],
)
def test_malformed_snapshots_are_refused(malformed: Any) -> None:
    with pytest.raises(ValueError, match="malformed"):
        Snapshot.unpack(zlib.compress(msgpack.packb(malformed)), KNOWN)


@pytest.mark.parametrize(
    "malformed",
    [
        None,
        "text",
        b"",
        b"not deflated",
        packed(tally_of([1]))[:-3],
        zlib.compress(b"\x91" * 2000),
        # A megabyte that unpacks to a gigabyte: what it is inflated to is bounded.
        zlib.compress(bytes(1 << 30), 9),
    ],
    ids=["nothing", "text", "empty", "noise", "cut", "nested", "bomb"],
)
def test_bytes_that_are_no_snapshot_are_refused(malformed: object) -> None:
    with pytest.raises(ValueError, match="snapshot"):
        Snapshot.unpack(malformed, KNOWN)
