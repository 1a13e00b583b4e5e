"""Durations are read exactly, refused in one sentence, and shown without exponents."""

import pytest

from worker.wire import FormatError, display_duration, format_duration, parse_duration_ns


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("15ms", 15_000_000),
        ("1s", 10**9),
        ("1.5s", 1_500_000_000),
        ("250us", 250_000),
        ("250µs", 250_000),
        ("3µs", 3_000),
        ("7ns", 7),
        ("2m", 120 * 10**9),
        ("30 min", 1800 * 10**9),
        ("1h", 3600 * 10**9),
        ("0.3s", 3 * 10**8),
    ],
)
def test_durations_are_exact(text: str, ns: int) -> None:
    assert parse_duration_ns(text) == ns
    assert parse_duration_ns(format_duration(ns)) == ns


@pytest.mark.parametrize("text", ["", "15", "ms", "-1ms", "0ms", "0", "1d", "1e3ms", "15 msec", "٣ms"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="is not a duration"):
        parse_duration_ns(text)


@pytest.mark.parametrize("text", ["0", "0s", "0ms"])
def test_zero_is_a_duration_only_where_it_is_allowed(text: str) -> None:
    assert parse_duration_ns(text, allow_zero=True) == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (5e-9, "5 ns"),
        (250e-6, "250 µs"),
        (0.015, "15 ms"),
        (0.0001849, "185 µs"),
        (2, "2 s"),
        (2.5, "2.5 s"),
        (59.99, "1 min"),
        (0.9999, "1 s"),
        (100, "1.67 min"),
        (1800, "30 min"),
        (5400, "1.5 h"),
        (3_600_000, "1000 h"),
        (-0.5, "-500 ms"),
    ],
)
def test_durations_for_people_have_three_digits_and_no_exponent(seconds: float, text: str) -> None:
    assert display_duration(seconds) == text
