"""The end of a run: is it valid, what does the table say, and which exit code follows."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from rich.console import Console

from capacity.measures import LATENCY_ERROR, Series, Tally
from capacity.reporting.html import print_table
from capacity.rundir import Run, RunFile
from capacity.statistics import (
    Check,
    Histogram,
    check_backlog,
    check_enough_samples,
    check_generator_processor,
    check_independent_samples,
    check_lateness,
    check_littles_law,
    check_loop_lag,
    check_offered_rate,
    check_planned_arrivals,
    check_range,
    check_sent_arrivals,
    check_unsent,
    check_warm_up,
    samples_needed,
)
from loadgen._options import Options
from loadgen.measure import RunTotals

#: A run too short for a figure says nothing wrong by not having it.
_ENOUGH_FOR_LITTLE = 200
_ENOUGH_GAPS = 200
_ENOUGH_BINS = 40
_ENOUGH_FOR_P99 = samples_needed(99)
#: Where a probe is far above what the hardware serves, more are in flight than may be.
_OF_THE_HARDWARE = ("unsent requests", "offered rate")
_REPORTED = "generators that reported their end"


def checks_of(outcome: RunTotals, options: Options) -> list[Check]:
    """Everything that is checked of the run itself, worst series or generator where there are several."""
    checks = whole_checks(outcome)
    health, totals = outcome.health, outcome.totals
    service = _pooled(totals.values(), "service")
    checks.append(check_generator_processor(health.processor_share))
    if health.loop_lag.count:
        checks.append(check_loop_lag(health.loop_lag, service, options.slo))
    checks.append(check_range(sum(h.above for t in totals.values() for h in t.histograms.values())))
    if options.is_open:
        checks += _schedule(outcome, options, service)
    checks += _little(outcome, service)
    course = health.mean_latencies()
    if course.size >= _ENOUGH_BINS:
        checks.append(check_warm_up(course))
        if options.is_open:
            checks.append(check_backlog(health.in_flight_over_time()))
    checks += _samples(totals, health.autocorrelation, options)
    return checks


def whole_checks(outcome: RunTotals) -> list[Check]:
    """Whether the run is all there."""
    return [_measured(outcome), _reported(outcome), *_refused(outcome)]


def probe_checks(outcome: RunTotals, options: Options) -> list[Check]:
    """What may be wrong with the generators in one probe. What the hardware does under too much load is no fault."""
    health, totals = outcome.health, outcome.totals
    service = _pooled(totals.values(), "service")
    checks = [_reported(outcome), check_generator_processor(health.processor_share)]
    if health.loop_lag.count:
        checks.append(check_loop_lag(health.loop_lag, service, options.slo))
    sent = [check for check in _schedule(outcome, options, service) if check.name not in _OF_THE_HARDWARE]
    return [_doubted(check, health.loop_lag.count, service.count) for check in checks + sent]


def _doubted(check: Check, wakes: int, requests: int) -> Check:
    """A P99 of fewer samples than one needs is the worst of them: that alone is no limit of the generator."""
    few = {"event loop lag P99": wakes, "lateness P99": requests}.get(check.name, _ENOUGH_FOR_P99) < _ENOUGH_FOR_P99
    return check.model_copy(update={"status": "WARN"}) if few and check.status == "FAIL" else check


def lights_of(outcome: RunTotals, options: Options) -> list[Check]:
    """The same while the run goes on: nobody reported an end, so that light says who is there."""
    return [_present(check, outcome) if check.name == _REPORTED else check for check in checks_of(outcome, options)]


def _present(check: Check, outcome: RunTotals) -> Check:
    there = sum(bool(generator["complete"]) for generator in outcome.generators)
    return check.model_copy(update={"value": f"{there} are there"})


def _measured(outcome: RunTotals) -> Check:
    requests = sum(tally.requests for tally in outcome.totals.values())
    warm = sum(tally.requests for tally in outcome.warmups.values())
    return Check(
        name="measured requests",
        value=requests,
        threshold="at least 1",
        status="PASS" if requests else "FAIL",
        detail="" if requests else f"the run ended in ramp-up or warm-up, after {warm} requests",
    )


def _reported(outcome: RunTotals) -> Check:
    missing = [str(generator["client"]) for generator in outcome.generators if not generator["complete"]]
    return Check(
        name=_REPORTED,
        value=len(outcome.generators) - len(missing),
        threshold=f"{len(outcome.generators)} of {len(outcome.generators)}",
        status="FAIL" if missing else "PASS",
        detail=f"missing: {', '.join(missing)}" if missing else "",
    )


def _refused(outcome: RunTotals) -> list[Check]:
    refused = sum(outcome.refused.values())
    said = ", ".join(f"{count} {reason}" for reason, count in sorted(outcome.refused.items()))
    return [Check(name="refused reports", value=refused, threshold="0", status="WARN", detail=said)] if refused else []


def _schedule(outcome: RunTotals, options: Options, service: Histogram) -> list[Check]:
    """Open arrivals: were they sent as planned?"""
    totals, health = outcome.totals.values(), outcome.health
    due, requests = sum(t.due for t in totals), sum(t.requests for t in totals)
    if not due or not outcome.measured_s:
        return []
    # Random arrivals are held against their own schedule, regular ones against the rate that was asked for.
    planned = due / outcome.measured_s
    if options.arrivals == "constant" and len(health.planned_rates) == len(outcome.generators):
        planned = sum(health.planned_rates)
    checks = [
        check_offered_rate(planned, requests / outcome.measured_s),
        check_lateness(_pooled(totals, "lateness"), service, options.slo),
        check_unsent(sum(t.unsent for t in totals), due),
    ]
    if options.arrivals == "poisson" and len(health.planned_rates) == len(health.due):
        # Gaps in units of each generator's own mean gap, so that all generators' are one sample.
        pairs = list(zip(health.planned_rates, health.due, health.sent, strict=True))
        planned_gaps = np.concatenate([np.diff(due) * rate / 1e9 for rate, due, _ in pairs] or [np.empty(0)])
        sent_gaps = np.concatenate([np.diff(sent) * rate / 1e9 for rate, _, sent in pairs] or [np.empty(0)])
        if planned_gaps.size >= _ENOUGH_GAPS:
            checks += [check_planned_arrivals(planned_gaps, 1.0), check_sent_arrivals(sent_gaps)]
    return checks


def _little(outcome: RunTotals, service: Histogram) -> list[Check]:
    failed = _pooled(outcome.totals.values(), LATENCY_ERROR)
    ended = service.count + failed.count
    if ended < _ENOUGH_FOR_LITTLE or not outcome.measured_s:
        return []
    mean_s = (service.sum_ns + failed.sum_ns) / ended / 1e9
    return [check_littles_law(outcome.health.in_flight, ended / outcome.measured_s, mean_s)]


def _samples(totals: Mapping[Series, Tally], dependence: Mapping[Series, float], options: Options) -> list[Check]:
    """How much the samples say, of the series that says least."""
    checks = []
    kept = [
        (tally.answered / samples, tally.answered, samples)
        for series, samples in dependence.items()
        if (tally := totals.get(series)) is not None and tally.answered
    ]
    if kept:
        _, size, samples = min(kept)
        checks.append(check_independent_samples(size, samples))
    if options.slo is not None and options.slo.bounds:
        found = [
            check_enough_samples(
                options.slo, tally.histograms["latency"], tally.failed + tally.unsent, dependence.get(series, 1.0)
            )
            for series, tally in totals.items()
        ]
        checks += sorted(found, key=lambda check: check.status == "PASS")[:1]
    return checks


def _pooled(tallies: Iterable[Tally], measure: str) -> Histogram:
    pooled = Histogram()
    for tally in tallies:
        pooled.add(tally.histograms[measure])
    return pooled


def exit_code(file: RunFile, options: Options) -> int:
    """1 where the run is not valid or a row misses its SLO, else 0. --strict: also for a warning, and a row untold."""
    missed = options.slo is not None and any(row.verdict == "missed" for row in file.rows)
    if options.strict:
        missed |= any(check.status != "PASS" for check in file.checks)
        missed |= options.slo is not None and any(row.verdict == "inconclusive" for row in file.rows)
    return 1 if missed or not file.valid else 0


def show(directory: Path, report: Path, by: str) -> None:
    """Prints the table of a run directory, and where its report is."""
    # Where nobody's window sets the width, none of the columns is to be squeezed.
    console = Console() if sys.stdout.isatty() or "COLUMNS" in os.environ else Console(width=160)
    print_table([Run.load(directory)], console, by=by)
    console.print(f"report: {report}", soft_wrap=True)
