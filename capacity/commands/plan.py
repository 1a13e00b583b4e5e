"""`python -m capacity plan`: reads what is asked, plans, verifies where asked to, and writes the plan down."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from rich.console import Console

from capacity.experiments.stress.findings import STRESS_NAME, TOGETHER, Stress
from capacity.experiments.verification import verify as run_fleet
from capacity.planning.cost_curves import cost_curves
from capacity.planning.demand import Demand
from capacity.planning.offers import Offer, Offers, gather, parse_limits
from capacity.planning.plan_file import PlanFile
from capacity.planning.planner import Planner
from capacity.planning.pools import Service
from capacity.planning.problem import Ground, Task, no_words
from capacity.pricing import MARKETS, Catalogue
from capacity.reporting.plan_text import print_plan, write_plan
from capacity.reporting.terminal import wide_console
from capacity.rundir import Run
from capacity.simulation import Batching, Router
from capacity.statistics import Slo
from worker.wire import parse_duration_ns

_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*(%?)")


def plan(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="run directories, or interference tests", show_default=False)
    ],
    slo: Annotated[str | None, typer.Option(help="what every fleet must meet  [default: the runs' own]")] = None,
    rate: Annotated[str | None, typer.Option(help="requests a second, such as 2000; or several, 100,1000")] = None,
    demand: Annotated[Path | None, typer.Option(help="a day as CSV: start,rps, such as 06:30,120")] = None,
    survive: Annotated[int, typer.Option(min=0, max=3, help="instances that may be lost while the fleet holds")] = 0,
    headroom: Annotated[str, typer.Option(help="plan for so much more than each rate, such as 30%")] = "0%",
    router: Annotated[str, typer.Option(help=", ".join(get_args(Router)))] = "least-outstanding",
    market: Annotated[str, typer.Option(help=f"{', '.join(MARKETS)}; or several")] = MARKETS[0],
    limit: Annotated[list[str] | None, typer.Option(help="TYPE=N or TYPE@MARKET=N: no more of it; repeat")] = None,
    max_price: Annotated[float | None, typer.Option(min=0, help="the most an hour")] = None,
    model: Annotated[str | None, typer.Option(help="which of several models")] = None,
    max_batch_size: Annotated[int, typer.Option(min=0, help="workers join so many rows; 0: never")] = 0,
    max_queue_delay_us: Annotated[int, typer.Option(min=0, help="how long a request waits for others")] = 0,
    preferred_batch_size: Annotated[str, typer.Option(help="sizes formed as soon as they can be, as in 4,8")] = "",
    deadline: Annotated[str | None, typer.Option(help="a request without a reply by then has failed, as in 1s")] = None,
    catalogue: Annotated[Path | None, typer.Option(help="price by this hardware.toml")] = None,
    out: Annotated[Path | None, typer.Option(help="where to write  [default: plan, beside the first run]")] = None,
    seed: Annotated[int, typer.Option(help="of arrivals and drawn times")] = 1,
    verify: Annotated[bool, typer.Option("--verify", help="run the fleet here and compare")] = False,
    verify_seconds: Annotated[float, typer.Option(min=5, max=3600, help="how long it is run")] = 30.0,
    model_file: Annotated[Path | None, typer.Option(help="the model, for real workers in --verify")] = None,
) -> None:
    """Says how many of what carry a rate within the SLO at the lowest price, and what would break that."""
    loaded, remarks = _measured(runs)
    service = Service(
        _slo_of(loaded, slo),
        _router(router),
        _batching(max_batch_size, max_queue_delay_us, preferred_batch_size),
        parse_duration_ns(deadline) / 1000 if deadline else math.inf,
        seed,
    )
    rates = _rates(rate)
    day = Demand.load(demand) if demand else None
    if not rates and day is None:
        raise ValueError("say what is asked for: --rate 2000, or --demand demand.csv")
    if verify and not rates:
        raise ValueError("--verify runs the fleet of a rate: say --rate too")
    if model_file is not None and not model_file.is_file():
        raise ValueError(f"--model-file {model_file}: no such file")
    markets = _markets(market)
    prices = Catalogue.load(catalogue)
    offers = gather(loaded, model, prices, markets, parse_limits(limit or []))
    folder = out or runs[0].resolve().parent / "plan"
    console, progress = wide_console(), Console(stderr=True)
    with progress.status("reading what was measured") as status:
        say: Callable[[str], None] = status.update if progress.is_terminal else no_words
        ground = Ground(offers, Task(service, survive, _share(headroom), max_price, say))
        file = _planned(ground, loaded, rates, day, str(demand.name) if demand else "", prices)
        file = file.model_copy(
            update={"markets": list(markets), "limits": list(limit or []), "notes": [*remarks, *file.notes]}
        )
        planner_rows = [one for one in file.plans if one.rows]
        if verify:
            if not planner_rows:
                raise ValueError(f"there is no fleet to verify: {file.plans[-1].why_not}")
            say(f"running the fleet for {verify_seconds:g} s")
            largest = planner_rows[-1]
            checked = run_fleet(
                ground,
                largest.rows,
                largest.required_rps,
                folder,
                verify_seconds,
                model_file,
            )
            file = file.model_copy(update={"verification": checked})
    print_plan(file, console)
    written = write_plan(file, folder)
    console.print(f"\nplan: {', '.join(str(path) for path in written)}", soft_wrap=True, highlight=False)
    check = file.verification
    if any(not one.rows for one in file.plans) or (check and not (check.valid and check.meets_slo is not False)):
        raise typer.Exit(1)


def _measured(directories: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """The runs, and what is to be said of them. Of a stress test of interference: the run with all ordinals loaded."""
    runs, remarks = [], []
    for directory in directories:
        path = directory / STRESS_NAME
        if not path.is_file():
            runs.append(Run.load(directory))
            continue
        found = Stress.load(path)
        if found.interference is None:
            raise ValueError(
                f"{directory} is a stress test, {found.scenario}: a plan takes run directories, or an interference test"
            )
        run = Run.load(directory / TOGETHER)
        runs.append(run)
        remarks.append(
            f"{' and '.join(dict.fromkeys(row.hardware for row in run.file.rows))}: service times of the fully loaded "
            f"machine, {100 * found.interference.factor:.3g} % of the throughput of its ordinals alone ({directory})"
        )
    return runs, remarks


def _planned(
    ground: Ground,
    runs: Sequence[Run],
    rates: Sequence[float],
    day: Demand | None,
    day_name: str,
    catalogue: Catalogue,
) -> PlanFile:
    offers, task = ground.offers, ground.task
    planner = Planner(ground)
    schedule = planner.schedule(day, day_name) if day else None
    plans = [planner.plan(rps) for rps in sorted(rates)]
    asked = [*rates, *([day.peak_rps] if day else [])]
    batching = task.service.batching
    return PlanFile(
        made=datetime.now(UTC).replace(microsecond=0),
        model=offers.model,
        slo=str(task.service.slo),
        router=task.service.router,
        batching=f"up to {batching.max_size} rows, {batching.delay_us:g} µs" if batching.max_size > 1 else "",
        headroom=task.headroom,
        survive=task.survive,
        runs=[str(run.directory) for run in runs],
        simulated=any(offer.simulated for offer in offers.kept),
        currency=offers.kept[0].currency if offers.kept else catalogue.currency,
        region=catalogue.region,
        prices_as_of=catalogue.date,
        price_notes=_price_notes(offers.kept),
        seed=task.service.seed,
        plans=plans,
        schedule=schedule,
        curves=cost_curves(ground, asked, plans),
        notes=_notes(offers),
    )


def _price_notes(offers: Sequence[Offer]) -> list[str]:
    return list(
        dict.fromkeys(
            f"{offer.name}: {offer.price:g} {offer.currency} an hour ({offer.price_note})" for offer in offers
        )
    )


def _notes(offers: Offers) -> list[str]:
    return [f"{said.label}: {said.reason}" for step in offers.steps for said in step.remarks]


def _slo_of(runs: Sequence[Run], text: str | None) -> Slo:
    if text is not None:
        return Slo.parse(text)
    found = {run.file.slo for run in runs if run.file.slo}
    if len(found) != 1:
        raise ValueError("say what every fleet must meet, as in --slo p90=15ms")
    return Slo.parse(found.pop())


def _router(text: str) -> Router:
    if text not in get_args(Router):
        raise ValueError(f"--router {text}: choose one of {', '.join(get_args(Router))}")
    return cast(Router, text)


def _batching(size: int, delay_us: int, preferred: str) -> Batching:
    try:
        sizes = tuple(int(part) for part in preferred.split(",") if part.strip())
    except ValueError:
        raise ValueError(f"--preferred-batch-size is a list as in 4,8, not {preferred}") from None
    return Batching(max(size, 1), float(delay_us), sizes)


def _rates(text: str | None) -> list[float]:
    rates = []
    for part in (text or "").split(",") if text else ():
        try:
            value = float(part)
        except ValueError:
            value = 0.0
        if not 0 < value < 1e9:
            raise ValueError(f"--rate {text}: give requests a second above 0, such as 2000 or 100,1000,10000")
        rates.append(value)
    return rates


def _share(text: str) -> float:
    match = _SHARE.fullmatch(text.strip())
    value = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= value <= 10:
        raise ValueError(f"--headroom {text}: give a share such as 30% or 0.3")
    return value


def _markets(text: str) -> tuple[str, ...]:
    markets = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not markets or any(market not in MARKETS for market in markets):
        raise ValueError(f"--market {text}: choose from {', '.join(MARKETS)}")
    return markets
