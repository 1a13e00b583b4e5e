"""skew: all ordinals under equal load, a test whether one is slower, and the telemetry of its hardware."""

from __future__ import annotations

from collections import defaultdict

import psutil

from capacity.comparison import TargetSkew, target_pools
from capacity.errors import InputError
from capacity.experiments.stress import (
    ProcessMonitor,
    ResultTable,
    ScenarioResult,
    StressEnvironment,
    check_valid_runs,
    format_ms,
    target_row,
    timeline_panels,
)
from capacity.pricing import labeled_rows
from capacity.rundir import Run, TargetInfo
from capacity.statistics import Check
from worker.wire import display_duration

SECONDS = 40.0


def run_skew(environment: StressEnvironment) -> ScenarioResult:
    """Loads all ordinals in a pinned closed loop, so that each has the same number of requests in flight."""
    seconds = environment.options.seconds or SECONDS
    if len(environment.workers) < 2:
        raise InputError("skew needs at least two ordinals")
    environment.progress(f"{len(environment.workers)} ordinals under equal load for {display_duration(seconds)}")
    with ProcessMonitor(environment.process_ids()) as monitor:
        run = environment.run_saturated("equal-load", environment.addresses, seconds)
    skews = [skew for pool in target_pools(labeled_rows([run], "combination")) for skew in pool.skews]
    slower = [skew for skew in skews if skew.slower]
    reasons = sorted({skew.reason for skew in skews if skew.reason})
    untested = bool(reasons) or not skews
    summary = [f"{skew.sentence}.{_telemetry(run, skew.target)}" for skew in slower]
    if untested:
        summary.append("; ".join(reasons) or "The ordinals were not compared: the run is not valid.")
    elif not slower:
        summary.append("None is slower than its siblings.")
    return ScenarioResult(
        summary=summary,
        checks=[
            check_valid_runs([run]),
            Check(
                name="slower ordinals",
                value=", ".join(skew.target for skew in slower) or 0,
                threshold="0",
                status="FAIL" if slower else "WARN" if untested else "PASS",
                detail="; ".join(reasons),
            ),
        ],
        tables=[_table(run, skews, monitor)],
        panels=timeline_panels(run),
        figures={skew.target: skew.slower_by for skew in skews},
    )


def _table(run: Run, skews: list[TargetSkew], monitor: ProcessMonitor) -> ResultTable:
    rows = []
    for skew in skews:
        row = target_row(run, skew.target)
        low, high = skew.interval or (None, None)
        samples = monitor.samples.get(skew.target.partition(" @ ")[0], [])
        rows.append(
            [
                skew.target,
                f"{skew.throughput_rps:.4g}",
                "–" if skew.slower_by is None else f"{100 * skew.slower_by:+.2f} %",
                "–" if low is None or high is None else f"{100 * low:+.2f} to {100 * high:+.2f} %",
                "slower" if skew.slower else "",
                format_ms(row.compute_us.p50),
                format_ms(row.latency_us.p99),
                f"{samples[-1].rss_bytes / 2**20:.0f}" if samples else "–",
            ]
        )
    columns = ["ordinal", "answered /s", "slower by", "95 % interval", "test", "compute P50, ms", "P99, ms", "MiB"]
    return ResultTable(title="Each ordinal beside its siblings", columns=columns, rows=rows)


def _telemetry(run: Run, label: str) -> str:
    """A sentence on the hardware of one ordinal: the samples of its accelerator, and the cores of a cpu ordinal."""
    target = next((target for target in run.file.targets if target.label == label), None)
    if target is None:
        return ""
    if target.simulated:
        return f" It is simulated ({target.simulation})."
    parts = [f"{measure} {sum(values) / len(values):.4g}" for measure, values in _readings(run, target).items()]
    if target.kind == "cpu" and target.cores:
        parts.append(f"cores {', '.join(map(str, target.cores))}")
        clocks = psutil.cpu_freq(percpu=True) or []
        own = [clocks[core].current for core in target.cores if core < len(clocks)]
        parts += [f"at {sum(own) / len(own):.0f} MHz"] if own and sum(own) else []
    return f" Its telemetry: {', '.join(parts)}." if parts else ""


def _readings(run: Run, target: TargetInfo) -> dict[str, list[float]]:
    """The values that the run has sampled of a target's accelerator while measuring, by measure."""
    values: dict[str, list[float]] = defaultdict(list)
    device = f"{target.kind}:{target.ordinal}"
    for sample in run.telemetry:
        reading = sample.reading
        own = reading.device == device or (target.accelerator_id and reading.id == target.accelerator_id)
        if own and sample.seconds >= run.measured_from_s:
            values[reading.measure].append(reading.value)
    return values
