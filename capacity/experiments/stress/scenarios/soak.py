"""soak: hours at a share of capacity; drift of latency, leaks, and capacity at the end against that at the start."""

from __future__ import annotations

from capacity.experiments import RunningLoad
from capacity.experiments.stress import (
    WARMUP_S,
    ChartPanel,
    ProcessMonitor,
    ResultTable,
    RunWindow,
    ScenarioResult,
    StressEnvironment,
    check_accounted,
    check_growth,
    check_valid_runs,
    format_ms,
    run_window,
    throughput,
    timeline_panels,
)
from capacity.rundir import Run
from capacity.statistics import Check
from worker.wire import display_duration

SECONDS, LOAD_SHARE = 1800.0, 0.7
#: The length of each measurement of capacity, cold and settled, in seconds.
CAPACITY_S = 15.0
#: How much the last quarter's P99 may exceed the first's, and settled capacity fall below cold.
MAX_P99_GROWTH, MAX_CAPACITY_LOSS = 0.25, 0.05
_PARTS = 8


def run_soak(environment: StressEnvironment) -> ScenarioResult:
    """Measures the cold capacity, holds a share of it for long, and measures the settled capacity."""
    options = environment.options
    seconds, share = options.seconds or SECONDS, options.load_share or LOAD_SHARE
    capacity_s = min(CAPACITY_S, max(seconds / 4, 3.0))
    cold = environment.measure_capacity("cold", capacity_s)
    rate, length = share * cold, display_duration(seconds)
    environment.progress(f"{rate:.4g} requests a second, {100 * share:.0f} % of {cold:.4g}, for {length}")
    monitor = ProcessMonitor(environment.process_ids())

    def during(load: RunningLoad) -> None:
        monitor.follow(load, WARMUP_S + seconds)

    with monitor:
        run = environment.run_open("soak", rate, seconds, during=during)
    environment.progress(f"settled capacity, {display_duration(capacity_s)}")
    settled = throughput(environment.run_saturated("settled", environment.addresses, capacity_s))
    duration_s = run.file.duration_s
    first, last = run_window(run, 0.0, duration_s / 4), run_window(run, 0.75 * duration_s, duration_s)
    checks = [
        check_valid_runs(environment.runs),
        check_accounted(run),
        Check(
            name="settled capacity against cold",
            value=f"{100 * (settled / cold - 1):+.1f} %",
            threshold=f"at least -{100 * MAX_CAPACITY_LOSS:.0f} %",
            status="PASS" if settled >= (1 - MAX_CAPACITY_LOSS) * cold else "FAIL",
        ),
        *_check_drift(first, last),
    ]
    for name, samples in monitor.samples.items():
        checks += check_growth(name, samples)
    failed = "; ".join(f"{check.name} {check.value}" for check in checks if check.status == "FAIL")
    return ScenarioResult(
        summary=[
            f"After {length} at {100 * share:.0f} % of capacity, the settled capacity is {settled:.4g} requests a "
            f"second, the cold one was {cold:.4g}. "
            + (f"Not steady: {failed}." if failed else "Nothing drifts and nothing leaks.")
        ],
        checks=checks,
        tables=[_table(run)],
        panels=[*timeline_panels(run), monitor.memory_panel(), *_clock_panels(monitor)],
        figures={
            "cold_rps": cold,
            "settled_rps": settled,
            "offered_rps": rate,
            "p99_first_us": first.p99_us,
            "p99_last_us": last.p99_us,
        },
    )


def _table(run: Run) -> ResultTable:
    length_s = run.file.duration_s / _PARTS
    windows = [run_window(run, length_s * n, length_s * (n + 1)) for n in range(_PARTS)]
    rows = [
        [
            f"{window.from_s:.0f} to {window.to_s:.0f} s",
            f"{window.answered_rps:.4g}",
            str(window.failed),
            format_ms(window.p50_us),
            format_ms(window.p99_us),
        ]
        for window in windows
    ]
    columns = ["when", "answered /s", "failed", "P50, ms", "P99, ms"]
    return ResultTable(title="The run in eighths", columns=columns, rows=rows)


def _clock_panels(monitor: ProcessMonitor) -> list[ChartPanel]:
    if not monitor.clocks_mhz:
        return []
    begin = monitor.clocks_mhz[0][0]
    curve = [(at - begin, mhz) for at, mhz in monitor.clocks_mhz]
    return [ChartPanel(title="Processor clock, MHz", curves={"clock": curve})]


def _check_drift(first: RunWindow, last: RunWindow) -> list[Check]:
    """Checks P99 of the last quarter against the first; it fails where even the near ends of both intervals do."""
    if first.p99_us is None or last.p99_us is None:
        return []
    before, after = first.p99_interval, last.p99_interval
    significant = False
    if before is not None and after is not None and before[1] is not None:
        significant = after[0] > (1 + MAX_P99_GROWTH) * before[1]
    return [
        Check(
            name="P99 of the last quarter against the first",
            value=f"{100 * (last.p99_us / first.p99_us - 1):+.1f} %",
            threshold=f"at most +{100 * MAX_P99_GROWTH:.0f} % beyond chance",
            status="FAIL" if significant else "PASS",
        )
    ]
