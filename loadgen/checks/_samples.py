"""Checks of the number of samples: are there enough for the percentiles and the verdict."""

from __future__ import annotations

import math

from capacity.statistics import Check, Histogram, Slo, early_stopping_samples, judge_slo
from loadgen.checks._check_input import CheckInput, Rule


def independent_samples(run: CheckInput) -> Check | None:
    """The series with the fewest independent samples."""
    sizes = [
        (tally.answered / time, tally.answered, time)
        for series, time in run.health.autocorrelation.items()
        if (tally := run.totals.totals.get(series)) is not None and tally.answered
    ]
    if not sizes:
        return None
    _, size, time = min(sizes)
    return check_independent_samples(size, time)


def enough_samples(run: CheckInput) -> Check | None:
    """A series with too few samples for the SLO, if there is one."""
    slo = run.options.slo
    if slo is None or not slo.bounds:
        return None
    checks = [
        check_enough_samples(
            slo,
            tally.histograms["latency"],
            tally.failed + tally.unsent,
            run.health.autocorrelation.get(series, 1.0),
        )
        for series, tally in run.totals.totals.items()
    ]
    return min(checks, key=lambda check: check.status == "PASS", default=None)


RULES: tuple[Rule, ...] = (independent_samples, enough_samples)


def check_independent_samples(size: int, autocorrelation_time: float) -> Check:
    """`autocorrelation_time` samples of `size` say as much as one independent one, by which intervals and verdicts are
    widened: warns below 100 independent samples."""
    effective = size / autocorrelation_time
    return Check(
        name="independent samples",
        value=f"{effective:,.0f} of {size:,}",
        threshold="≥ 100",
        status="PASS" if effective >= 100 else "WARN",
        detail=f"autocorrelation time {autocorrelation_time:.1f} samples" if autocorrelation_time > 1.5 else "",
    )


def check_enough_samples(slo: Slo, latency: Histogram, lost: int, autocorrelation_time: float = 1.0) -> Check:
    """MLPerf's early-stopping bound for each percentile of the SLO, times the autocorrelation time in samples.

    `lost` requests failed or were unsent: they are over every bound. An SLO that is clearly missed needs no more.
    """
    total = latency.count + lost
    needed = 0
    for p, bound_ns in slo.bounds:
        single = Slo(((p, bound_ns),))
        if judge_slo(single, latency, lost, autocorrelation_time).status == "missed":
            continue
        over = latency.count_above_us(bound_ns / 1000) + lost
        # Samples over the bound that depend on one another count once.
        independent = early_stopping_samples(math.ceil(over / autocorrelation_time), p)
        needed = max(needed, math.ceil(independent * autocorrelation_time))
    return Check(
        name="enough samples",
        value=total,
        threshold=f"≥ {needed:,} for {slo} with 99 % confidence",
        status="PASS" if total >= needed else "WARN",
        detail="" if total >= needed else f"{needed - total:,} more needed, if the same number exceeds the bound",
    )
