"""Prediction against measurement: profiles a pool, simulates it at rates that were not profiled, and runs these rates.

`predict.py real gpt 2` and `predict.py sim 8 --batching` measure one pool each and keep a file; `predict.py table` puts
all files into one table. A run's arrivals are known beforehand by its seed, so they are what is simulated: the error is
that of the model, not that of a short sample of arrivals. For quiet machines only.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from rich.console import Console
from rich.table import Table

from capacity.measures import HardwareCombination
from capacity.rundir import Run
from capacity.simulation import Batching, Pool, Profile, Router, arrival_times_by_source, find_highest_rate, simulate
from capacity.statistics import Slo

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "runs" / "predict"
ROUTERS: tuple[Router, ...] = ("pinned", "random", "round-robin", "least-outstanding")
WARMUP_S = 2
DEADLINE_S = 20
SEED = 11
#: Draws of service times for one schedule of arrivals: their mean is the prediction, their spread is what chance does.
DRAWS = 40
#: Share of one core that others may have used during a run, this program's own figuring included.
QUIET = 0.06
TRIES = 2
DISTURBED_RUNS: set[str] = set()

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@dataclass(frozen=True)
class Comparison:
    """One percentile of one run in µs: predicted, one deviation of what chance does to it, and measured."""

    pool: str
    router: str
    load: float
    rate: float
    requests: int
    failed: int
    percentile: float
    predicted_us: float
    chance_us: float
    measured_us: float
    interval_us: tuple[float, float | None] | None
    profiled_pass_us: float
    pass_us: float
    lateness_p99_us: float
    valid: bool
    quiet: bool

    @property
    def error(self) -> float:
        """Above 0: the prediction was too high."""
        return self.predicted_us / self.measured_us - 1


@contextlib.contextmanager
def workers(count: int, kind: str, *arguments: str) -> Iterator[dict[str, psutil.Process]]:
    """One worker for each ordinal until the block ends: their addresses and processes."""
    command = [sys.executable, "-m", "worker", "serve", *arguments, "--accelerator"]
    started = [
        subprocess.Popen([*command, f"{kind}:{i}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for i in range(count)
    ]
    try:
        lines = [process.stdout.readline() if process.stdout else "" for process in started]
        if not all(line.startswith("ready ") for line in lines):
            raise RuntimeError(f"a worker did not become ready: {lines}")
        yield {line.split()[1]: psutil.Process(one.pid) for line, one in zip(lines, started, strict=True)}
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(60)


@dataclass(frozen=True)
class Case:
    """A pool of workers that runs and is simulated. `core` is the generator's own, None where it shares them all."""

    name: str
    workers: Mapping[str, psutil.Process]
    batching: Batching
    core: int | None

    @property
    def ordinals(self) -> int:
        return len(self.workers)

    def load(self, what: str, seconds: int, *arguments: str) -> Run:
        """One run of `locust -f loadgen/`, so many seconds after a warm-up; again where something else was running."""
        for attempt in range(TRIES):
            before = self._others_s()
            began = time.monotonic()
            run = self._load(what, seconds, *arguments)
            others = (self._others_s() - before) / (time.monotonic() - began)
            if others <= QUIET:
                break
            print(f"{self.name} {what}: {others:.0%} of a core was somebody else's, try {attempt + 1} of {TRIES}")
        else:
            DISTURBED_RUNS.add(run.name)
        return run

    def _others_s(self) -> float:
        """Processor seconds of this machine so far, without the workers' and those of children that ended."""
        busy = psutil.cpu_times()
        own = resource.getrusage(resource.RUSAGE_CHILDREN)
        mine = own.ru_utime + own.ru_stime + sum(sum(one.cpu_times()[:2]) for one in self.workers.values())
        return float(sum(busy) - busy.idle - getattr(busy, "iowait", 0.0) - mine)

    def _load(self, what: str, seconds: int, *arguments: str) -> Run:
        directory = FOLDER / "runs" / f"{self.name}-{what}-{time.time_ns() // 10**6}"
        command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadgen"), "--headless", "--only-summary"]
        command += ["-t", f"{seconds + WARMUP_S}s", "--warmup", f"{WARMUP_S}s", "--run-dir", str(directory)]
        command += ["--targets", ",".join(self.workers), "--deadline", f"{DEADLINE_S}s", *arguments]
        pinned = ["taskset", "-c", str(self.core)] if self.core is not None else []
        done = subprocess.run([*pinned, *command], cwd=ROOT, capture_output=True, text=True, check=False)
        if not (directory / "run.json").exists():
            raise RuntimeError(f"{' '.join(command)} left no run: {done.stderr[-2000:]}")
        return Run.load(directory)

    def closed(self, seconds: int, each: int) -> Run:
        """A run with so many requests in flight on each ordinal."""
        return self.load(f"closed-{each}", seconds, "-u", str(each * self.ordinals))

    def measure(self, router: Router, load: float, rate: float, seconds: int) -> Run:
        """A run of Poisson arrivals at one rate."""
        users = self.ordinals if router == "pinned" else 1
        return self.load(
            f"{router}-{load:g}",
            seconds,
            *("--arrivals", "poisson", "-u", str(users), "-r", str(users), "--user-rate", repr(rate / users)),
            *("--router", router, "--seed", str(SEED)),
        )

    def against(
        self, run: Run, profile: Profile, router: Router, load: float, rate: float, seconds: int
    ) -> list[Comparison]:
        """What a profile predicts of a run, beside what was measured."""
        (row,) = run.file.rows
        passes = run.histogram(row, "pass-1")
        simulated = self._simulated_us(profile, router, rate, seconds)
        measured = {
            90.0: (row.latency_us.p90, row.latency_us.p90_interval),
            99.0: (row.latency_us.p99, row.latency_us.p99_interval),
        }
        comparisons = []
        for percentile, (figure, interval) in measured.items():
            predictions = np.percentile(simulated, percentile, axis=1, method="inverted_cdf")
            if figure is not None:
                comparisons.append(
                    Comparison(
                        pool=self.name,
                        router=router,
                        load=load,
                        rate=rate,
                        requests=row.requests,
                        failed=row.requests - row.answered,
                        percentile=percentile,
                        predicted_us=float(predictions.mean()),
                        chance_us=float(predictions.std(ddof=1)),
                        measured_us=figure,
                        interval_us=interval,
                        profiled_pass_us=profile.pass_time(1).mean_us,
                        pass_us=(passes.mean_us if passes else None) or 0.0,
                        lateness_p99_us=row.lateness_us.p99 or 0.0,
                        valid=run.file.valid,
                        quiet=run.name not in DISTURBED_RUNS,
                    )
                )
        return comparisons

    def _simulated_us(self, profile: Profile, router: Router, rate: float, seconds: int) -> list[Any]:
        """Latencies of the measured part of the run to come, for several draws of service times."""
        k = self.ordinals
        users = k if router == "pinned" else 1
        due, sources = arrival_times_by_source("poisson", rate, seconds=seconds + WARMUP_S, seed=SEED, users=users)
        pool = Pool((profile,) * k, router, self.batching, DEADLINE_S * 1e6)
        if router == "random" and k > 1:
            # The router's own choices, which its seed says beforehand too.
            choices = random.Random(f"{SEED}/0")
            pool = replace(pool, router="pinned")
            sources = np.array([choices.choice(range(k)) for _ in range(due.size)])
        measured = due >= WARMUP_S
        return [simulate(pool, due, draw, sources).latency_us[measured] for draw in range(DRAWS)]


