"""Service level objectives as a user writes them: `p90=15ms`, `p99=50ms,p90=20ms,errors=0.1%`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Self

_UNITS_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ns|us|µs|ms|s|m|h)")
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?)")
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*(%?)")


def parse_duration_ns(text: str) -> int:
    """`15ms`, `1s`, `250us`, `2m`, `1h` to ns; ValueError otherwise, and for zero."""
    match = _DURATION.fullmatch(text.strip())
    # Decimal, because 0.3 s is 300,000,000 ns and not 299,999,999.
    duration = int(Decimal(match[1]) * _UNITS_NS[match[2]]) if match else 0
    if duration <= 0:
        raise ValueError(f"'{text}' is not a duration such as 15ms, 1s, 250us or 2m")
    return duration


def format_duration(duration_ns: int) -> str:
    """The shortest exact text of a duration: 15ms, 1.5s, 250us."""
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)):
        if duration_ns >= size:
            return f"{(Decimal(duration_ns) / size).normalize():f}{unit}"
    return f"{duration_ns}ns"


@dataclass(frozen=True)
class Slo:
    """Bounds on latency percentiles (percentile 0–100, bound in ns), and at most this share of failed requests (0–1).

    Errors and requests never sent count as beyond every latency bound, whether or not `max_error_rate` is set.
    """

    bounds: tuple[tuple[float, int], ...]
    max_error_rate: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """`p90=15ms` or `p99=50ms,p90=20ms,errors=0.1%`; ValueError in one sentence."""
        bounds: dict[float, int] = {}
        max_error_rate: float | None = None
        for part in text.split(","):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            match = _PERCENTILE.fullmatch(name)
            if equals and match and float(match[1]) > 0:
                if float(match[1]) in bounds:
                    raise ValueError(f"the SLO '{text}' bounds {name} twice")
                bounds[float(match[1])] = parse_duration_ns(value)
            elif equals and name == "errors":
                rate = _RATE.fullmatch(value)
                max_error_rate = float(Decimal(rate[1]) / (100 if rate[2] else 1)) if rate else math.inf
                if max_error_rate > 1:
                    raise ValueError(f"'{value}' in the SLO '{text}' is not a share of errors such as 0.1% or 0.001")
            else:
                raise ValueError(f"'{part.strip()}' in the SLO '{text}' is not like p90=15ms, p99.9=1s or errors=0.1%")
        if not bounds and max_error_rate is None:
            raise ValueError("an SLO needs a bound such as p90=15ms")
        return cls(tuple(bounds.items()), max_error_rate)

    def __str__(self) -> str:
        parts = [f"p{percentile:g}={format_duration(bound)}" for percentile, bound in self.bounds]
        if self.max_error_rate is not None:
            parts.append(f"errors={(Decimal(str(self.max_error_rate)) * 100).normalize():f}%")
        return ",".join(parts)
