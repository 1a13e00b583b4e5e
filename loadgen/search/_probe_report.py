"""A probe's result as run.json has it, as the search strategy sees it, and as a line on the terminal."""

from __future__ import annotations

from dataclasses import dataclass

from capacity.measures import Tally
from capacity.rundir import Probe, pooled_autocorrelation_time, summarize_histogram
from capacity.search import NextProbe, ProbeSummary, bound_shares, is_saturated, throughput_with_interval
from capacity.statistics import Slo, judge_slo, percentile_interval_us
from loadgen._options import Options
from loadgen.checks import check_probe
from loadgen.generator import FOLD_INTERVAL_NS, ProbeResult

#: How a phase of a search is called on the terminal.
_PHASES = {
    "bracket": "bracketing",
    "saturate": "saturating",
    "refine": "refining",
    "recheck": "rechecking",
    "confirm": "confirming",
}


@dataclass(frozen=True)
class ProbeReport:
    """One probe that ended: `probe` for run.json, `summary` for the search strategy, `result` as it was measured."""

    probe: Probe
    summary: ProbeSummary
    result: ProbeResult


def phase_name(phase: str) -> str:
    """How a phase of a search is called on the terminal."""
    return _PHASES.get(phase, phase)


def report_probe(
    number: int, step: NextProbe, result: ProbeResult, options: Options, span_s: tuple[float, float], *, cut_off: bool
) -> ProbeReport:
    """Judges a probe. `span_s` is where run.hlog has it, in seconds; `cut_off` means that the run ended before it."""
    slo, health, window_s = options.slo, result.health, result.seconds
    checks = check_probe(result.run_totals, options)
    failures = [check for check in checks if check.status == "FAIL"]
    valid = not failures and window_s > 0
    tally = Tally()
    for one in result.tallies.values():
        tally.add(one)
    latency, lost = tally.histograms["latency"], tally.failed + tally.unsent
    autocorrelation = pooled_autocorrelation_time(list(result.tallies), result.tallies, health.autocorrelation)
    throughput_rps, interval = throughput_with_interval(health.completions, FOLD_INTERVAL_NS / 1e9)
    verdict = judge_slo(slo, latency, lost, autocorrelation) if slo else None
    status = None if verdict is None else "inconclusive" if cut_off or not valid else verdict.status
    reasons = list(verdict.reasons) if verdict else []
    if not valid:
        limits = [f"the generator's limit: {check.name} {check.value}" for check in failures]
        reasons = limits or ["nothing was measured"]
    if cut_off:
        reasons.insert(0, "cut off: the run ended")
    first_p = slo.bounds[0][0] if slo and slo.bounds else None
    slo_interval = percentile_interval_us(latency, first_p, lost, autocorrelation) if first_p is not None else None
    saturated = window_s > 0 and is_saturated(tally.due, round(throughput_rps * window_s))
    offered_rps = round(tally.due / window_s, 3) if window_s else 0.0
    probe = Probe(
        number=number,
        phase=step.phase,
        planned_rps=step.rate_rps,
        offered_rps=offered_rps,
        throughput_rps=round(throughput_rps, 3),
        throughput_interval=interval,
        seconds=round(window_s, 3),
        from_s=span_s[0],
        to_s=span_s[1],
        due=tally.due,
        requests=tally.requests,
        answered=tally.answered,
        errors=dict(sorted(tally.errors.items())),
        unsent=tally.unsent,
        latency_us=summarize_histogram(latency, lost, autocorrelation),
        service_us=summarize_histogram(tally.histograms["service"], tally.failed, autocorrelation),
        lateness_us=summarize_histogram(tally.histograms["lateness"]),
        queue_us=summarize_histogram(tally.histograms["queue"]),
        compute_us=summarize_histogram(tally.histograms["compute"]),
        autocorrelation_time=round(autocorrelation, 3),
        slo_us=latency.percentile_us(first_p, lost) if first_p is not None and slo_interval else None,
        slo_interval=slo_interval,
        verdict=status,
        verdict_reasons=reasons,
        saturated=saturated,
        valid=valid,
        checks=[check for check in checks if check.status != "PASS"],
    )
    summary = ProbeSummary(
        phase=step.phase,
        planned_rps=step.rate_rps,
        offered_rps=offered_rps,
        throughput_rps=throughput_rps,
        verdict=status,
        shares=bound_shares(slo, latency, lost, autocorrelation) if slo and valid else (),
        saturated=saturated,
        valid=valid and not cut_off,
    )
    return ProbeReport(probe, summary, result)


def describe_probe(probe: Probe, slo: Slo | None) -> str:
    """A probe's result in one line for the terminal."""
    line = f"probe {probe.number}: {probe.verdict or ('saturated' if probe.saturated else 'not saturated')}"
    if slo and slo.bounds and probe.slo_us is not None and probe.slo_interval is not None:
        low, high = probe.slo_interval
        upper = f"{high / 1000:.4g} ms" if high is not None else "unlimited"
        line += f", P{slo.bounds[0][0]:g} {probe.slo_us / 1000:.4g} ms ({low / 1000:.4g} ms to {upper})"
    line += f", {probe.throughput_rps:,.4g}/s answered of {probe.offered_rps:,.4g}/s offered"
    return f"{line}; {probe.verdict_reasons[0]}" if not probe.valid and probe.verdict_reasons else line