def profile_of(runs: Sequence[Run]) -> Profile:
    """Of one ordinal. A generator that shares its cores with what it drives may find its run not valid; these are not
    judged by that, but by what they predict."""
    row = runs[0].file.rows[0]
    hardware = HardwareCombination(row.host, row.accelerator, row.count, row.hosts)
    valid = [replace(run, file=run.file.model_copy(update={"valid": True})) for run in runs]
    return Profile.from_runs(valid, hardware, row.model)


@dataclass(frozen=True)
class Crossing:
    """The rate at which P90 reaches a bound: predicted, measured, and as simulated for a run without end."""

    pool: str
    bound_us: float
    predicted_rps: float
    measured_rps: float
    asymptotic_rps: float

    @property
    def error(self) -> float:
        """Above 0: the prediction was too high."""
        return self.predicted_rps / self.measured_rps - 1


def crossing(comparisons: Sequence[Comparison], bound_us: float, figure: Callable[[Comparison], float]) -> float:
    """Where a figure reaches the bound, along its logarithm between the rates that were run; NaN where it does not."""
    for one, other in pairwise(sorted(comparisons, key=lambda compared: compared.rate)):
        low, high = (math.log(figure(each) / bound_us) for each in (one, other))
        if low <= 0 < high:
            return one.rate + (other.rate - one.rate) * low / (low - high)
    return math.nan


