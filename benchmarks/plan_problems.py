"""Random planning problems: planned, held against the cheapest fleet of all by simulation, and run with sim workers.

`python benchmarks/plan_problems.py --problems 0:50 --verify 15` prints a line for each and the sums at the end; without
--verify nothing is run. `--large` plans fleets of a thousand instances of twenty kinds over a day instead.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tools.measured import Measured, measured_run  # noqa: E402

from capacity.experiments.verification import verify_plan  # noqa: E402
from capacity.planning import (  # noqa: E402
    Counts,
    Demand,
    FleetRequirements,
    OfferSelection,
    Planner,
    PlanningProblem,
    ServiceConditions,
    SimulatedPools,
    select_offers,
)
from capacity.pricing import Catalogue  # noqa: E402
from capacity.rundir import Run  # noqa: E402
from capacity.statistics import Slo  # noqa: E402

# More ordinals than this machine runs beside the load are not planned with.
MOST_ORDINALS = 14


@dataclass(frozen=True)
class Problem:
    """Three kinds of instance with lognormal service times, an SLO, a rate; all from its number."""

    rows: tuple[Measured, ...]
    prices: tuple[float, ...]
    slo: Slo
    rate: float

    @classmethod
    def of(cls, seed: int, overhead_us: float) -> Problem:
        draw = np.random.default_rng([7, seed])
        fastest = float(draw.uniform(8, 25))
        means = fastest * np.array([1.0, *np.exp(draw.uniform(0.1, 0.9, 2))])
        variation = draw.uniform(0.05, 0.6, 3)
        # Slower is cheaper, by more or less than it is slower.
        prices = np.exp(draw.normal(0, 0.2, 3)) / means * fastest
        percentile = draw.choice([90, 95, 99])
        bound_ms = float(fastest * draw.uniform(1.8, 5))
        size = int(draw.integers(2, 9))
        rate = float(draw.uniform(0.55, 0.85) * size * 1000 / fastest)
        rows = tuple(
            Measured(f"h{number}.large + x{number}", float(mean), float(cv), overhead_us)
            for number, (mean, cv) in enumerate(zip(means, variation, strict=True))
        )
        return cls(rows, tuple(map(float, prices)), Slo.parse(f"p{percentile}={bound_ms:.3f}ms"), min(rate, 380.0))


def offers_of(problem: Problem, folder: Path) -> OfferSelection:
    """The problem's runs and prices as the command line would read them."""
    hosts = "\n".join(
        f'[hosts."h{n}.large"]\nprice = {price:.4f}\naccelerator = "x{n}"\naccelerators = 1\nmemory_gib = 8'
        for n, price in enumerate(problem.prices)
    )
    catalogue = Catalogue.parse(hosts, "prices")
    run = Run.load(measured_run(folder / "run", problem.rows, catalogue=catalogue))
    return select_offers([run], None, catalogue, ("on-demand",), {})


def cheapest_of_all(
    selection: OfferSelection, service: ServiceConditions, rate: float, below: float
) -> tuple[float, Counts] | None:
    """The cheapest fleet under a price that holds by simulation, every mixture looked at in the order of its price."""
    pools = SimulatedPools(selection.offers, service)
    prices = [offer.price for offer in selection.offers]
    ranges = [range(int(below / price) + 1) for price in prices]
    fleets = [
        (sum(count * price for count, price in zip(counts, prices, strict=True)), counts) for counts in product(*ranges)
    ]
    for cost, counts in sorted(fleets):
        capacity = sum(count * pools.saturation_rate(number) for number, count in enumerate(counts))
        if cost < below - 1e-9 and capacity > rate and pools.predict(counts, rate).meets_slo:
            return cost, counts
    return None


