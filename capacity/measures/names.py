"""The measures that histograms are recorded of, by name."""

from __future__ import annotations

import re

#: Measures of requests: from due to done, from sent to done, from due to sent, and by the target's own clock.
MEASURES = ("latency", "service", "lateness", "queue", "compute")
#: The latency of failed requests.
LATENCY_ERROR = "latency-error"
#: Requests that became due in an interval, whenever they end, and those that were never sent. Their histograms hold
#: zeros, one for each request: only the count matters.
OFFERED, UNSENT = "offered", "unsent"
#: The histograms of every Tally.
HISTOGRAMS = (*MEASURES, LATENCY_ERROR, OFFERED, UNSENT)
#: Measures of a target's own clock, which it reports once for the whole run, like those of its forward passes.
TARGET_MEASURES = ("queue", "compute")
_PASS = re.compile(r"pass-([1-9]\d{0,9})")


def pass_measure(rows: int) -> str:
    """The measure of forward passes with this number of rows: `pass-8`."""
    return f"pass-{rows}"


def pass_rows(measure: str) -> int | None:
    """The number of rows of a measure of forward passes; None for any other measure."""
    match = _PASS.fullmatch(measure)
    return int(match[1]) if match else None


def is_measure(name: str) -> bool:
    """Whether this is the name of a measure."""
    return name in HISTOGRAMS or pass_rows(name) is not None


def is_target_measure(name: str) -> bool:
    """Whether a target reports this measure itself, once for the whole run."""
    return name in TARGET_MEASURES or pass_rows(name) is not None