@app.command()
def real(
    model: str,
    ordinals: int,
    seconds: Annotated[int, typer.Option(help="of each rate")] = 24,
    profile_seconds: Annotated[int, typer.Option(help="of each profiling run")] = 5,
    loads: Annotated[str, typer.Option(help="shares of saturation, ascending")] = "0.5,0.7,0.85",
) -> None:
    """A model of .models/ on ordinals of one core each; the generator has a core of its own where there is one left.

    A profiling run at full load stands between any two rates, and the two beside a rate make its profile: a virtual
    machine's speed drifts by more than the error that is looked for.
    """
    name = f"{model}-{ordinals}"
    core = ordinals if ordinals < (os.cpu_count() or 1) else None
    with workers(ordinals, "cpu", str(ROOT / ".models" / f"{model}.pt"), "--cores-per-ordinal", "1") as started:
        case = Case(name, started, Batching(), core)
        lone = case.closed(profile_seconds, 1)
        before = case.closed(profile_seconds, 2)
        first = profile_of([lone, before])
        saturation = ordinals * first.saturation_rps()
        comparisons = []
        for load in map(float, loads.split(",")):
            rate = load * saturation
            run = case.measure("least-outstanding", load, rate, seconds)
            after = case.closed(profile_seconds, 2)
            profile = profile_of([lone, before, after])
            comparisons += case.against(run, profile, "least-outstanding", load, rate, seconds)
            before = after
    p90 = [one for one in comparisons if one.percentile == 90]
    bound_us = math.exp(np.interp(0.77, [one.load for one in p90], [math.log(one.predicted_us) for one in p90]))
    asymptotic = find_highest_rate(Pool((first,) * ordinals), Slo(((90.0, round(bound_us * 1000)),)))
    at = Crossing(
        pool=name,
        bound_us=bound_us,
        predicted_rps=crossing(p90, bound_us, lambda one: one.predicted_us),
        measured_rps=crossing(p90, bound_us, lambda one: one.measured_us),
        asymptotic_rps=asymptotic.met_rps,
    )
    write_case(name, comparisons, [at])


