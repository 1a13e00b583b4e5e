"""Run directories: run.json, run.hlog, telemetry.csv, and the logs of generators."""

from capacity.rundir.generator_log import (
    PROGRESS_NAME,
    EmptyLogError,
    GeneratorLog,
    GeneratorLogEnd,
    GeneratorLogEntry,
    GeneratorLogHeader,
    GeneratorLogWriter,
    RunDescription,
)
from capacity.rundir.interval_log import (
    Interval,
    IntervalLogWriter,
    interval_log_extent,
    parse_series_tag,
    read_interval_log,
    series_tag,
)
from capacity.rundir.json_file import read_json_file, write_json_file
from capacity.rundir.row import (
    CostPer100k,
    Measure,
    Row,
    Saturation,
    SloRate,
    judge_row,
    summarize_histogram,
    without_price,
)
from capacity.rundir.run import HLOG_NAME, Run
from capacity.rundir.run_file import JSON_NAME, Probe, RunFile, SearchResult, TargetEvent, TargetInfo
from capacity.rundir.summary import build_run_file, pooled_autocorrelation_time
from capacity.rundir.telemetry import (
    TELEMETRY_MEASURES,
    TELEMETRY_NAME,
    TelemetryReading,
    TelemetryWriter,
    joules_per_inference,
)
from capacity.rundir.timeline import Timeline, WindowStatistics

__all__ = [
    "HLOG_NAME",
    "JSON_NAME",
    "PROGRESS_NAME",
    "TELEMETRY_MEASURES",
    "TELEMETRY_NAME",
    "CostPer100k",
    "EmptyLogError",
    "GeneratorLog",
    "GeneratorLogEnd",
    "GeneratorLogEntry",
    "GeneratorLogHeader",
    "GeneratorLogWriter",
    "Interval",
    "IntervalLogWriter",
    "Measure",
    "Probe",
    "Row",
    "Run",
    "RunDescription",
    "RunFile",
    "Saturation",
    "SearchResult",
    "SloRate",
    "TargetEvent",
    "TargetInfo",
    "TelemetryReading",
    "TelemetryWriter",
    "Timeline",
    "WindowStatistics",
    "build_run_file",
    "interval_log_extent",
    "joules_per_inference",
    "judge_row",
    "parse_series_tag",
    "pooled_autocorrelation_time",
    "read_interval_log",
    "read_json_file",
    "series_tag",
    "summarize_histogram",
    "without_price",
    "write_json_file",
]
