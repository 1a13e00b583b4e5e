"""Service level objectives as a user writes them: `p90=15ms`, `p99=50ms,p90=20ms,errors=0.1%`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Self

from capacity.errors import InputError
from worker.wire import FormatError, format_duration, parse_duration_ns

_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?)")
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*(%?)")


@dataclass(frozen=True)
class Slo:
    """Bounds on latency percentiles (percentile 0–100, bound in ns), and at most this share of failed requests (0–1).

    Errors and requests never sent count as beyond every latency bound, whether or not `max_error_rate` is set.
    """

    bounds: tuple[tuple[float, int], ...]
    max_error_rate: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """`p90=15ms` or `p99=50ms,p90=20ms,errors=0.1%`; InputError in one sentence."""
        bounds: dict[float, int] = {}
        max_error_rate: float | None = None
        for part in text.split(","):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            match = _PERCENTILE.fullmatch(name)
            if equals and match and float(match[1]) > 0:
                if float(match[1]) in bounds:
                    raise InputError(f"the SLO '{text}' bounds {name} twice")
                bounds[float(match[1])] = _parse_bound_ns(value)
            elif equals and name == "errors":
                rate = _RATE.fullmatch(value)
                max_error_rate = float(Decimal(rate[1]) / (100 if rate[2] else 1)) if rate else math.inf
                if max_error_rate > 1:
                    raise InputError(f"'{value}' in the SLO '{text}' is not a share of errors such as 0.1% or 0.001")
            else:
                raise InputError(f"'{part.strip()}' in the SLO '{text}' is not like p90=15ms, p99.9=1s or errors=0.1%")
        if not bounds and max_error_rate is None:
            raise InputError("an SLO needs a bound such as p90=15ms")
        return cls(tuple(bounds.items()), max_error_rate)

    def __str__(self) -> str:
        parts = [f"p{percentile:g}={format_duration(bound)}" for percentile, bound in self.bounds]
        if self.max_error_rate is not None:
            parts.append(f"errors={(Decimal(str(self.max_error_rate)) * 100).normalize():f}%")
        return ",".join(parts)


def _parse_bound_ns(text: str) -> int:
    try:
        return parse_duration_ns(text)
    except FormatError as error:
        raise InputError(str(error)) from None
