"""Searches for the highest rate within an SLO, and steps up to saturation, as a loop over probes."""

from loadgen.search._early_stop import EarlyStop
from loadgen.search._rate_search import ProbeLog, RateSearch, SearchOutcome

__all__ = ["EarlyStop", "ProbeLog", "RateSearch", "SearchOutcome"]
