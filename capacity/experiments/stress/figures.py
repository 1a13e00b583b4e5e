"""Figures that several scenarios need: windows of a run, ratios with their intervals, growth of a process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from capacity.experiments.stress.findings import Drawn, Estimate
from capacity.experiments.stress.setup import Sample
from capacity.measures import LATENCY_ERROR
from capacity.rundir import HLOG_NAME, Measure, Row, Run, parse_series_tag, read_interval_log
from capacity.statistics import (
    CONFIDENCE,
    Check,
    Histogram,
    estimate_autocorrelation_time,
    percentile_interval_us,
    samples_needed,
)

#: What a process may hold more at the end than after its first quarter, and still count as flat.
GROWTH_SHARE, GROWTH_BYTES = 0.05, 8 * 2**20
#: gRPC and gevent open and close a few of these as they go.
GROWTH_DESCRIPTORS, GROWTH_THREADS = 8, 4
#: Stretches of time that an interval needs.
_FEWEST_BLOCKS = 8


@dataclass(frozen=True)
class Window:
    """What a run's log says of a stretch of time, in seconds since measuring began; failures count as beyond."""

    from_s: float
    to_s: float
    covered_s: float
    answered: int
    failed: int
    p50_us: float | None
    p99_us: float | None
    p99_interval: tuple[float, float | None] | None = None

    @property
    def goodput_rps(self) -> float:
        """Answered requests a second."""
        return self.answered / self.covered_s if self.covered_s > 0 else 0.0


def window(run: Run, from_s: float, to_s: float) -> Window:
    """The log's whole intervals between two times; the log has one a second."""
    start = run.measured_from_s
    answered, failed, spans = Histogram(), 0, set()
    for interval in read_interval_log(run.directory / HLOG_NAME):
        begin, end = interval.start_s - start, interval.start_s + interval.length_s - start
        measure = parse_series_tag(interval.tag)[1]
        if begin < from_s - 0.01 or end > to_s + 0.01 or measure not in ("latency", LATENCY_ERROR):
            continue
        spans.add((begin, end))
        if measure == "latency":
            answered.add(interval.histogram)
        else:
            failed += interval.histogram.count
    total = answered.count + failed

    def percentile(p: float) -> float | None:
        return answered.percentile_us(p, failed) if total >= samples_needed(p) else None

    covered = sum(end - begin for begin, end in spans)
    # The rows' own dependence: of the whole run, as a stretch is too short to tell its own.
    dependence = max((row.autocorrelation_time for row in run.file.rows), default=1.0)
    ends = percentile_interval_us(answered, 99, failed, dependence)
    return Window(from_s, to_s, covered, answered.count, failed, percentile(50), percentile(99), ends)


def ordinal_row(run: Run, address: str) -> Row:
    """The row of one worker by its address; ValueError where the run has none."""
    for row in run.file.target_rows:
        if row.target is not None and (row.target == address or row.target.endswith(f" @ {address}")):
            return row
    raise ValueError(f"{run.directory} has no row of {address}")


def mean_ratio(later: Measure, before: Measure) -> Estimate:
    """How much longer a mean is, as a share, with the interval of two independent runs; null where one has none."""
    if not later.mean or not before.mean:
        return Estimate(value=None)
    value = math.log(later.mean / before.mean)
    ends = (later.mean_interval, before.mean_interval)
    if ends[0] is None or ends[1] is None:
        return Estimate(value=math.expm1(value))
    # Standard errors add up as squares; both intervals have the same confidence.
    halves = [(e[1] - e[0]) / 2 / mean for e, mean in zip(ends, (later.mean, before.mean), strict=True) if e]
    half = math.hypot(*halves)
    return Estimate(value=math.expm1(value), low=math.expm1(value - half), high=math.expm1(value + half))


def time_ratio(later: Run, before: Run, address: str) -> Estimate:
    """How much longer one ordinal of a closed loop takes, as a share: from its mean latencies, and where those depend
    on one another too much for an interval, from what it answered in each stretch of time."""
    found = mean_ratio(ordinal_row(later, address).latency_us, ordinal_row(before, address).latency_us)
    logs = [_log_times(run, address) for run in (later, before)]
    if found.low is not None or min(one.size for one in logs) < _FEWEST_BLOCKS:
        return found
    value = float(logs[0].mean() - logs[1].mean())
    counts = [max(one.size / estimate_autocorrelation_time(one), 2.0) for one in logs]
    error = math.sqrt(sum(float(one.var(ddof=1)) / n for one, n in zip(logs, counts, strict=True)))
    half = float(stdtrit(min(counts) - 1, (1 + CONFIDENCE) / 2)) * error
    return Estimate(value=math.expm1(value), low=math.expm1(value - half), high=math.expm1(value + half))


def _log_times(run: Run, address: str) -> NDArray[np.float64]:
    """Logarithm of the time between one ordinal's answers in each stretch of the run, shape (stretches,)."""
    row, course = ordinal_row(run, address), run.timeline
    members = run.members(row)
    if course is None or not members:
        return np.empty(0)
    counts = sum((course.total(series, "latency") for series in members), np.zeros(course.number))
    whole = (counts > 0) & (course.covered_s > 0)
    times: NDArray[np.float64] = np.log(course.covered_s[whole] / counts[whole])
    return times


