"""burst: a square wave of load, or a trace; how long a backlog takes to drain."""

from __future__ import annotations

import csv
import math
from itertools import pairwise
from typing import Any

import numpy as np

from capacity.experiments.stress.figures import accounted, course_panels, ms, valid, window
from capacity.experiments.stress.findings import Table
from capacity.experiments.stress.setup import Bench, throughput
from capacity.rundir import Run
from capacity.statistics import Check

#: Shares of capacity between bursts and in them, their lengths, and how many unless --for says it.
BASE, PEAK = 0.4, 1.5
QUIET_S, BURST_S, BURSTS = 8.0, 3.0, 3
#: The last quiet part is longer by so much: the backlog of the last burst drains in it.
_LONGER_S = 2.0
CAPACITY_S = 6.0
#: Drained: the P90 of a second is within this many times that before the first burst.
DRAINED = 2.0
SEED = 1


def run(bench: Bench) -> dict[str, Any]:
    """Capacity first, unless a trace is given; then the bursts."""
    asked = bench.asked
    deadline = ["--deadline", "30s"]
    if asked.trace is not None:
        seconds = _length_s(asked.trace) + 5
        how = ["--arrivals", f"trace:{asked.trace}", "-u", "1", "--router", "least-outstanding", *deadline]
        bench.say(f"the trace {asked.trace}, {seconds:.0f} s")
        measured = bench.run("burst", bench.addresses, how, seconds, warmup_s=0)
        return _said(measured, [], f"{asked.trace.name}")
    number = bursts_within(asked.for_s)
    bench.say(f"capacity, {CAPACITY_S:g} s")
    capacity = throughput(bench.saturated("capacity", bench.addresses, CAPACITY_S))
    if capacity <= 0:
        raise ValueError("nothing was answered: there is no capacity to take a share of")
    peak = asked.at or PEAK
    edges, rates, at = [0.0], [], 0.0
    for _ in range(number):
        for length, share in ((QUIET_S, BASE), (BURST_S, peak)):
            at += length
            edges.append(at)
            rates.append(share * capacity)
    edges.append(at + QUIET_S + _LONGER_S)
    rates.append(BASE * capacity)
    path = asked.out / "square-wave.csv"
    with path.open("w", newline="") as file:
        file.write("arrival_s\n")
        generator = np.random.default_rng(SEED)
        for (begin, end), rate in zip(pairwise(edges), rates, strict=True):
            times = np.sort(generator.uniform(begin, end, generator.poisson(rate * (end - begin))))
            file.writelines(f"{one:.6f}\n" for one in times)
    wave = f"{BURST_S:g} s at {100 * peak:.0f} % of {capacity:.4g}"
    bench.say(f"{number} burst{'s' if number > 1 else ''} of {wave}, {100 * BASE:.0f} % between them")
    how = ["--arrivals", f"trace:{path}", "-u", "1", "--router", "least-outstanding", *deadline]
    measured = bench.run("burst", bench.addresses, how, edges[-1], warmup_s=0)
    ends = [edges[2 * n + 2] for n in range(number)]
    return _said(measured, ends, wave, capacity)


def bursts_within(for_s: float | None) -> int:
    """How many have room in so many seconds."""
    if for_s is None:
        return BURSTS
    number = int((for_s - QUIET_S - _LONGER_S) // (QUIET_S + BURST_S))
    if number < 1:
        raise ValueError(
            f"--for {for_s:g}s has no room for a burst: {QUIET_S:g} s before it, {BURST_S:g} s of it and "
            f"{QUIET_S + _LONGER_S:g} s to drain are {2 * QUIET_S + BURST_S + _LONGER_S:g}s"
        )
    return number


def _said(measured: Run, ends: list[float], what: str, capacity: float | None = None) -> dict[str, Any]:
    drains = [drained_s(measured, end, ends) for end in ends]
    known = [drain for drain in drains if drain is not None]
    sentences = [f"Bursts: {what}."]
    checks = [valid([measured], meant="backlog"), accounted(measured)]
    if ends:
        worst = (
            f"{max(known):.0f} to {max(known) + 1:.0f} s" if len(known) == len(ends) else "not before the next burst"
        )
        sentences.append(f"A backlog drains in {worst} after its burst, to a second.")
        checks.append(
            Check(
                name="backlogs drained before the next burst",
                value=len(known),
                threshold=f"{len(ends)} of {len(ends)}",
                status="PASS" if len(known) == len(ends) else "FAIL",
            )
        )
    failed = sum(sum(row.errors.values()) + row.unsent for row in measured.file.rows)
    checks.append(Check(name="failed requests", value=failed, threshold="0", status="WARN" if failed else "PASS"))
    rows = [
        [
            f"{end:.0f} s",
            "–" if drain is None else f"{drain:.0f} to {drain + 1:.0f}",
            ms(window(measured, end - BURST_S, end + 1).p99_us),
        ]
        for end, drain in zip(ends, drains, strict=True)
    ]
    return {
        "sentences": sentences,
        "checks": checks,
        "tables": [Table(title="Bursts", columns=["end of burst", "drained after, s", "P99 in it, ms"], rows=rows)]
        if rows
        else [],
        "panels": course_panels(measured),
        "figures": {"drain_s": max(known) if known and len(known) == len(ends) else None, "capacity_rps": capacity},
    }


def drained_s(measured: Run, end: float, ends: list[float]) -> float | None:
    """Whole seconds from a burst's end until a second's median is back; None where it is not before the next burst."""
    quiet = window(measured, 1.0, ends[0] - BURST_S - 1)
    if quiet.p50_us is None:
        return None
    limit = next((other - BURST_S for other in ends if other > end), measured.file.duration_s)
    for after in range(math.ceil(limit - end)):
        second = window(measured, end + after - 0.6, end + after + 1.6)
        if second.p50_us is not None and second.p50_us <= DRAINED * quiet.p50_us:
            return float(after)
    return None


def _length_s(path: Any) -> float:
    try:
        with path.open(newline="") as file:
            length = max(float(row["arrival_s"]) for row in csv.DictReader(file))
        if not 0 <= length < math.inf:
            raise ValueError
        return length
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"--trace {path}: a CSV with a column arrival_s is needed") from None
