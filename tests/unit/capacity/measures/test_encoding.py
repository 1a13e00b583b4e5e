"""An encoded tally is read back to the last bit, as msgpack and as JSON, and anything else is refused."""

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capacity.measures import (
    Tally,
    decode_counts,
    decode_tally,
    encode_counts,
    encode_tally,
    sum_tallies,
    tally_from_json,
    tally_to_json,
)


def example() -> Tally:
    tally = Tally(due=7, answered=4, unsent=1, errors={"UNAVAILABLE": 2}, bytes_in=10, bytes_out=20, retries=3)
    tally.histograms["latency"].record_ns([1_000, 2_000, 3_000, 4_000])
    tally.histograms["latency-error"].record_ns([9_000_000, 8_000_000])
    return tally


@pytest.mark.parametrize("tally", [example(), Tally()], ids=["example", "empty"])
def test_a_tally_is_read_back_from_msgpack_and_from_json(tally: Tally) -> None:
    encoded = encode_tally(tally)
    assert sum_tallies([decode_tally(msgpack.unpackb(msgpack.packb(encoded)))]) == tally
    assert sum_tallies([decode_tally(tally_from_json(json.loads(json.dumps(tally_to_json(encoded)))))]) == tally


@given(st.lists(st.integers(0, 2**45), max_size=60), st.lists(st.integers(0, 2**45), max_size=60))
def test_sparse_tallies_add_up_as_dense_ones_do(first_ns: list[int], second_ns: list[int]) -> None:
    tallies = []
    for values_ns in (first_ns, second_ns):
        tally = Tally(len(values_ns), len(values_ns))
        tally.histograms["latency"].record_ns(values_ns)
        tallies.append(tally)
    total = tallies[0].copy()
    total.add(tallies[1])
    assert sum_tallies(decode_tally(encode_tally(tally)) for tally in tallies) == total


def test_counts_alone_are_read_back() -> None:
    counts = decode_counts(json.loads(json.dumps(encode_counts(example()))))
    assert (counts.due, counts.requests, counts.unsent, counts.retries) == (7, 6, 1, 3)
    assert (counts.errors, counts.histograms) == ({"UNAVAILABLE": 2}, {})


@pytest.mark.parametrize(
    "change",
    [
        {"counts": [-1, 4, 1, 10, 20, 3]},
        {"counts": ["7", 4, 1, 10, 20, 3]},
        {"counts": [7, None, 1, 10, 20, 3]},
        {"counts": [8, 4, 1, 10, 20, 3]},
        {"counts": [7, 4, 1]},
        {"counts": 7},
        {"errors": [1]},
        {"errors": {3: 2}},
        {"errors": {"E" * 300: 2}},
        {"histograms": {"latency": [b"x", 1, 1, 1, 1, 0]}},
        {"histograms": {"latency": ["text", 1, 1, 1, 1, 0]}},
        {"histograms": {"latency": [b"x"]}},
        {"histograms": {}},
        {"histograms": {"nonsense": []}},
        {"histograms": {"pass-1": []}},
    ],
)
def test_a_malformed_tally_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        decode_tally(encode_tally(example()) | change)


def test_text_that_is_not_base64_is_refused() -> None:
    encoded = tally_to_json(encode_tally(example()))
    encoded["histograms"]["latency"][2] = "ä"
    with pytest.raises(ValueError, match="ASCII"):
        tally_from_json(encoded)