@app.command()
def sim(
    ordinals: int,
    batching: Annotated[bool, typer.Option("--batching", help="of up to 4 rows")] = False,
    seconds: Annotated[int, typer.Option(help="of each rate")] = 8,
    profile_seconds: Annotated[int, typer.Option(help="of each profiling run")] = 5,
    loads: Annotated[str, typer.Option(help="shares of saturation, one for each router in turn")] = "0.5,0.7,0.85,0.85",
) -> None:
    """Simulated ordinals behind each of the four routers, so slow that two cores can serve them all."""
    name = f"sim-{ordinals}{'-batching' if batching else ''}"
    mean_ms = max(2.5 * ordinals, 5.0)
    arguments, policy = ["--sim", f"lognormal:{mean_ms}ms,0.1"], Batching()
    if batching:
        policy = Batching(4, mean_ms * 100)
        arguments += ["--sim-per-row", f"{mean_ms / 4}ms", "--max-batch-size", "4"]
        arguments += ["--max-queue-delay-us", str(round(policy.delay_us))]
    with workers(ordinals, "sim", *arguments) as started:
        case = Case(name, started, policy, None)
        profile = profile_of([case.closed(profile_seconds, each) for each in (1, 2 * policy.max_size)])
        saturation = ordinals * profile.saturation_rps(policy.max_size)
        comparisons = []
        for router, load in zip(ROUTERS, map(float, loads.split(",")), strict=True):
            run = case.measure(router, load, load * saturation, seconds)
            comparisons += case.against(run, profile, router, load, load * saturation, seconds)
    write_case(name, comparisons, [])


def write_case(name: str, comparisons: Sequence[Comparison], crossings: Sequence[Crossing]) -> None:
    """Writes a case's file and shows it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    document = {"compared": [asdict(one) for one in comparisons], "crossings": [asdict(one) for one in crossings]}
    (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=1))
    show(comparisons, crossings)


@app.command()
def table() -> None:
    """Shows all cases, and the errors by kind of pool and percentile."""
    comparisons: list[Comparison] = []
    crossings: list[Crossing] = []
    for path in sorted(FOLDER.glob("*.json")):
        document = json.loads(path.read_text())
        comparisons += [Comparison(**one) for one in document["compared"]]
        crossings += [Crossing(**one) for one in document["crossings"]]
    show(comparisons, crossings)
    groups = {
        f"{'simulated' if simulated else 'real'}, P{percentile:g}": [
            one.error for one in comparisons if one.pool.startswith("sim") is simulated and one.percentile == percentile
        ]
        for simulated in (False, True)
        for percentile in (90.0, 99.0)
    }
    for title, chosen in (groups | {"highest rate": [one.error for one in crossings]}).items():
        errors = np.abs(chosen)
        if errors.size:
            print(f"{title}: median {np.median(errors):.1%}, worst {errors.max():.1%}, of {errors.size}")


def show(comparisons: Sequence[Comparison], crossings: Sequence[Crossing]) -> None:
    cores = os.cpu_count()
    rows = Table(
        title="prediction against measurement", caption=f"load average {os.getloadavg()[0]:.1f}, {cores} cores"
    )
    names = (
        "pool, router, load, a second, requests, failed, of, predicted ms, ± by chance, measured ms, interval, error"
    )
    for column in (*names.split(", "), "pass ms, profile", "run", "lateness P99", "valid", "quiet"):
        rows.add_column(column)
    for one in comparisons:
        low, high = one.interval_us or (None, None)
        rows.add_row(
            *(one.pool, one.router, f"{one.load:.0%}", f"{one.rate:.1f}", str(one.requests), str(one.failed)),
            *(f"P{one.percentile:g}", f"{one.predicted_us / 1000:.1f}", f"{one.chance_us / 1000:.1f}"),
            *(f"{one.measured_us / 1000:.1f}", f"{_ms(low)}–{_ms(high)}", f"{one.error:+.1%}"),
            *(_ms(one.profiled_pass_us), _ms(one.pass_us), _ms(one.lateness_p99_us), "yes" if one.valid else "no"),
            "yes" if one.quiet else "no",
        )
    console = Console(width=200)
    console.print(rows)
    for at in crossings:
        console.print(
            f"{at.pool}: P90 reaches {_ms(at.bound_us)} ms at {at.predicted_rps:.2f}/s by prediction, at "
            f"{at.measured_rps:.2f}/s by measurement: {at.error:+.1%} (in an endless run: {at.asymptotic_rps:.2f}/s)"
        )


def _ms(us: float | None) -> str:
    return "?" if us is None else f"{us / 1000:.1f}"


if __name__ == "__main__":
    app()
