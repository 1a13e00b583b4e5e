"""Stress tests: the environment of a scenario, what is measured in it, and the result."""

from capacity.experiments.stress.checks import (
    check_accounted,
    check_failed_requests,
    check_valid_runs,
    count_errors,
    format_errors,
)
from capacity.experiments.stress.environment import (
    WARMUP_S,
    StressEnvironment,
    StressOptions,
    stress_environment,
    throughput,
)
from capacity.experiments.stress.process_monitor import ProcessMonitor, ProcessSample, check_growth
from capacity.experiments.stress.ratios import (
    format_ms,
    format_share,
    mean_growth,
    p99_growth,
    target_row,
    time_growth,
)
from capacity.experiments.stress.result import (
    STRESS_NAME,
    TOGETHER,
    ChartPanel,
    Estimate,
    Interference,
    NeighbourCost,
    OrdinalInterference,
    ResultTable,
    ScenarioResult,
    StressResult,
    TargetMark,
)
from capacity.experiments.stress.run_windows import RunWindow, run_window, timeline_panels

__all__ = [
    "STRESS_NAME",
    "TOGETHER",
    "WARMUP_S",
    "ChartPanel",
    "Estimate",
    "Interference",
    "NeighbourCost",
    "OrdinalInterference",
    "ProcessMonitor",
    "ProcessSample",
    "ResultTable",
    "RunWindow",
    "ScenarioResult",
    "StressEnvironment",
    "StressOptions",
    "StressResult",
    "TargetMark",
    "check_accounted",
    "check_failed_requests",
    "check_growth",
    "check_valid_runs",
    "count_errors",
    "format_errors",
    "format_ms",
    "format_share",
    "mean_growth",
    "p99_growth",
    "run_window",
    "stress_environment",
    "target_row",
    "throughput",
    "time_growth",
    "timeline_panels",
]
