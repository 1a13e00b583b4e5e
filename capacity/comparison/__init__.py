"""Comparison of two runs, and of the targets of one pool."""

from capacity.comparison.run_comparison import ChangeLimit, compare_runs, differing_conditions
from capacity.comparison.target_pool import TargetPool, target_pools
from capacity.comparison.target_skew import TargetSkew, target_skews

__all__ = [
    "ChangeLimit",
    "TargetPool",
    "TargetSkew",
    "compare_runs",
    "differing_conditions",
    "target_pools",
    "target_skews",
]
