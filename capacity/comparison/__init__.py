"""Two runs compared, and ordinals compared with their siblings."""

from capacity.comparison.run_comparison import ChangeLimit, compare_runs, differing_conditions
from capacity.comparison.target_skew import TargetSkew, target_skews

__all__ = [
    "ChangeLimit",
    "TargetSkew",
    "compare_runs",
    "differing_conditions",
    "target_skews",
]
