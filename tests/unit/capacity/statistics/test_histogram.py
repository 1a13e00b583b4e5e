"""The histogram keeps what was recorded: exact beside its buckets, to three digits in them, through every trip."""

import base64
import struct
import zlib

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from capacity.statistics import HIGHEST_US, Histogram, percentile_rank
from capacity.statistics.histogram import LOWEST_US, SIGNIFICANT_DIGITS

durations = st.lists(st.integers(0, 4_000_000_000_000), min_size=1, max_size=60)


def recorded(values: list[int]) -> Histogram:
    histogram = Histogram()
    histogram.record_ns(values)
    return histogram


def test_every_value_lands_in_the_bucket_that_hdrhistogram_gives_it() -> None:
    generator = np.random.default_rng(1)
    edges = np.array([2**k + d for k in range(1, 31) for d in (-1, 0, 1)])
    us = np.concatenate([np.arange(3000), edges, generator.integers(1, HIGHEST_US, 3000), [HIGHEST_US]])
    ours, peer = Histogram(), HdrHistogram(LOWEST_US, HIGHEST_US, SIGNIFICANT_DIGITS)
    ours.record_ns(us * 1000)
    for value in us.tolist():
        assert peer.record_value(value)
    assert peer.counts_len == ours.counts.size
    assert np.array_equal(ours.counts, np.frombuffer(peer.counts, np.int64))


