"""Checks of a run: the planned load, limits of the generators, steady state, enough samples.

FAIL: the run says nothing about the hardware. WARN: it says it with a reservation. Each rule is a function of a
CheckInput to a Check.
"""

from loadgen.checks._generator import check_generator_processor, check_lateness
from loadgen.checks._rule_sets import check_completeness, check_generators, check_probe, check_run, check_running
from loadgen.checks._schedule import check_unsent

__all__ = [
    "check_completeness",
    "check_generator_processor",
    "check_generators",
    "check_lateness",
    "check_probe",
    "check_run",
    "check_running",
    "check_unsent",
]