def p99_ratio(later: Measure, before: Measure) -> Estimate:
    """How much larger a P99 is, as a share; its interval from both order statistics' intervals."""
    if not later.p99 or not before.p99:
        return Estimate(value=None)
    value = math.log(later.p99 / before.p99)
    a, b = later.p99_interval, before.p99_interval
    if a is None or b is None or a[1] is None or b[1] is None or min(a[0], b[0]) <= 0:
        return Estimate(value=math.expm1(value))
    down = math.hypot(math.log(later.p99 / a[0]), math.log(b[1] / before.p99))
    up = math.hypot(math.log(a[1] / later.p99), math.log(before.p99 / b[0]))
    return Estimate(value=math.expm1(value), low=math.expm1(value - down), high=math.expm1(value + up))


def share(estimate: Estimate) -> str:
    """`+3.2 % (1.0 to 5.4)`."""
    if estimate.value is None:
        return "too few samples"
    ends = ""
    if estimate.low is not None and estimate.high is not None:
        ends = f" ({100 * estimate.low:+.1f} to {100 * estimate.high:+.1f})"
    return f"{100 * estimate.value:+.1f} %{ends}"


def ms(us: float | None) -> str:
    """Milliseconds for a table."""
    return "–" if us is None else f"{us / 1000:.4g}"


def flat(name: str, samples: Sequence[Sample]) -> list[Check]:
    """Whether a process holds no more at its end than after its first quarter: memory, descriptors, threads."""
    if len(samples) < 8:
        return []
    settled = samples[len(samples) // 4 :]
    quarter = max(len(settled) // 4, 1)
    first, last = settled[:quarter], settled[-quarter:]

    def grown(of: int) -> tuple[float, float]:
        return float(np.median([one[of] for one in first])), float(np.median([one[of] for one in last]))

    def words(of: int, value: float) -> str:
        return f"{value / 2**20:.1f} MiB" if of == 1 else f"{value:.0f}"

    checks = []
    for what, of, allowed in (
        ("memory", 1, max(GROWTH_BYTES, GROWTH_SHARE * grown(1)[0])),
        ("file descriptors", 2, float(GROWTH_DESCRIPTORS)),
        ("threads", 3, float(GROWTH_THREADS)),
    ):
        begin, end = grown(of)
        checks.append(
            Check(
                name=f"{what} of {name}",
                value=f"{words(of, begin)} to {words(of, end)}",
                threshold=f"grows by at most {words(of, allowed)}",
                status="PASS" if end - begin <= allowed else "FAIL",
            )
        )
    return checks


def memory_panel(samples: dict[str, list[Sample]], begin: float) -> Drawn:
    """Resident memory of each process over time."""
    curves = {
        name: [(one.at - begin, one.rss_bytes / 2**20) for one in found] for name, found in samples.items() if found
    }
    return Drawn(heading="Resident memory, MiB", curves=curves)


def course_panels(run: Run) -> list[Drawn]:
    """P90 and answers a second over the run, all ordinals together."""
    if run.timeline is None:
        return []
    members = [series for row in run.file.rows for series in run.members(row)]
    lines = run.timeline.lines(members)
    p90 = [(s, us / 1000) for s, us in zip(lines.seconds.tolist(), lines.percentiles_us[90.0].tolist(), strict=True)]
    p50 = [(s, us / 1000) for s, us in zip(lines.seconds.tolist(), lines.percentiles_us[50.0].tolist(), strict=True)]
    answered = list(zip(lines.seconds.tolist(), lines.answered.tolist(), strict=True))
    failed = list(zip(lines.seconds.tolist(), lines.failed.tolist(), strict=True))

    def known(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(s, value) for s, value in points if math.isfinite(value)]

    panels = [
        Drawn(heading="Latency, ms: P90 and P50", curves={"P90": known(p90), "P50": known(p50)}),
        Drawn(heading="Answered a second", curves={"answered": known(answered)}),
    ]
    if any(value for _, value in failed):
        panels.append(Drawn(heading="Errors a second", curves={"errors": known(failed)}))
    return panels


def valid(runs: Sequence[Run], meant: str = "") -> Check:
    """Whether every run is a result about the hardware; a check whose name has `meant` fails by design."""
    failed = [(run, [check for check in run.file.failures if not meant or meant not in check.name]) for run in runs]
    bad = [f"{run.name}: {check.name} {check.value}" for run, found in failed for check in found]
    by_design = any(len(run.file.failures) > len(found) for run, found in failed)
    return Check(
        name="valid runs",
        value=f"{sum(not found for _, found in failed)}{f', but for the {meant}' if by_design else ''}",
        threshold=f"{len(runs)} of {len(runs)}{f'; a {meant} is meant' if by_design else ''}",
        status="FAIL" if bad else "PASS",
        detail="; ".join(bad)[:400],
    )


def accounted(run: Run) -> Check:
    """answered + failed + unsent = due, exactly, of each row."""
    off = [row for row in run.file.rows if row.answered + sum(row.errors.values()) + row.unsent != row.due]
    due = sum(row.due for row in run.file.rows)
    said = ", ".join(f"{sum(row.errors.values())} failed" for row in run.file.rows)
    return Check(
        name="every request accounted for",
        value=f"{sum(row.answered for row in run.file.rows)} answered, {said}, "
        f"{sum(row.unsent for row in run.file.rows)} unsent",
        threshold=f"{due} due",
        status="FAIL" if off else "PASS",
    )
