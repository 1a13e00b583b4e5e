"""Searching for the highest rate within an SLO: which rate to probe next, and what all probes say together."""

from capacity.search.conclusion import conclude, probe_for_row, rate_inversions
from capacity.search.next_probe import MIN_PROBE_S, NextProbe, SearchEnd, SearchStrategy
from capacity.search.probe_summary import (
    BoundShare,
    ProbeSummary,
    bound_shares,
    is_saturated,
    throughput_with_interval,
)
from capacity.search.slo_search import SloSearch
from capacity.search.step_search import StepSearch

__all__ = [
    "MIN_PROBE_S",
    "BoundShare",
    "NextProbe",
    "ProbeSummary",
    "SearchEnd",
    "SearchStrategy",
    "SloSearch",
    "StepSearch",
    "bound_shares",
    "conclude",
    "is_saturated",
    "probe_for_row",
    "rate_inversions",
    "throughput_with_interval",
]
