"""`plan`: reads the options, plans, verifies the fleet with --verify, and writes the plan."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from rich.console import Console

from capacity.errors import InputError
from capacity.experiments.stress import STRESS_NAME, TOGETHER, StressResult
from capacity.experiments.verification import verify_plan
from capacity.planning import (
    Demand,
    FleetRequirements,
    PlanFile,
    PlanningProblem,
    ServiceConditions,
    ignore_progress,
    make_plan_file,
    parse_limits,
    select_offers,
)
from capacity.pricing import MARKETS, Catalogue
from capacity.reporting import print_plan, wide_console, write_plan
from capacity.rundir import Run
from capacity.simulation import Batching, Router
from capacity.statistics import Slo
from worker.wire import display_duration, parse_duration_ns

_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*(%?)")


def plan_command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="run directories, or interference tests", show_default=False)
    ],
    slo: Annotated[str | None, typer.Option(help="what every fleet must meet (default: the runs' own)")] = None,
    rate: Annotated[str | None, typer.Option(help="requests a second, such as 2000; or several, 100,1000")] = None,
    demand: Annotated[Path | None, typer.Option(help="a day as CSV: start,rps, such as 06:30,120")] = None,
    survive: Annotated[
        int, typer.Option(min=0, max=3, help="instances that may be lost while the SLO is still met")
    ] = 0,
    headroom: Annotated[str, typer.Option(help="plan for a rate higher by this share, such as 30%")] = "0%",
    router: Annotated[str, typer.Option(help=", ".join(get_args(Router)))] = "least-outstanding",
    market: Annotated[str, typer.Option(help=f"{', '.join(MARKETS)}; or several")] = MARKETS[0],
    limit: Annotated[
        list[str] | None, typer.Option(help="TYPE=N or TYPE@MARKET=N: at most N of this type; repeatable")
    ] = None,
    max_price: Annotated[float | None, typer.Option(min=0, help="the highest price an hour")] = None,
    model: Annotated[str | None, typer.Option(help="the model to plan for, where the runs have several")] = None,
    max_batch_size: Annotated[int, typer.Option(min=0, help="rows that workers batch at most; 0: no batching")] = 0,
    max_queue_delay_us: Annotated[int, typer.Option(min=0, help="how long a request waits for a batch, in µs")] = 0,
    preferred_batch_size: Annotated[str, typer.Option(help="sizes formed as soon as possible, such as 4,8")] = "",
    deadline: Annotated[str | None, typer.Option(help="a request without a reply by then fails, such as 1s")] = None,
    catalogue: Annotated[Path | None, typer.Option(help="price by this hardware.toml")] = None,
    out: Annotated[Path | None, typer.Option(help="folder to write into (default: plan, beside the first run)")] = None,
    seed: Annotated[int, typer.Option(help="of random arrivals and service times")] = 1,
    verify: Annotated[bool, typer.Option("--verify", help="run the fleet on this machine and compare")] = False,
    verify_seconds: Annotated[float, typer.Option(min=5, max=3600, help="how long --verify takes, in seconds")] = 30.0,
    model_file: Annotated[Path | None, typer.Option(help="the model, for real workers in --verify")] = None,
) -> None:
    """Finds the cheapest fleet for a rate within the SLO, and what would change it."""
    measured, notes = _load_runs(runs)
    service = ServiceConditions(
        slo=_slo(measured, slo),
        router=_router(router),
        batching=_batching(max_batch_size, max_queue_delay_us, preferred_batch_size),
        deadline_us=parse_duration_ns(deadline) / 1000 if deadline else math.inf,
        seed=seed,
    )
    rates = _rates(rate)
    day = Demand.load(demand) if demand else None
    if not rates and day is None:
        raise InputError("no rate to plan for: give --rate 2000, or --demand demand.csv")
    if verify and not rates:
        raise InputError("--verify runs the fleet for a rate: give --rate too")
    if model_file is not None and not model_file.is_file():
        raise InputError(f"--model-file {model_file}: no such file")
    markets = _markets(market)
    prices = Catalogue.load(catalogue)
    selection = select_offers(measured, model, prices, markets, parse_limits(limit or []))
    folder = out or runs[0].resolve().parent / "plan"
    console, stderr = wide_console(), Console(stderr=True)
    with stderr.status("reading the runs") as status:
        progress: Callable[[str], None] = status.update if stderr.is_terminal else ignore_progress
        problem = PlanningProblem(selection, FleetRequirements(service, survive, _share(headroom), max_price, progress))
        file = make_plan_file(
            problem,
            measured,
            rates,
            prices,
            demand=day,
            demand_name=demand.name if demand else "",
            markets=markets,
            limits=limit or [],
            notes=notes,
        )
        if verify:
            progress(f"running the fleet for {display_duration(verify_seconds)}")
            file = _verified(file, problem, folder, verify_seconds, model_file)
    print_plan(file, console)
    paths = write_plan(file, folder)
    console.print(f"\nplan: {', '.join(str(path) for path in paths)}", soft_wrap=True, highlight=False)
    verification = file.verification
    if any(not one.rows for one in file.plans) or (
        verification and not (verification.valid and verification.verdict != "missed")
    ):
        raise typer.Exit(1)


def _verified(
    file: PlanFile, problem: PlanningProblem, folder: Path, seconds: float, model_file: Path | None
) -> PlanFile:
    """The plan file with the verification of the fleet for the highest rate that has one; unchanged where none has."""
    plans = [one for one in file.plans if one.rows]
    if not plans:
        return file
    verification = verify_plan(problem, plans[-1].rows, plans[-1].required_rps, folder, seconds, model_file)
    return file.model_copy(update={"verification": verification})


def _load_runs(directories: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """The runs, and notes on them. Of an interference test it is the run in which all ordinals were loaded."""
    runs, notes = [], []
    for directory in directories:
        path = directory / STRESS_NAME
        if not path.is_file():
            runs.append(Run.load(directory))
            continue
        result = StressResult.load(path)
        if result.interference is None:
            raise InputError(
                f"{directory} is a stress test of {result.scenario}: expected run directories, or an interference test"
            )
        run = Run.load(directory / TOGETHER)
        runs.append(run)
        notes.append(
            f"{' and '.join(dict.fromkeys(row.hardware for row in run.file.rows))}: service times of the fully loaded "
            f"machine, {100 * result.interference.factor:.3g} % of the throughput of its ordinals alone ({directory})"
        )
    return runs, notes


def _slo(runs: Sequence[Run], text: str | None) -> Slo:
    if text is not None:
        return Slo.parse(text)
    slos = {run.file.slo for run in runs if run.file.slo}
    if len(slos) != 1:
        raise InputError("no SLO for the fleet: give one, such as --slo p90=15ms")
    return Slo.parse(slos.pop())


def _router(text: str) -> Router:
    if text not in get_args(Router):
        raise InputError(f"--router {text}: unknown router (choose {', '.join(get_args(Router))})")
    return cast(Router, text)


def _batching(size: int, delay_us: int, preferred: str) -> Batching:
    try:
        sizes = tuple(int(part) for part in preferred.split(",") if part.strip())
    except ValueError:
        raise InputError(f"--preferred-batch-size {preferred}: expected a list such as 4,8") from None
    return Batching(max(size, 1), float(delay_us), sizes)


def _rates(text: str | None) -> list[float]:
    rates = []
    for part in (text or "").split(",") if text else ():
        try:
            value = float(part)
        except ValueError:
            value = 0.0
        if not 0 < value < 1e9:
            raise InputError(f"--rate {text}: expected requests a second above 0, such as 2000 or 100,1000,10000")
        rates.append(value)
    return rates


def _share(text: str) -> float:
    match = _SHARE.fullmatch(text.strip())
    value = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= value <= 10:
        raise InputError(f"--headroom {text}: expected a share such as 30% or 0.3")
    return value


def _markets(text: str) -> tuple[str, ...]:
    markets = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not markets or any(market not in MARKETS for market in markets):
        raise InputError(f"--market {text}: unknown market (choose {', '.join(MARKETS)})")
    return markets
