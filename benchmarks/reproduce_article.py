"""The article's comparison again: its table, its chart and its choice, from simulated hardware.

Every combination that the article measured is a worker that sleeps; how long is given by the article where it gives
figures, and else assumed within what its sentences allow. Locust loads them all, one request at a time each, as the
article did; then those within its bound under Poisson arrivals, at ever higher rates. `make article` runs it.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.optimize import brentq

from capacity.pricing import choose_per_model, format_money, labeled_rows, sequential_per_100k
from capacity.rundir import IntervalLogWriter, Row, Run
from capacity.statistics import Histogram, Slo

SLO = "p90=15ms"
INFERENCES = 1000
#: No run of Locust takes longer.
LIMIT_S = 480
#: Seconds for the search under Poisson arrivals; `make article` has ten minutes for everything.
SEARCH_S = 400
LOG = "article.hlog"


@dataclass(frozen=True)
class Measured:
    """One combination of the article: mean and P90 of an inference in ms, and where they are from."""

    host: str
    accelerator: str
    mean: float
    p90: float
    source: str
    from_article: bool = False

    @property
    def name(self) -> str:
        return f"{self.host} + {self.accelerator}" if self.accelerator else self.host

    @property
    def tag(self) -> str:
        return self.name.replace(" ", "")


ARTICLE = (
    Measured("c5.large", "eia2.medium", 10.03, 9.89, "its table", from_article=True),
    Measured("c5.large", "eia2.large", 8.77, 9.05, "its table", from_article=True),
    Measured("m5.large", "eia2.medium", 9.95, 10.4, "costs the same per inference as c5.large, its P90 is higher"),
    Measured("m5.large", "eia2.large", 8.85, 9.15, "nearly the same latency as c5.large + eia2.large"),
    Measured("g4dn.xlarge", "t4", 5.16, 5.3, "about 1.7 times as fast as c5.large + eia2.large"),
    Measured("g4dn.2xlarge", "t4", 5.16, 5.3, "roughly equal to g4dn.xlarge"),
    Measured("g4dn.4xlarge", "t4", 5.16, 5.3, "roughly equal to g4dn.xlarge"),
    Measured("p3.2xlarge", "v100", 2.4, 2.5, "the best latencies, at less than c5.xlarge per inference"),
    Measured("c5.4xlarge", "", 17.1, 18.0, "over 15 ms; eia2.medium is at least 1.7 times as fast"),
    Measured("m5.4xlarge", "", 19.0, 20.0, "over 15 ms; eia2.medium is at least 1.7 times as fast"),
    Measured("c5.xlarge", "", 54.5, 57.0, "dearer per inference than any GPU; at most 5.6 times as slow"),
    Measured("m5.xlarge", "", 56.1, 59.0, "dearer per inference than any GPU; at most 5.6 times as slow"),
)


def service_times_ms(row: Measured, number: int = 20_000) -> NDArray[np.float64]:
    """Sleeps with this mean and this P90.

    A lognormal; where the mean is above the P90, as in the article's first row, four in a hundred are far slower.
    """
    places = (np.arange(number) + 0.5) / number
    if row.p90 > row.mean:
        z = 1.2815515655446004
        sigma = brentq(lambda s: math.log(row.mean) - s * s / 2 + z * s - math.log(row.p90), 0, z)
        return np.exp(math.log(row.mean) - sigma**2 / 2 + sigma * _normal(places))
    slow = int(0.04 * number)
    # Of the others 93.75 in a hundred are under the P90.
    others = row.p90 * (1 + 0.01 * (_normal(places[: number - slow] / 0.96) - 1.5341205443525463))
    rest = (row.mean * number - others.sum()) / slow
    return np.concatenate([others, np.full(slow, rest)])


def _normal(places: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import ndtri

    return np.asarray(ndtri(places), dtype=np.float64)


def write_times(directory: Path) -> Path:
    """The log that the workers replay, a tag for each combination."""
    path = directory / LOG
    with IntervalLogWriter(
        path, 0.0, ["service times for simulated hardware, as benchmarks/reproduce_article.py has them"]
    ) as log:
        for row in ARTICLE:
            histogram = Histogram()
            histogram.record_ns((service_times_ms(row) * 1e6).astype(np.int64))
            log.write(0, 1, row.tag, histogram)
    return path


@contextmanager
def serving(rows: Sequence[Measured], log: Path) -> Iterator[list[str]]:
    """One worker for each; their addresses, once all are ready."""
    with ExitStack() as stack:
        processes = []
        for ordinal, row in enumerate(rows):
            command = [sys.executable, "-m", "worker", "serve", "--accelerator", f"sim:{ordinal}", "--name", "gpt"]
            command += ["--sim", f"replay:{log}:{row.tag}", "--sim-host", row.host, "--sim-type", row.accelerator]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
            processes.append(process)
        addresses = []
        for process in processes:
            assert process.stdout is not None
            line = process.stdout.readline().split()
            if line[:1] != ["ready"]:
                raise SystemExit("a simulated worker did not become ready")
            addresses.append(line[1])
        yield addresses


def load(addresses: Sequence[str], directory: Path, *words: str) -> None:
    """`locust -f loadgen/` as a user types it; a run that misses its SLO exits with 1, and here most rows do."""
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        "loadgen/",
        "--headless",
        "--only-summary",
        "--loglevel",
        "WARNING",
    ]
    command += ["--targets", ",".join(addresses), "--slo", SLO, "--run-dir", str(directory), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1:]}")


def aggregate(rows: Sequence[Row], console: Console) -> None:
    """The article's aggregate table. It timed the model call alone, which is what a worker's own clock measures; what a
    client of the service felt stands beside it."""
    table = Table(
        title=f"The article's aggregate table, simulated: {INFERENCES:,} inferences, one at a time",
        caption="given: the article's own figures; assumed: within what its sentences allow",
    )
    table.add_column("Instance type")
    for name in ("Cost per hour", "P90 ms", "Mean ms", "Cost per 100,000", "Client's P90", "Client's mean"):
        table.add_column(name, justify="right")
    table.add_column("Latency, mean and P90", overflow="fold")
    by_hardware = {row.hardware: row for row in rows}
    for measured in ARTICLE:
        row = by_hardware[measured.name]
        price, mean = row.price_per_hour, row.compute_us.mean
        cost = None if price is None or mean is None else sequential_per_100k(price, mean)
        table.add_row(
            row.hardware,
            # Half a cent is rounded up, as the article has it.
            "–" if price is None else f"${price + 1e-9:.2f}",
            _ms(row.compute_us.p90),
            _ms(mean),
            "–" if cost is None else format_money(cost, row.currency),
            _ms(row.latency_us.p90),
            _ms(row.latency_us.mean),
            f"{'given' if measured.from_article else 'assumed'} {measured.mean:g}, {measured.p90:g}: {measured.source}",
        )
    console.print(table)


def _ms(us: float | None) -> str:
    return "–" if us is None else f"{us / 1000:.2f}"


def at_slo(rows: Sequence[Row], console: Console) -> Row | None:
    """What each carries within the bound under Poisson arrivals; the cheapest then."""
    table = Table(title=f"The same hardware at the highest Poisson rate within {SLO}, simulated")
    for name in ("Instance type", "Within the SLO", "Not within", "Estimate", "Busy", "Cost per 100,000 at the SLO"):
        table.add_column(name, justify="left" if name == "Instance type" else "right")
    means = {measured.name: measured.mean for measured in ARTICLE}
    for row in rows:
        met, missed, cost = row.slo_rate.met_rps, row.slo_rate.missed_rps, row.cost_per_100k.at_slo
        table.add_row(
            row.hardware,
            "–" if met is None else f"{met:.1f}/s",
            "–" if missed is None else f"{missed:.1f}/s",
            "–" if row.slo_rate.estimate_rps is None else f"{row.slo_rate.estimate_rps:.1f}/s",
            "–" if met is None else f"{met * means[row.hardware] / 10:.0f} %",
            row.cost_per_100k.reasons.get("at_slo", "–") if cost is None else format_money(cost, row.currency),
        )
    console.print(table)
    priced = [row for row in rows if row.cost_per_100k.at_slo is not None]
    return min(priced, key=lambda row: row.cost_per_100k.at_slo or 0.0, default=None)


def why(one_at_a_time: Row, under_load: Row) -> str:
    """The sentence that explains why the two choices differ, or that they do not."""
    first, second = (
        {measured.name: measured for measured in ARTICLE}[row.hardware] for row in (one_at_a_time, under_load)
    )
    if first == second:
        return f"Both ways the choice is {first.name}."
    return (
        f"The choices differ because the article's price lets no request wait: one at a time, {first.name} is the "
        f"cheapest. Under Poisson arrivals requests wait for one another, and the bound is on waiting and service "
        f"together: {first.name} needs {first.mean:g} of the 15 ms for itself, so it must stand idle most of the time "
        f"for the rest, while {second.name} needs {second.mean:g} ms and can be kept so much busier that its higher "
        f"price an hour buys more inferences."
    )


def main() -> None:
    """Both runs, both tables, both choices."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/article"), help="run directory")
    parser.add_argument("--search-seconds", type=int, default=SEARCH_S, help="0 leaves the search out")
    options = parser.parse_args()
    if (options.out / "run.json").exists():
        raise SystemExit(f"{options.out} holds a run already: move it away, or say another with --out")
    began, console = time.monotonic(), Console(width=150)
    options.out.mkdir(parents=True, exist_ok=True)
    log = write_times(options.out)
    console.print("Simulated: workers that sleep, with the prices of 2020 in the packaged catalogue.", highlight=False)
    with serving(ARTICLE, log) as addresses:
        words = ("-u", str(len(addresses)), "--requests", str(INFERENCES), "--warmup", "2s")
        load(addresses, options.out, *words)
    run = Run.load(options.out)
    aggregate(run.file.rows, console)
    (choice,) = choose_per_model(labeled_rows([run], "combination", Slo.parse(SLO), None), Slo.parse(SLO))
    console.print(f"By sequential price under {SLO}: {choice.sentence}\n", soft_wrap=True, highlight=False)
    if options.search_seconds:
        # The larger g4dn are as fast as the smallest and dearer, and so is m5.large beside c5.large: none can be the
        # choice, and a search of each takes its share of the time.
        within = [measured for measured in ARTICLE if measured.host in ("c5.large", "g4dn.xlarge", "p3.2xlarge")]
        search_folder = options.out / "at-slo"
        with serving(within, log) as addresses:
            search = ("--shape", "slo-search", "-t", f"{options.search_seconds}s")
            load(addresses, search_folder, "-u", str(len(addresses)), *search)
        cheapest = at_slo(Run.load(search_folder).file.rows, console)
        if cheapest is not None:
            console.print(f"By the price at the SLO: {cheapest.hardware} (simulated).", highlight=False)
            if choice.winner is not None:
                console.print(why(choice.winner.row, cheapest), soft_wrap=True, highlight=False)
    console.print(
        f"\nchart: {options.out / 'chart.svg'}, report: {options.out / 'report.html'}, ", highlight=False, end=""
    )
    console.print(f"{time.monotonic() - began:.0f} s in all", highlight=False)


if __name__ == "__main__":
    main()
