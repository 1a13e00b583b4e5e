"""What operators need of a worker: counters, histograms, metrics page, telemetry, log, TLS and tokens."""

from worker.operations.counters import Counters, Duration
from worker.operations.histograms import DIGITS, HIGHEST_US, LOWEST_US, Histogram
from worker.operations.host import host_type, process_peak_bytes, product_version, runtime_versions
from worker.operations.log import LOG_LEVELS, configure_log, log_info, log_warning
from worker.operations.metrics_page import render_metrics, serve_metrics
from worker.operations.security import Security
from worker.operations.telemetry import Telemetry

__all__ = [
    "DIGITS",
    "HIGHEST_US",
    "LOG_LEVELS",
    "LOWEST_US",
    "Counters",
    "Duration",
    "Histogram",
    "Security",
    "Telemetry",
    "configure_log",
    "host_type",
    "log_info",
    "log_warning",
    "process_peak_bytes",
    "product_version",
    "render_metrics",
    "runtime_versions",
    "serve_metrics",
]