def overhead_here() -> float:
    """What a request to a sim worker here takes beside its pass, in µs: the mean of a few seconds, one at a time."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                *(sys.executable, "-m", "worker", "fleet", "--accelerators", "sim:0", "--sim", "fixed:5ms", "--"),
                *(sys.executable, "-m", "locust", "-f", str(ROOT / "loadgen"), "--headless", "--only-summary"),
                *("-u", "1", "--user-rate", "40", "--arrivals", "poisson", "--warmup", "1s", "-t", "7s"),
                *("--loglevel", "ERROR", "--run-dir", f"{folder}/run"),
            ],
            check=False,
            capture_output=True,
            timeout=90,
        )
        row = Run.load(Path(folder) / "run").file.rows[0]
        parts = row.service_us.mean, row.compute_us.mean
        assert parts[0] is not None
        assert parts[1] is not None
        return parts[0] - parts[1] - (row.queue_us.p50 or 0.0)


def one(seed: int, overhead_us: float, seconds: float) -> tuple[bool, float, bool | None]:
    """Whether there was a plan, what it costs over the cheapest fleet of all, and whether it met its SLO when run."""
    problem = Problem.of(seed, overhead_us)
    service = ServiceConditions(problem.slo)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        selection = offers_of(problem, folder)
        began = time.monotonic()
        planning = PlanningProblem(selection, FleetRequirements(service))
        plan = Planner(planning).plan(problem.rate)
        took = time.monotonic() - began
        if not plan.rows or plan.cost_per_hour is None:
            print(f"{seed:3d} {problem.slo} {problem.rate:.0f}/s: no fleet, {plan.reason}", flush=True)
            return False, 0.0, None
        better = cheapest_of_all(selection, service, problem.rate, plan.cost_per_hour)
        over = plan.cost_per_hour / better[0] - 1 if better else 0.0
        line = f"{seed:3d} {problem.slo} {problem.rate:.0f}/s: {plan.fleet}, {100 * over:.1f} % over, {took:.1f} s"
        met: bool | None = None
        ordinals = sum(row.instances * row.ordinals for row in plan.rows)
        if seconds and ordinals <= MOST_ORDINALS:
            check = verify_plan(planning, plan.rows, problem.rate, folder / "out", seconds)
            percentile, bound = problem.slo.bounds[0]
            run = Run.load(Path(check.run_dir))
            latencies = [histogram for row in run.file.rows if (histogram := run.histogram(row, "latency"))]
            total = latencies[0]
            for more in latencies[1:]:
                total.add(more)
            measured_us = total.percentile_us(percentile, check.requests - check.answered)
            met = measured_us is not None and measured_us <= bound / 1000
            errors = ", ".join(f"{row.name} {100 * (row.error or 0):+.0f} %" for row in check.percentiles)
            valid = "valid" if check.valid else f"NOT VALID ({'; '.join(check.failures)})"
            verdict = "met" if met else "MISSED"
            line += f"; run: P{percentile:g} {(measured_us or 0) / 1000:.1f} ms, {verdict}, {errors}, {valid}"
        print(line, flush=True)
        return True, over, met


def large() -> None:
    """A thousand instances, twenty kinds, a day of 24 slots."""
    draw = np.random.default_rng(20)
    means = np.exp(draw.uniform(np.log(3), np.log(14), 20))
    prices = np.exp(draw.normal(0, 0.25, 20)) * 4 / means
    problem = Problem(
        tuple(
            Measured(f"h{n}.large + x{n}", float(mean), float(draw.uniform(0.05, 0.5))) for n, mean in enumerate(means)
        ),
        tuple(map(float, prices)),
        Slo.parse("p90=25ms"),
        0.0,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        selection = offers_of(problem, folder)
        best = max(range(20), key=lambda n: 1 / (means[n] * prices[n]))
        peak = 0.95 * 1000 * 1000 / means[best]
        shape = 0.55 - 0.45 * np.cos((np.arange(24) - 3) / 24 * 2 * np.pi)
        demand = folder / "demand.csv"
        demand.write_text("start,rps\n" + "".join(f"{h:02d}:00,{peak * s:.0f}\n" for h, s in enumerate(shape)))
        planning = PlanningProblem(selection, FleetRequirements(ServiceConditions(problem.slo)))
        began, cpu = time.monotonic(), time.process_time()
        schedule = Planner(planning).plan_day(Demand.load(demand), "demand.csv")
        took = time.monotonic() - began
        most = max(sum(row.instances for row in slot.rows) for slot in schedule.slots)
        print(
            f"20 kinds, 24 slots, up to {most:,} instances at {peak:,.0f} requests/s: planned in {took:.1f} s "
            f"({time.process_time() - cpu:.1f} s of processor), solver's gap {schedule.solver_gap:.2g}, "
            f"{schedule.cost_per_day / schedule.cost_lower_bound - 1:.1%} over the bound by capacity alone"
        )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", default="0:50")
    parser.add_argument("--verify", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    if options.large:
        large()
        return
    first, _, end = options.problems.partition(":")
    overhead = overhead_here() if options.verify else 600.0
    print(f"overhead {overhead:.0f} µs", flush=True)
    results = [one(seed, overhead, options.verify) for seed in range(int(first), int(end))]
    planned = [over for there, over, _met in results if there]
    run = [met for _there, _over, met in results if met is not None]
    print(
        f"{len(planned)} of {len(results)} planned; {max(planned, default=0):.1%} over the cheapest of all at worst; "
        f"{sum(run)} of {len(run)} met their SLO when run"
    )


if __name__ == "__main__":
    main()
