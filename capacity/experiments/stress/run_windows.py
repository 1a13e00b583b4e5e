"""Windows of a run's time, and the run over time as panels of a chart."""

from __future__ import annotations

import math
from dataclasses import dataclass

from capacity.experiments.stress.result import ChartPanel
from capacity.measures import LATENCY_ERROR
from capacity.rundir import HLOG_NAME, Run, parse_series_tag, read_interval_log
from capacity.statistics import Histogram, percentile_interval_us, samples_needed

_TOLERANCE_S = 0.01


@dataclass(frozen=True)
class RunWindow:
    """A window of a run, in seconds since measuring began, as its log has it; failed requests count as beyond all."""

    from_s: float
    to_s: float
    covered_s: float
    answered: int
    failed: int
    p50_us: float | None
    p99_us: float | None
    p99_interval: tuple[float, float | None] | None = None

    @property
    def answered_rps(self) -> float:
        """Answered requests a second."""
        return self.answered / self.covered_s if self.covered_s > 0 else 0.0


def run_window(run: Run, from_s: float, to_s: float) -> RunWindow:
    """Returns the whole intervals of the log between two times; the log has one a second."""
    start = run.measured_from_s
    answered, failed, intervals = Histogram(), 0, set()
    for interval in read_interval_log(run.directory / HLOG_NAME):
        begin, end = interval.start_s - start, interval.start_s + interval.length_s - start
        measure = parse_series_tag(interval.tag)[1]
        if begin < from_s - _TOLERANCE_S or end > to_s + _TOLERANCE_S or measure not in ("latency", LATENCY_ERROR):
            continue
        intervals.add((begin, end))
        if measure == "latency":
            answered.add(interval.histogram)
        else:
            failed += interval.histogram.count
    total = answered.count + failed

    def percentile(p: float) -> float | None:
        return answered.percentile_us(p, failed) if total >= samples_needed(p) else None

    covered = sum(end - begin for begin, end in intervals)
    # The whole run's autocorrelation time: a window is too short to estimate its own.
    autocorrelation_time = max((row.autocorrelation_time for row in run.file.rows), default=1.0)
    ends = percentile_interval_us(answered, 99, failed, autocorrelation_time)
    return RunWindow(from_s, to_s, covered, answered.count, failed, percentile(50), percentile(99), ends)


def timeline_panels(run: Run) -> list[ChartPanel]:
    """Returns panels of latency, answers and errors a second over the run, all ordinals together."""
    if run.timeline is None:
        return []
    members = [series for row in run.file.rows for series in run.members(row)]
    lines = run.timeline.statistics(members)
    seconds = lines.seconds.tolist()

    def curve(values: list[float]) -> list[tuple[float, float]]:
        return [(at, value) for at, value in zip(seconds, values, strict=True) if math.isfinite(value)]

    p90, p50 = (curve((lines.percentiles_us[p] / 1000).tolist()) for p in (90.0, 50.0))
    panels = [
        ChartPanel(title="Latency, ms: P90 and P50", curves={"P90": p90, "P50": p50}),
        ChartPanel(title="Answered a second", curves={"answered": curve(lines.answered.tolist())}),
    ]
    failed = lines.failed.tolist()
    if any(failed):
        panels.append(ChartPanel(title="Errors a second", curves={"errors": curve(failed)}))
    return panels
