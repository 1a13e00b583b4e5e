"""`python -m capacity stress SCENARIO`: starts what it needs, runs the scenario, writes its findings, ends it all."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from capacity.experiments import LaunchError
from capacity.experiments.stress import burst, interference, loss, overload, skew, soak
from capacity.experiments.stress.findings import STRESS_NAME, Stress
from capacity.experiments.stress.setup import Asked, Bench, bench
from capacity.reporting import stress_page as page
from capacity.reporting.terminal import wide_console
from capacity.statistics import Slo
from worker.wire import parse_duration_ns

SCENARIOS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "interference": interference.run,
    "skew": skew.run,
    "soak": soak.run,
    "loss": loss.run,
    "burst": burst.run,
    "overload": overload.run,
}

#: Options that only some scenarios have a use for.
_OF = {
    "at": ("soak", "loss", "burst", "overload"),
    "how": ("loss",),
    "hurt": ("loss",),
    "trace": ("burst",),
    "max_queue_size": ("overload",),
}
#: Options that workers are started with.
_OF_A_FLEET = ("model", "sim", "sim_coupling", "worker")


def stress(
    context: typer.Context,
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help=", ".join(SCENARIOS), show_default=False)],
    accelerators: Annotated[str, typer.Option(help="start workers on these ordinals, as in cpu:0,cpu:1")] = "",
    model: Annotated[Path | None, typer.Option(help="the TorchScript file that they serve")] = None,
    targets: Annotated[str, typer.Option(help="load workers that are there: A,B or @T.json")] = "",
    sim: Annotated[str, typer.Option(help="of sim ordinals, as in lognormal:10ms,0.1")] = "",
    sim_coupling: Annotated[
        str, typer.Option(help="of sim ordinals: what each busy sibling costs, 0.1 or a file")
    ] = "",
    worker: Annotated[
        list[str] | None, typer.Option(help="one more argument of python -m worker fleet; repeat", metavar="ARG")
    ] = None,
    load: Annotated[
        list[str] | None, typer.Option(help="one more argument of locust -f loadgen/; repeat", metavar="ARG")
    ] = None,
    slo: Annotated[str, typer.Option(help="such as p99=50ms: rates within it are found by simulation")] = "",
    for_: Annotated[
        str, typer.Option("--for", help="length of the scenario's run, as in 30m  [default: its own]")
    ] = "",
    at: Annotated[str, typer.Option(help="share of capacity that is offered, as in 70%  [default: its own]")] = "",
    in_flight: Annotated[int, typer.Option(min=1, help="requests in flight on each ordinal that saturate it")] = 2,
    deadline: Annotated[str, typer.Option(help="a request without an answer by then has failed")] = "2s",
    how: Annotated[str, typer.Option(help=f"loss: {', '.join(loss.HOWS)}")] = "kill",
    hurt: Annotated[str, typer.Option(help="loss: which ordinal  [default: the first]")] = "",
    trace: Annotated[Path | None, typer.Option(help="burst: arrivals to play instead of a square wave")] = None,
    max_queue_size: Annotated[int, typer.Option(min=1, help="overload: requests that may wait at each worker")] = 16,
    out: Annotated[Path | None, typer.Option(help="a new directory  [default: stress/SCENARIO-TIME]")] = None,
) -> None:
    """Puts a whole machine under stress, in one of six scenarios; exit code 1 where it does not stand it."""
    if scenario not in SCENARIOS:
        raise ValueError(f"no scenario is called {scenario}: choose one of {', '.join(SCENARIOS)}")
    _refuse_idle(context, scenario)
    if how not in loss.HOWS:
        raise ValueError(f"--how {how}: choose one of {', '.join(loss.HOWS)}")
    started = datetime.now(UTC)
    directory = out or Path("stress") / f"{scenario}-{started.astimezone():%Y%m%d-%H%M%S}"
    if (directory / STRESS_NAME).exists():
        raise ValueError(f"{directory} holds a {STRESS_NAME} already")
    asked = Asked(
        scenario=scenario,
        command=["python", "-m", "capacity", *sys.argv[1:]],
        out=directory,
        accelerators=accelerators,
        targets=targets,
        worker_arguments=_worker_arguments(model, sim, sim_coupling, worker),
        load_arguments=load or [],
        slo=Slo.parse(slo) if slo else None,
        for_s=parse_duration_ns(for_) / 1e9 if for_ else None,
        at=_share(at),
        in_flight=in_flight,
        deadline=deadline,
        how=how,
        hurt=hurt,
        trace=trace,
        max_queue_size=max_queue_size,
    )
    console = wide_console()
    found = _run(asked, started)
    found.save(directory)
    written = page.write(found, directory)
    page.show(found, console)
    console.print(f"\nreport: {written}", soft_wrap=True, highlight=False)
    if not found.passed:
        raise typer.Exit(1)


def _refuse_idle(context: typer.Context, scenario: str) -> None:
    """ValueError for an option that was given and would change nothing."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source is not None and source.name != "DEFAULT"}
    for name in sorted(given & set(_OF)):
        if scenario not in _OF[name]:
            raise ValueError(f"--{name.replace('_', '-')} is for {', '.join(_OF[name])}, not for {scenario}")
    if "targets" in given and (idle := sorted(given & set(_OF_A_FLEET))):
        raise ValueError(
            f"--{idle[0].replace('_', '-')} is for workers that are started, by --accelerators; --targets are there"
        )
    if "trace" in given and given & {"for_", "at"}:
        raise ValueError("--for and --at are for the square wave: a trace says by itself how long and how much")


def _run(asked: Asked, started: datetime) -> Stress:
    more = ("--max-queue-size", str(asked.max_queue_size)) if asked.scenario == "overload" else ()
    try:
        with bench(asked, _say, *more) as made:
            told = SCENARIOS[asked.scenario](made)
    except LaunchError as error:
        raise ValueError(str(error)) from None
    rows = [row for run in made.runs for row in run.file.rows]
    # Of the run that the scenario is about: the short ones beside it measure capacity.
    longest = max(reversed(made.runs), key=lambda run: run.file.duration_s, default=None)
    conditions = dict(longest.file.conditions) if longest else {}
    return Stress(
        schema=1,
        scenario=asked.scenario,
        started=started,
        command=asked.command,
        simulated=any(row.simulated for row in rows),
        conditions={
            "hardware": ", ".join(sorted({row.hardware for row in rows})),
            "model": ", ".join(sorted({row.model for row in rows})),
            "in flight to saturate": f"{asked.in_flight} on each ordinal",
            **conditions,
        },
        runs=[run.name for run in made.runs],
        **told,
    )


def _worker_arguments(model: Path | None, sim: str, coupling: str, more: list[str] | None) -> list[str]:
    arguments = [str(model)] if model else []
    arguments += ["--sim", sim] if sim else []
    arguments += ["--sim-coupling", coupling] if coupling else []
    return [*arguments, *(more or [])]


def _share(text: str) -> float | None:
    if not text:
        return None
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 10:
        raise ValueError(f"--at {text}: a share of capacity such as 70% or 1.5")
    return share


def _say(line: str) -> None:
    print(f"stress: {line}", file=sys.stderr, flush=True)
