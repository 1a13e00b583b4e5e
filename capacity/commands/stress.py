"""`stress SCENARIO`: starts the workers, runs the scenario, and writes its result."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from capacity.errors import InputError
from capacity.experiments.stress import STRESS_NAME, StressOptions
from capacity.experiments.stress.scenarios import FAULTS, SCENARIOS, run_scenario
from capacity.reporting import print_stress_result, wide_console, write_stress_page
from capacity.statistics import Slo
from worker.wire import parse_duration_ns

#: Parameters that only some scenarios use: their options, and the scenarios.
_SCENARIO_OPTIONS = {
    "at": ("--at", ("soak", "loss", "burst", "overload")),
    "fault": ("--fault", ("loss",)),
    "fault_ordinal": ("--fault-ordinal", ("loss",)),
    "trace": ("--trace", ("burst",)),
    "max_queue_size": ("--max-queue-size", ("overload",)),
}
#: Options that apply only to workers that are started here.
_FLEET_OPTIONS = ("model", "sim", "sim_coupling", "worker")
_MAX_LOAD_SHARE = 10


def stress_command(
    context: typer.Context,
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help=", ".join(SCENARIOS), show_default=False)],
    accelerators: Annotated[str, typer.Option(help="start workers on these ordinals, such as cpu:0,cpu:1")] = "",
    model: Annotated[Path | None, typer.Option(help="the TorchScript file that they serve")] = None,
    targets: Annotated[str, typer.Option(help="load existing workers: A,B or @T.json")] = "",
    sim: Annotated[str, typer.Option(help="simulation of sim ordinals, such as lognormal:10ms,0.1")] = "",
    sim_coupling: Annotated[
        str, typer.Option(help="what each busy sibling costs a sim ordinal: a share such as 0.1, or a file")
    ] = "",
    worker: Annotated[
        list[str] | None, typer.Option(help="one more argument of worker fleet; repeatable", metavar="ARG")
    ] = None,
    load: Annotated[
        list[str] | None, typer.Option(help="one more argument of locust -f loadgen/; repeatable", metavar="ARG")
    ] = None,
    slo: Annotated[str, typer.Option(help="such as p99=50ms: also simulates the rates within it")] = "",
    for_: Annotated[
        str, typer.Option("--for", help="length of the scenario's run, such as 30m (default: its own)")
    ] = "",
    at: Annotated[str, typer.Option(help="offered rate as a share of capacity, such as 70% (default: its own)")] = "",
    in_flight: Annotated[int, typer.Option(min=1, help="requests in flight that saturate an ordinal")] = 2,
    deadline: Annotated[str, typer.Option(help="a request without a reply by then fails")] = "2s",
    fault: Annotated[str, typer.Option("--fault", "--how", help=f"loss: {', '.join(FAULTS)}")] = "kill",
    fault_ordinal: Annotated[
        str, typer.Option("--fault-ordinal", "--hurt", help="loss: which ordinal (default: the first)")
    ] = "",
    trace: Annotated[Path | None, typer.Option(help="burst: arrivals to play instead of a square wave")] = None,
    max_queue_size: Annotated[int, typer.Option(min=1, help="overload: requests that may wait at each worker")] = 16,
    out: Annotated[Path | None, typer.Option(help="a new directory (default: stress/SCENARIO-TIME)")] = None,
) -> None:
    """Puts a whole machine under stress in one of six scenarios; exit code 1 where a check fails."""
    if scenario not in SCENARIOS:
        raise InputError(f"unknown scenario '{scenario}' (choose {', '.join(SCENARIOS)})")
    _check_applicable(context, scenario)
    if fault not in FAULTS:
        raise InputError(f"--fault {fault}: unknown fault (choose {', '.join(FAULTS)})")
    started = datetime.now(UTC)
    directory = out or Path("stress") / f"{scenario}-{started.astimezone():%Y%m%d-%H%M%S}"
    if (directory / STRESS_NAME).exists():
        raise InputError(f"{directory} already holds a {STRESS_NAME}: choose another directory")
    options = StressOptions(
        scenario=scenario,
        command=["inferload", *sys.argv[1:]],
        out=directory,
        accelerators=accelerators,
        targets=targets,
        worker_arguments=_worker_arguments(model, sim, sim_coupling, worker or []),
        load_arguments=load or [],
        slo=Slo.parse(slo) if slo else None,
        seconds=parse_duration_ns(for_) / 1e9 if for_ else None,
        load_share=_load_share(at),
        in_flight=in_flight,
        deadline=deadline,
        fault=fault,
        fault_ordinal=fault_ordinal,
        trace=trace,
        max_queue_size=max_queue_size,
    )
    result = run_scenario(options, started, _print_progress)
    result.save(directory)
    page = write_stress_page(result, directory)
    console = wide_console()
    print_stress_result(result, console)
    console.print(f"\nreport: {page}", soft_wrap=True, highlight=False)
    if not result.passed:
        raise typer.Exit(1)


def _check_applicable(context: typer.Context, scenario: str) -> None:
    """Raises InputError for an option on the command line that would have no effect."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    named = {name for name, source in sources.items() if source is not None and source.name != "DEFAULT"}
    for name in sorted(named & set(_SCENARIO_OPTIONS)):
        option, scenarios = _SCENARIO_OPTIONS[name]
        if scenario not in scenarios:
            raise InputError(f"{option} is for {', '.join(scenarios)}, not for {scenario}")
    if "targets" in named and (unused := sorted(named & set(_FLEET_OPTIONS))):
        option = f"--{unused[0].replace('_', '-')}"
        raise InputError(f"{option} is for workers that --accelerators starts; those of --targets exist already")
    if "trace" in named and named & {"for_", "at"}:
        raise InputError("--for and --at are for the square wave: a trace has its own length and rate")


def _worker_arguments(model: Path | None, sim: str, coupling: str, more: Sequence[str]) -> list[str]:
    arguments = [str(model)] if model else []
    arguments += ["--sim", sim] if sim else []
    arguments += ["--sim-coupling", coupling] if coupling else []
    return [*arguments, *more]


def _load_share(text: str) -> float | None:
    if not text:
        return None
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= _MAX_LOAD_SHARE:
        raise InputError(f"--at {text}: expected a share of capacity such as 70% or 1.5")
    return share


def _print_progress(line: str) -> None:
    print(f"stress: {line}", file=sys.stderr, flush=True)
