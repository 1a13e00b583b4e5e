"""burst: a square wave of load, or a trace; how long a backlog takes to drain."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from capacity.errors import InputError
from capacity.experiments.stress import (
    ResultTable,
    ScenarioResult,
    StressEnvironment,
    check_accounted,
    check_failed_requests,
    check_valid_runs,
    format_ms,
    run_window,
    timeline_panels,
)
from capacity.rundir import Run
from capacity.statistics import Check
from worker.wire import display_duration

#: The offered rate between bursts and in them, as shares of capacity, and the lengths in seconds.
BASE_SHARE, PEAK_SHARE = 0.4, 1.5
QUIET_S, BURST_S = 8.0, 3.0
#: How many bursts there are unless --for is given.
BURSTS = 3
#: The last quiet part is longer by so much: the backlog of the last burst drains in it.
_LONGER_S = 2.0
CAPACITY_S = 6.0
#: A backlog is drained when the median of a second is within this many times that before the first burst.
DRAINED_FACTOR = 2.0
_SEED = 1
_LOAD_ARGUMENTS = ("-u", "1", "--router", "least-outstanding", "--deadline", "30s")


def run_burst(environment: StressEnvironment) -> ScenarioResult:
    """Plays the trace where one is given, else measures the capacity and plays a square wave of it."""
    options = environment.options
    if options.trace is not None:
        seconds = _trace_length_s(options.trace) + 5
        environment.progress(f"the trace {options.trace}, {display_duration(seconds)}")
        run = _play(environment, options.trace, seconds)
        return _result(run, [], options.trace.name)
    number = bursts_within(options.seconds)
    capacity = environment.measure_capacity("capacity", CAPACITY_S)
    peak = options.load_share or PEAK_SHARE
    edges, rates = _square_wave(number, capacity, peak)
    path = options.out / "square-wave.csv"
    _write_arrivals(path, edges, rates)
    wave = f"{display_duration(BURST_S)} at {100 * peak:.0f} % of {capacity:.4g}"
    plural = "s" if number > 1 else ""
    environment.progress(f"{number} burst{plural} of {wave}, {100 * BASE_SHARE:.0f} % between them")
    run = _play(environment, path, edges[-1])
    return _result(run, [edges[2 * n + 2] for n in range(number)], wave, capacity)


def _play(environment: StressEnvironment, trace: Path, seconds: float) -> Run:
    arguments = ["--arrivals", f"trace:{trace}", *_LOAD_ARGUMENTS]
    return environment.run("burst", environment.addresses, arguments, seconds, warmup_s=0)


def bursts_within(seconds: float | None) -> int:
    """Returns how many bursts fit into so many seconds; the default number for None. Raises InputError for none."""
    if seconds is None:
        return BURSTS
    number = int((seconds - QUIET_S - _LONGER_S) // (QUIET_S + BURST_S))
    if number < 1:
        raise InputError(
            f"--for {seconds:g}s is too short for a burst: expected at least {2 * QUIET_S + BURST_S + _LONGER_S:g}s, "
            f"which is {QUIET_S:g} s before it, {BURST_S:g} s of it and {QUIET_S + _LONGER_S:g} s to drain"
        )
    return number


def _square_wave(number: int, capacity: float, peak_share: float) -> tuple[list[float], list[float]]:
    """The edges of the parts in seconds, and the rate of each part in requests a second."""
    edges, rates = [0.0], []
    for _ in range(number):
        for length, share in ((QUIET_S, BASE_SHARE), (BURST_S, peak_share)):
            edges.append(edges[-1] + length)
            rates.append(share * capacity)
    edges.append(edges[-1] + QUIET_S + _LONGER_S)
    rates.append(BASE_SHARE * capacity)
    return edges, rates


def _write_arrivals(path: Path, edges: Sequence[float], rates: Sequence[float]) -> None:
    """Writes Poisson arrivals of these rates as a trace."""
    generator = np.random.default_rng(_SEED)
    with path.open("w", newline="") as file:
        file.write("arrival_s\n")
        for (begin, end), rate in zip(pairwise(edges), rates, strict=True):
            times = np.sort(generator.uniform(begin, end, generator.poisson(rate * (end - begin))))
            file.writelines(f"{time:.6f}\n" for time in times)


def _result(run: Run, burst_ends: list[float], description: str, capacity: float | None = None) -> ScenarioResult:
    drains = [drain_seconds(run, end, burst_ends) for end in burst_ends]
    measured = [drain for drain in drains if drain is not None]
    all_drained = len(measured) == len(burst_ends)
    summary = [f"Bursts: {description}."]
    checks = [check_valid_runs([run], expected_failure="backlog"), check_accounted(run)]
    if burst_ends:
        summary.append(
            f"The backlog of a burst drains {max(measured):.0f} to {max(measured) + 1:.0f} s after its end."
            if all_drained
            else "The backlog of a burst does not drain before the next one."
        )
        checks.append(
            Check(
                name="backlogs drained before the next burst",
                value=len(measured),
                threshold=f"{len(burst_ends)} of {len(burst_ends)}",
                status="PASS" if all_drained else "FAIL",
            )
        )
    checks.append(check_failed_requests([run]))
    rows = [
        [
            f"{end:.0f} s",
            "–" if drain is None else f"{drain:.0f} to {drain + 1:.0f}",
            format_ms(run_window(run, end - BURST_S, end + 1).p99_us),
        ]
        for end, drain in zip(burst_ends, drains, strict=True)
    ]
    columns = ["end of burst", "drained after, s", "P99 in it, ms"]
    return ScenarioResult(
        summary=summary,
        checks=checks,
        tables=[ResultTable(title="Bursts", columns=columns, rows=rows)] if rows else [],
        panels=timeline_panels(run),
        figures={"drain_s": max(measured) if measured and all_drained else None, "capacity_rps": capacity},
    )


def drain_seconds(run: Run, end: float, burst_ends: list[float]) -> float | None:
    """Returns the whole seconds from a burst's end until a second's median is as before the first burst.

    None where that is not before the next burst.
    """
    quiet = run_window(run, 1.0, burst_ends[0] - BURST_S - 1)
    if quiet.p50_us is None:
        return None
    limit = next((other - BURST_S for other in burst_ends if other > end), run.file.duration_s)
    for after in range(math.ceil(limit - end)):
        second = run_window(run, end + after - 0.6, end + after + 1.6)
        if second.p50_us is not None and second.p50_us <= DRAINED_FACTOR * quiet.p50_us:
            return float(after)
    return None


def _trace_length_s(path: Path) -> float:
    try:
        with path.open(newline="") as file:
            length = max(float(row["arrival_s"]) for row in csv.DictReader(file))
        if not 0 <= length < math.inf:
            raise ValueError
        return length
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"--trace {path}: expected a CSV file with a column arrival_s") from None
