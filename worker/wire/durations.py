"""Durations as users write them (`15ms`, `2m`) and as people read them (`15 ms`, `30 min`)."""

import re
from decimal import Decimal

from worker.wire.errors import FormatError

_UNITS_NS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ns|us|µs|ms|s|min|m|h)", re.ASCII)

# Unit and its size in seconds, largest first.
_DISPLAY_UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))


def parse_duration_ns(text: str, *, allow_zero: bool = False) -> int:
    """Returns the nanoseconds of `15ms`, `1s`, `250us`, `2m` or `1h`.

    With `allow_zero`, `0` is a duration too, with or without a unit. Raises FormatError for anything else.
    """
    text = text.strip()
    match = _DURATION.fullmatch(text)
    if allow_zero and text == "0":
        return 0
    # Decimal, because 0.3 s is 300,000,000 ns and not 299,999,999.
    duration_ns = int(Decimal(match[1]) * _UNITS_NS[match[2]]) if match else -1
    if duration_ns < 0 or (duration_ns == 0 and not allow_zero):
        raise FormatError(f"'{text}' is not a duration (write one such as 15ms, 1s, 250us or 2m)")
    return duration_ns


def format_duration(duration_ns: int) -> str:
    """Returns the shortest exact text of a duration, which `parse_duration_ns` reads back: 15ms, 1.5s, 250us."""
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if duration_ns >= size:
            return f"{(Decimal(duration_ns) / size).normalize():f}{unit}"
    return f"{duration_ns}ns"


def display_duration(seconds: float) -> str:
    """Returns a duration for people, with three significant digits and never an exponent: 15 ms, 2 s, 30 min, 1.5 h."""
    sign, size = ("-" if seconds < 0 else ""), abs(seconds)
    if size == 0:
        return "0 s"
    for unit, unit_seconds in _DISPLAY_UNITS:
        # Rounded first: 59.99 s reads 1 min, not 60 s.
        value = float(f"{size / unit_seconds:.3g}")
        if value >= 1 or unit == "ns":
            whole_digits = len(str(int(value)))
            text = f"{value:.{max(0, 3 - whole_digits)}f}"
            return f"{sign}{text.rstrip('0').rstrip('.') if '.' in text else text} {unit}"
    raise AssertionError("unreachable: ns is the smallest unit")
