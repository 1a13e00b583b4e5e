"""Comparison of two runs, and of the targets of one pool."""

from capacity.comparison.ordinal_pool import OrdinalPool, ordinal_pools
from capacity.comparison.run_comparison import ChangeLimit, compare_runs, differing_conditions
from capacity.comparison.target_skew import TargetSkew, target_skews

__all__ = [
    "ChangeLimit",
    "OrdinalPool",
    "TargetSkew",
    "compare_runs",
    "differing_conditions",
    "ordinal_pools",
    "target_skews",
]
