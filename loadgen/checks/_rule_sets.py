"""Which rules apply to a run, to a run that goes on, and to a probe.

A new check is a function and its name in RULES of the module that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable

from capacity.statistics import Check
from loadgen._options import Options
from loadgen.checks import _completeness, _generator, _samples, _schedule, _steady_state
from loadgen.checks._check_input import CheckInput, Rule
from loadgen.measure import RunTotals

_RUN_RULES: tuple[Rule, ...] = (
    *_completeness.RULES,
    *_generator.RULES,
    *_schedule.RULES,
    *_steady_state.RULES,
    *_samples.RULES,
)
_PROBE_RULES: tuple[Rule, ...] = (
    _generator.processor,
    _generator.loop_lag,
    *_schedule.PROBE_RULES,
)


def check_run(totals: RunTotals, options: Options) -> list[Check]:
    """Checks a run that ended, by its worst series or generator where there are several."""
    return _apply(_RUN_RULES, CheckInput(totals, options))


def check_running(totals: RunTotals, options: Options) -> list[Check]:
    """Checks a run that goes on: as `check_run`, but no generator has reported its end."""
    rules = [
        _completeness.present_generators if rule is _completeness.reporting_generators else rule for rule in _RUN_RULES
    ]
    return _apply(rules, CheckInput(totals, options))


def check_completeness(totals: RunTotals, options: Options) -> list[Check]:
    """Checks only whether the run is all there."""
    return _apply(_completeness.RULES, CheckInput(totals, options))


def check_probe(totals: RunTotals, options: Options) -> list[Check]:
    """Checks one probe: whether all generators reported its end, and `check_generators`."""
    return [_completeness.reporting_generators(CheckInput(totals, options)), *check_generators(totals, options)]


def check_generators(totals: RunTotals, options: Options) -> list[Check]:
    """Checks the generators in one probe. What the hardware does under too much load is no fault."""
    run = CheckInput(totals, options)
    return [_generator.allow_small_sample(check, run) for check in _apply(_PROBE_RULES, run)]


def _apply(rules: Iterable[Rule], run: CheckInput) -> list[Check]:
    return [check for rule in rules if (check := rule(run)) is not None]
