"""What came of one probe: its figures, its verdict, and a line that says it."""

from __future__ import annotations

from collections.abc import Sequence

from capacity.measures import Tally
from capacity.rundir import Probe, pooled_autocorrelation_time, summarize_histogram
from capacity.search import ProbeSummary, bound_shares, is_saturated, throughput_with_interval
from capacity.statistics import Check, Slo, judge_slo, percentile_interval_us
from loadgen.measure import RunTotals
from loadgen.run._session import FOLD_EVERY_NS


def words(probe: Probe, number: int, slo: Slo | None) -> str:
    """A probe's outcome in a line."""
    said = f"probe {number}: {probe.verdict or ('saturated' if probe.saturated else 'kept up')}"
    if slo and slo.bounds and probe.slo_us is not None:
        high = probe.slo_interval[1] if probe.slo_interval else None
        low = probe.slo_interval[0] if probe.slo_interval else 0.0
        said += f", P{slo.bounds[0][0]:g} {probe.slo_us / 1000:.4g} ms ({low / 1000:.4g} to "
        said += f"{high / 1000:.4g})" if high is not None else "no end)"
    said += f", {probe.throughput_rps:,.4g}/s answered of {probe.offered_rps:,.4g}/s"
    return f"{said}; {probe.verdict_reasons[0]}" if not probe.valid and probe.verdict_reasons else said


def judged(
    probe: Probe, outcome: RunTotals, checks: Sequence[Check], slo: Slo | None, rate: float, *, cut: bool
) -> tuple[Probe, ProbeSummary]:
    """The probe with its figures and its verdict, and as the search takes it."""
    tally, health = Tally(), outcome.health
    for one in outcome.totals.values():
        tally.add(one)
    latency, lost = tally.histograms["latency"], tally.failed + tally.unsent
    dependence = pooled_autocorrelation_time(list(outcome.totals), outcome.totals, health.autocorrelation)
    achieved, interval = throughput_with_interval(health.completions, FOLD_EVERY_NS / 1e9)
    window_s = health.window_s
    failed = [check for check in checks if check.status == "FAIL"]
    valid = not failed and window_s > 0
    verdict = judge_slo(slo, latency, lost, dependence) if slo else None
    reasons = list(verdict.reasons) if verdict else []
    if not valid:
        reasons = [f"the generator's limit: {check.name} {check.value}" for check in failed] or ["nothing was measured"]
    if cut:
        reasons.insert(0, "cut off: the run ended")
    status = None if verdict is None else "inconclusive" if cut or not valid else verdict.status
    first = slo.bounds[0][0] if slo and slo.bounds else None
    ends = percentile_interval_us(latency, first, lost, dependence) if first is not None else None
    full = window_s > 0 and is_saturated(tally.due, round(achieved * window_s))
    told = probe.model_copy(
        update={
            "offered_rps": round(tally.due / window_s, 3) if window_s else 0.0,
            "throughput_rps": round(achieved, 3),
            "throughput_interval": interval,
            "due": tally.due,
            "requests": tally.requests,
            "answered": tally.answered,
            "errors": dict(sorted(tally.errors.items())),
            "unsent": tally.unsent,
            "latency_us": summarize_histogram(latency, lost, dependence),
            "service_us": summarize_histogram(tally.histograms["service"], tally.failed, dependence),
            "lateness_us": summarize_histogram(tally.histograms["lateness"]),
            "queue_us": summarize_histogram(tally.histograms["queue"]),
            "compute_us": summarize_histogram(tally.histograms["compute"]),
            "autocorrelation_time": round(dependence, 3),
            "slo_us": latency.percentile_us(first, lost) if first is not None and ends else None,
            "slo_interval": ends,
            "verdict": status,
            "verdict_reasons": reasons,
            "saturated": full,
            "valid": valid,
            "checks": [check for check in checks if check.status != "PASS"],
        }
    )
    seen = ProbeSummary(
        phase=told.phase,
        planned_rps=rate,
        offered_rps=told.offered_rps,
        throughput_rps=achieved,
        verdict=status,
        shares=bound_shares(slo, latency, lost, dependence) if slo and valid else (),
        saturated=full,
        valid=valid and not cut,
    )
    return told, seen