@given(durations)
def test_count_sum_and_extremes_are_exact_and_out_of_range_is_counted(values: list[int]) -> None:
    histogram = recorded(values)
    above = sum((value + 500) // 1000 > HIGHEST_US for value in values)
    assert histogram.exact == (len(values), sum(values), min(values), max(values), above)
    assert histogram.counts.sum() == len(values)


def test_the_sum_is_exact_where_64_bits_are_too_few() -> None:
    values = [2**62 + 1, 2**62 + 3, 2**62 + 5]
    assert recorded(values).sum_ns == sum(values)


def test_a_percentile_is_the_sample_of_its_rank_to_three_digits() -> None:
    values = np.random.default_rng(2).lognormal(16, 1.0, 20_000).astype(np.int64)
    histogram = Histogram()
    for part in np.split(values, 8):
        histogram.record_ns(part)
    ordered = np.sort(values)
    for p, rank in ((0, 1), (1, 200), (50, 10_000), (90, 18_000), (99, 19_800), (99.9, 19_980), (100, 20_000)):
        truth = ordered[rank - 1] / 1000
        assert histogram.percentile_us(p) == pytest.approx(truth, rel=1e-3, abs=0.5)
    assert histogram.mean_us == pytest.approx(values.mean() / 1000, rel=1e-12)
    assert histogram.deviation_us == pytest.approx(values.std(ddof=1) / 1000, rel=1e-3)
    assert recorded([5]).deviation_us is None


def test_a_percentile_never_passes_the_exact_extremes() -> None:
    histogram = recorded([5_000_400_000, 5_000_400_000])
    assert histogram.percentile_us(50) == histogram.percentile_us(100) == 5_000_400.0
    assert recorded([10_400]).percentile_us(50) == 10.4


def test_errors_and_unsent_stand_above_everything_recorded() -> None:
    histogram = recorded([1_000_000] * 90)
    assert histogram.percentile_us(90, beyond=10) == 1000
    assert histogram.percentile_us(90.5, beyond=10) is None
    assert histogram.percentile_us(50, beyond=90) == 1000
    assert histogram.percentile_us(50.1, beyond=90) is None
    assert Histogram().percentile_us(50) is None
    assert Histogram().percentile_us(50, beyond=3) is None


def test_a_rank_that_falls_among_values_out_of_range_is_the_exact_maximum() -> None:
    histogram = recorded([1_000, 2 * HIGHEST_US * 1000])
    assert histogram.above == 1
    assert histogram.percentile_us(100) == 2 * HIGHEST_US


@pytest.mark.parametrize(("p", "total", "rank"), [(99.9, 1000, 999), (90, 10, 9), (50, 1, 1), (0, 5, 1), (100, 5, 5)])
def test_ranks_are_exact(p: float, total: int, rank: int) -> None:
    assert percentile_rank(p, total) == rank


def test_a_percentile_outside_0_to_100_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        recorded([1]).percentile_us(101)


@given(durations, durations)
def test_adding_is_recording_both_and_subtracting_takes_it_back(first: list[int], second: list[int]) -> None:
    cumulative = recorded(first)
    earlier = cumulative.copy()
    cumulative.record_ns(second)
    together = recorded(first)
    together.add(recorded(second))
    assert together == cumulative == recorded(first + second)
    assert earlier == recorded(first)

    interval, truth = cumulative.subtract(earlier), recorded(second)
    assert np.array_equal(interval.counts, truth.counts)
    assert (interval.count, interval.sum_ns, interval.above) == (truth.count, truth.sum_ns, truth.above)
    if not truth.above:
        assert interval.min_ns == pytest.approx(truth.min_ns, rel=1e-3, abs=1000)
        assert interval.max_ns == pytest.approx(truth.max_ns, rel=1e-3, abs=1000)


def test_subtracting_what_was_never_there_is_refused() -> None:
    with pytest.raises(ValueError, match="not an earlier state"):
        recorded([1_000_000]).subtract(recorded([2_000_000]))


def test_an_empty_histogram_has_no_values_and_adds_nothing() -> None:
    histogram = recorded([7_000])
    histogram.add(Histogram())
    histogram.record_ns([])
    assert histogram.exact == (1, 7_000, 7_000, 7_000, 0)
    empty = Histogram()
    assert (empty.mean_us, empty.min_us, empty.max_us) == (None, None, None)
    assert Histogram.decode(empty.encode()) == empty


def test_negative_and_nested_durations_are_refused_whole() -> None:
    histogram = Histogram()
    with pytest.raises(ValueError, match="negative"):
        histogram.record_ns([5, -1])
    with pytest.raises(ValueError, match="one dimension"):
        histogram.record_ns(np.zeros((2, 2), np.int64))
    assert histogram == Histogram()


@given(durations)
def test_a_payload_is_read_back_whole_here_and_by_the_library(values: list[int]) -> None:
    histogram = recorded(values)
    count, sum_ns, min_ns, max_ns, above = histogram.exact
    payload = histogram.encode()
    read = Histogram.decode(payload, count=count, sum_ns=sum_ns, min_ns=min_ns, max_ns=max_ns, above=above)
    assert read == histogram
    peer = HdrHistogram.decode(payload)
    assert peer.get_total_count() == len(values)
    bare = Histogram.decode(payload)
    assert bare.count == len(values)
    if not above:
        assert bare.mean_us == pytest.approx(histogram.mean_us, rel=1e-3, abs=1)


def test_large_counts_survive_encoding() -> None:
    histogram = recorded([5_000])
    histogram.counts[5], histogram.count = 2**47, 2**47
    assert Histogram.decode(histogram.encode()).counts[5] == 2**47


def wrapped(
    low: int = LOWEST_US, high: int = HIGHEST_US, digits: int = SIGNIFICANT_DIGITS, words: bytes = b"\x02"
) -> bytes:
    body = struct.pack(">IIIIQQd", 0x1C849313, len(words), 0, digits, low, high, 1.0) + words
    packed = zlib.compress(body)
    return base64.b64encode(struct.pack(">II", 0x1C849314, len(packed)) + packed)


def test_the_hand_made_payload_is_well_formed() -> None:
    assert Histogram.decode(wrapped()).count == 1


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"not base64!", "cannot be decoded"),
        (b"", "cannot be decoded"),
        (b"AAAA" * 100_000, "larger than one can be"),
        (HdrHistogram(1, 3_600_000_000, 2).encode(), "another configuration"),
        (wrapped(high=3_600_000_001), "another configuration"),
        (wrapped(words=b"\x02\x80"), "word is cut"),
        (wrapped(words=b"\xff\xff\x03"), "more buckets"),
        (wrapped(words=b"\xff" * 9), "word is cut"),
        (wrapped(words=b"\xff" * 9 + b"\x01"), "out of range"),
        (wrapped(words=b"\x02" * 23_553), "more buckets"),
        (wrapped(words=b"\xff\xff\xff\xff\xff\xff\xff\x7f" * 999), "more buckets"),
        (wrapped(words=b"\x80\x80\x80\x80\x80\x80\x80\x01"), "out of range"),
        (wrapped(words=b"\x00" * 10_000_000), "cut short, or larger"),
    ],
)
def test_a_payload_from_a_stranger_is_refused(payload: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Histogram.decode(payload)


@given(st.binary(max_size=64), st.integers(0, 120))
def test_a_damaged_payload_is_refused_or_a_sound_histogram(noise: bytes, at: int) -> None:
    payload = bytearray(recorded([1_000, 5_000_000]).encode())
    payload[at : at + len(noise)] = noise
    try:
        histogram = Histogram.decode(bytes(payload))
    except ValueError:
        return
    assert histogram.count == histogram.counts.sum() >= 0


@pytest.mark.parametrize("exact", [{"count": 3}, {"above": 1}, {"min_ns": 9, "max_ns": 8}, {"sum_ns": -1}])
def test_exact_values_that_contradict_the_buckets_are_refused(exact: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="histogram"):
        Histogram.decode(recorded([1_000, 2_000]).encode(), **exact)


def test_the_recorded_buckets_are_those_that_hold_something() -> None:
    lowest, counts = recorded([5_000, 5_000, 7_000_000]).used_buckets_us()
    assert lowest.tolist() == [5, 7000]
    assert counts.tolist() == [2, 1]
    assert Histogram().used_buckets_us()[0].size == 0


def test_count_above_a_bound_counts_whole_buckets() -> None:
    assert recorded([1_000_000, 15_000_000, 15_100_000, 90_000_000]).count_above_us(15_000) == 2
