"""Experiments with processes: starting fleets and load, verifying plans, stress tests."""

from capacity.experiments.fleet import RunningFleet, start_fleet
from capacity.experiments.load import RunningLoad, run_load
from capacity.experiments.processes import LaunchError, run_worker_command

__all__ = [
    "LaunchError",
    "RunningFleet",
    "RunningLoad",
    "run_load",
    "run_worker_command",
    "start_fleet",
]
