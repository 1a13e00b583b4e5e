"""Making one run directory from several runs, or from the logs of one run's generators."""

from capacity.merging.merge import merge_runs
from capacity.merging.recovery import find_generator_logs, recover_run

__all__ = [
    "find_generator_logs",
    "merge_runs",
    "recover_run",
]
