"""Whether open arrivals were sent as planned: rate, lateness, unsent requests, and their pattern."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from capacity.statistics import Check, anderson_darling_test, poisson_deviation
from loadgen.checks._check_input import CheckInput, Rule, status_of
from loadgen.checks._generator import check_lateness

#: Fewer gaps between arrivals than these show no pattern.
_MIN_GAPS = 200


def offered_rate(run: CheckInput) -> Check | None:
    """Requests sent a second against the plan."""
    due = _due(run)
    if not due:
        return None
    # Random arrivals are compared with their own schedule, regular ones with the rate that was planned.
    planned_rps = due / run.measured_s
    if run.options.arrivals == "constant" and len(run.health.planned_rates) == len(run.totals.generators):
        planned_rps = sum(run.health.planned_rates)
    return check_offered_rate(planned_rps, sum(tally.requests for tally in run.tallies) / run.measured_s)


def lateness(run: CheckInput) -> Check | None:
    """How late requests were sent."""
    return check_lateness(run.pooled("lateness"), run.service, run.options.slo) if _due(run) else None


def unsent(run: CheckInput) -> Check | None:
    """Requests that were due and not sent."""
    due = _due(run)
    return check_unsent(sum(tally.unsent for tally in run.tallies), due) if due else None


def planned_arrivals(run: CheckInput) -> Check | None:
    """Whether the schedule was a Poisson process."""
    gaps = _gaps(run, run.health.due)
    return None if gaps is None else check_planned_arrivals(gaps, 1.0)


def sent_arrivals(run: CheckInput) -> Check | None:
    """Whether requests left as a Poisson process."""
    gaps = _gaps(run, run.health.sent)
    return None if gaps is None else check_sent_arrivals(gaps)


RULES: tuple[Rule, ...] = (offered_rate, lateness, unsent, planned_arrivals, sent_arrivals)
#: In a probe far above what the hardware serves more requests are in flight than may be: that is no fault of the
#: generators, so the first and the third rule do not apply.
PROBE_RULES: tuple[Rule, ...] = (lateness, planned_arrivals, sent_arrivals)


def _due(run: CheckInput) -> int:
    """Requests that were due; 0 where there is no schedule to check."""
    return sum(tally.due for tally in run.tallies) if run.options.is_open and run.measured_s else 0


def _gaps(run: CheckInput, times: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.float64] | None:
    """Gaps between arrivals, in units of each generator's own mean gap so that all of them are one sample."""
    rates = run.health.planned_rates
    if run.options.arrivals != "poisson" or len(rates) != len(times) or not _due(run):
        return None
    parts = [np.diff(one) * rate / 1e9 for rate, one in zip(rates, times, strict=True)]
    gaps = np.concatenate(parts or [np.empty(0)])
    return gaps if gaps.size >= _MIN_GAPS else None


def check_offered_rate(planned_rps: float, offered_rps: float) -> Check:
    """Requests sent a second against the planned number: warns beyond 1 %, fails beyond 5 %."""
    error = abs(offered_rps / planned_rps - 1) if planned_rps > 0 else math.inf if offered_rps else 0.0
    return Check(
        name="offered rate",
        value=f"{offered_rps:,.5g}/s, {100 * error:.2g} % off",
        threshold=f"{planned_rps:,.5g}/s ± 1 %, fails beyond 5 %",
        status=status_of(error, 0.01, 0.05),
        detail="" if error <= 0.01 else "the load differed from the planned load",
    )


def check_unsent(unsent: int, due: int) -> Check:
    """Requests that were due and never sent: warns above none, fails above 5 %. They count as beyond every bound."""
    share = unsent / due if due else 0.0
    return Check(
        name="unsent requests",
        value=unsent,
        threshold="0, fails above 5 %",
        status=status_of(share, 0.0, 0.05),
        detail="" if not unsent else f"{100 * share:.2g} % of {due} due: too many were in flight",
    )


def check_planned_arrivals(gaps_s: npt.NDArray[np.float64], rate: float) -> Check:
    """Planned gaps between arrivals in seconds, shape (n,), against the exponential distribution of `rate` a second."""
    statistic, p_value = anderson_darling_test(gaps_s, rate)
    return Check(
        name="planned arrivals are Poisson",
        value=f"p {p_value:.2g} (A² {statistic:.3g}, {gaps_s.size} gaps)",
        threshold="p ≥ 0.01, fails below 0.0001",
        status="PASS" if p_value >= 0.01 else "WARN" if p_value >= 1e-4 else "FAIL",
        detail="" if p_value >= 0.01 else "Anderson-Darling: the schedule is not a Poisson process of this rate",
    )


def check_sent_arrivals(gaps_s: npt.NDArray[np.float64]) -> Check:
    """Gaps between arrivals as sent, in seconds and in order, shape (n,), by the sizes of their deviations from a
    Poisson process: a test of significance would reject any real clock."""
    deviation = poisson_deviation(gaps_s)
    worst = max(abs(deviation.variation), 2 * deviation.distance, abs(deviation.correlation))
    limit = 0.05 + deviation.noise
    status = status_of(worst, limit, 0.15 + deviation.noise)
    values = f"distance {deviation.distance:.3f}, correlation {deviation.correlation:+.3f}"
    return Check(
        name="sent arrivals are Poisson",
        value=f"variation {1 + deviation.variation:.3f}, {values}",
        threshold=f"1 ± {limit:.2g}, ≤ {limit / 2:.2g}, 0 ± {limit:.2g}",
        status=status,
        detail="" if status == "PASS" else "requests were sent in another pattern than planned",
    )
