"""The values of a row as text: milliseconds, percentiles, verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from capacity.rundir import Measure, Row, Run
from capacity.statistics import Slo, samples_needed

PERCENTILES = {50.0: "p50", 90.0: "p90", 95.0: "p95", 99.0: "p99", 99.9: "p999"}


def describe_arrivals(runs: Sequence[Run]) -> str:
    """Returns a sentence on the arrivals of these runs: what their latencies count from."""
    arrivals = {run.file.arrivals for run in runs}
    if arrivals == {"closed"}:
        return "Closed loop: due = sent, so latency is what one request at a time sees"
    if "closed" in arrivals:
        return "Open and closed loops: in the closed ones due = sent"
    return "Open loop: latency counts from when a request was due"


def format_ms(us: float | None) -> str:
    """Returns microseconds as milliseconds with three digits; a dash for None."""
    if us is None:
        return "–"
    value = us / 1000
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3}f}"


def format_percentile(measure: Measure, p: float) -> str:
    """Returns a percentile in ms, or why there is none."""
    value = getattr(measure, PERCENTILES[p])
    if value is not None:
        return format_ms(value)
    needed = samples_needed(p)
    if measure.samples < needed:
        return f"not enough samples ({measure.samples} < {needed})"
    return "beyond all answered"


def format_verdict(row: Row, slo: Slo | None) -> str:
    """Returns yes, no or inconclusive; empty without an SLO."""
    return "" if slo is None else {"met": "yes", "missed": "no"}.get(row.verdict or "", "inconclusive")


def shown_percentile(slo: Slo | None) -> tuple[float, int | None]:
    """Returns the percentile that a chart shows, and its bound in ns: the SLO's first in the table, else P90."""
    return next(((p, bound) for p, bound in slo.bounds if p in PERCENTILES), (90.0, None)) if slo else (90.0, None)
