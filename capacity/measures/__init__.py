"""What is counted: hardware combinations, series, tallies, and their one encoding."""

from capacity.measures.combination import HardwareCombination
from capacity.measures.encoding import (
    SparseHistogram,
    SparseTally,
    checked_count,
    decode_counts,
    decode_tally,
    encode_counts,
    encode_tally,
    sum_tallies,
    tally_from_json,
    tally_to_json,
)
from capacity.measures.names import (
    HISTOGRAMS,
    LATENCY_ERROR,
    MEASURES,
    OFFERED,
    TARGET_MEASURES,
    UNSENT,
    is_measure,
    is_target_measure,
    pass_measure,
    pass_rows,
)
from capacity.measures.tally import Series, Tally

__all__ = [
    "HISTOGRAMS",
    "LATENCY_ERROR",
    "MEASURES",
    "OFFERED",
    "TARGET_MEASURES",
    "UNSENT",
    "HardwareCombination",
    "Series",
    "SparseHistogram",
    "SparseTally",
    "Tally",
    "checked_count",
    "decode_counts",
    "decode_tally",
    "encode_counts",
    "encode_tally",
    "is_measure",
    "is_target_measure",
    "pass_measure",
    "pass_rows",
    "sum_tallies",
    "tally_from_json",
    "tally_to_json",
]
