"""What is counted: series, tallies, and their encoding."""

from capacity.measures.combination import HardwareCombination
from capacity.measures.tally import (
    HISTOGRAMS,
    LATENCY_ERROR,
    MEASURES,
    OFFERED,
    TARGET_MEASURES,
    UNSENT,
    Series,
    Tally,
    checked_count,
    is_measure,
    is_target_measure,
    pass_measure,
    pass_rows,
)

__all__ = [
    "HISTOGRAMS",
    "LATENCY_ERROR",
    "MEASURES",
    "OFFERED",
    "TARGET_MEASURES",
    "UNSENT",
    "HardwareCombination",
    "Series",
    "Tally",
    "checked_count",
    "is_measure",
    "is_target_measure",
    "pass_measure",
    "pass_rows",
]
