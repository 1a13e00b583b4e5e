"""HDR histograms and their encoding, intervals, SLO verdicts, tests of arrivals."""

from capacity.statistics.check import Check, CheckStatus
from capacity.statistics.histogram import Histogram, percentile_rank
from capacity.statistics.intervals import (
    CONFIDENCE,
    SAMPLES_PER_DEGREE,
    effective_samples,
    mean_interval_us,
    percentile_interval_us,
    samples_needed,
)
from capacity.statistics.payload import BUCKET_COUNT, BUCKET_FLOORS_US, HIGHEST_US
from capacity.statistics.slo import Slo
from capacity.statistics.stationarity import estimate_autocorrelation_time
from capacity.statistics.validity import (
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
)
from capacity.statistics.verdict import Verdict, VerdictStatus, judge_slo

__all__ = [
    "BUCKET_COUNT",
    "BUCKET_FLOORS_US",
    "CONFIDENCE",
    "HIGHEST_US",
    "SAMPLES_PER_DEGREE",
    "Check",
    "CheckStatus",
    "Histogram",
    "Slo",
    "Verdict",
    "VerdictStatus",
    "check_backlog",
    "check_enough_samples",
    "check_generator_processor",
    "check_independent_samples",
    "check_lateness",
    "check_littles_law",
    "check_loop_lag",
    "check_offered_rate",
    "check_planned_arrivals",
    "check_range",
    "check_sent_arrivals",
    "check_unsent",
    "check_warm_up",
    "effective_samples",
    "estimate_autocorrelation_time",
    "judge_slo",
    "mean_interval_us",
    "percentile_interval_us",
    "percentile_rank",
    "samples_needed",
]
