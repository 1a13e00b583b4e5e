"""The scenarios by name, and running one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType

from capacity.experiments.stress import (
    ScenarioResult,
    StressEnvironment,
    StressOptions,
    StressResult,
    stress_environment,
)
from capacity.experiments.stress.scenarios.burst import run_burst
from capacity.experiments.stress.scenarios.interference import run_interference
from capacity.experiments.stress.scenarios.loss import run_loss
from capacity.experiments.stress.scenarios.overload import run_overload
from capacity.experiments.stress.scenarios.skew import run_skew
from capacity.experiments.stress.scenarios.soak import run_soak

SCENARIOS: Mapping[str, Callable[[StressEnvironment], ScenarioResult]] = MappingProxyType(
    {
        "interference": run_interference,
        "skew": run_skew,
        "soak": run_soak,
        "loss": run_loss,
        "burst": run_burst,
        "overload": run_overload,
    }
)


def run_scenario(options: StressOptions, started: datetime, progress: Callable[[str], None]) -> StressResult:
    """Starts the workers where the options name accelerators, runs the scenario, and returns its result.

    Raises InputError where the scenario cannot run with these options, and LaunchError where a process fails.
    """
    overload = ("--max-queue-size", str(options.max_queue_size)) if options.scenario == "overload" else ()
    with stress_environment(options, progress, *overload) as environment:
        result = SCENARIOS[options.scenario](environment)
    rows = [row for run in environment.runs for row in run.file.rows]
    # The conditions are those of the scenario's own run: shorter ones beside it measure capacity.
    longest = max(reversed(environment.runs), key=lambda run: run.file.duration_s, default=None)
    return StressResult(
        **dict(result),
        scenario=options.scenario,
        started=started,
        command=options.command,
        simulated=any(row.simulated for row in rows),
        conditions={
            "hardware": ", ".join(sorted({row.hardware for row in rows})),
            "model": ", ".join(sorted({row.model for row in rows})),
            "in flight to saturate": f"{options.in_flight} on each ordinal",
            **(longest.file.conditions if longest else {}),
        },
        runs=[run.name for run in environment.runs],
    )
