"""Histograms, confidence intervals, autocorrelation, SLO verdicts, and checks of a run."""

from capacity.statistics.arrivals import anderson_darling_test, poisson_deviation
from capacity.statistics.check import Check, CheckStatus
from capacity.statistics.histogram import Histogram, percentile_rank
from capacity.statistics.intervals import (
    CONFIDENCE,
    SAMPLES_PER_DEGREE,
    early_stopping_samples,
    effective_samples,
    mean_interval_us,
    percentile_interval_us,
    samples_needed,
)
from capacity.statistics.payload import BUCKET_COUNT, BUCKET_FLOORS_US, HIGHEST_US
from capacity.statistics.slo import Slo
from capacity.statistics.stationarity import Values, estimate_autocorrelation_time, quarter_means, warm_up_cut
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
    "Values",
    "Verdict",
    "VerdictStatus",
    "anderson_darling_test",
    "early_stopping_samples",
    "effective_samples",
    "estimate_autocorrelation_time",
    "judge_slo",
    "mean_interval_us",
    "percentile_interval_us",
    "percentile_rank",
    "poisson_deviation",
    "quarter_means",
    "samples_needed",
    "warm_up_cut",
]
