"""The scenarios of stress tests, one module each."""

from capacity.experiments.stress.scenarios.loss import FAULTS
from capacity.experiments.stress.scenarios.registry import SCENARIOS, run_scenario

__all__ = ["FAULTS", "SCENARIOS", "run_scenario"]
