"""Are requests sent at their due times, and are the clocks read without delay? 5,000 Poisson arrivals a second.

Promises: lateness P50 ≤ 30 µs, P99 ≤ 300 µs, P99.9 ≤ 2 ms; the P50 of the service time within 100 µs of what h2load
reports at the same rate with one in flight. Beside them, what stock Locust and perf_analyzer report at that rate. One
core for the generator, another for a null server (nginx), several rounds in one run, medians.

With --minutes N instead: N minutes at 2,000 a second, ours alone; memory must be flat and lateness must not drift, from
the second quarter of the run to the last.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from _peers import (
    GENERATOR_CORE,
    SERVER_CORE,
    Figures,
    NotAvailable,
    conditions,
    exit_code,
    h2load,
    inferload,
    perf_analyzer,
    stock,
)
from null_server import null_server
from rich.console import Console
from rich.table import Table

from capacity.rundir import parse_series_tag, read_interval_log
from capacity.statistics import Histogram

RATE, LONG_RATE = 5000, 2000
USERS = 10
STOCK_USERS = 50
LATENESS_US = {"p50": 30.0, "p99": 300.0, "p999": 2000.0}
SERVICE_WITHIN_US = 100.0
#: What a quarter of an hour and another may differ by: the allocator's and the machine's noise, not growth with time.
MEMORY_WITHIN, LATENESS_TIMES, LATENESS_PLUS_US = 0.02, 1.5, 20.0


def open_options(rate: float) -> tuple[str, ...]:
    """Poisson arrivals of `rate` a second in all."""
    return ("-u", str(USERS), "--arrivals", "poisson", "--user-rate", f"{rate / USERS:g}", "--warmup", "1s")


def short(rounds: int, seconds: float) -> int:
    ours: list[dict[str, Any]] = []
    peers: dict[str, list[Figures]] = {}
    with null_server(core=SERVER_CORE) as address, tempfile.TemporaryDirectory() as scratch:
        for number in range(rounds):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            ours += inferload(address, seconds + 1, folder, *open_options(RATE))["rows"]
            peers.setdefault("h2load", []).append(h2load(address, seconds, folder, in_flight=1, rate=RATE))
            try:
                options = ("--request-rate-range", str(RATE), "--request-distribution", "poisson")
                peers.setdefault("perf_analyzer", []).append(perf_analyzer(address, seconds, *options))
            except NotAvailable as error:
                print(f"perf_analyzer is left out: {error}", file=sys.stderr)
            peer = stock(address, seconds, folder, users=STOCK_USERS, rate=RATE / STOCK_USERS)
            peers.setdefault("stock Locust, grpcio.gevent", []).append(peer)

    def median(measure: str, name: str) -> float:
        return statistics.median(float(row[measure][name]) for row in ours)

    service = Figures(
        statistics.median(row["throughput_rps"] for row in ours),
        *(median("service_us", name) for name in ("p50", "p99", "p999", "max")),
        errors=sum(sum(row["errors"].values()) for row in ours),
    )
    table = Table(
        title=f"bench_fidelity: {RATE:,}/s; generator on core {GENERATOR_CORE}, nginx on core {SERVER_CORE}; medians "
        f"of {rounds} rounds of {seconds:g} s; {conditions()}",
        title_justify="left",
    )
    for column in ("µs", "requests/s", "P50", "P99", "P99.9", "maximum", "promise"):
        table.add_column(column)
    met = True
    late = {name: median("lateness_us", name) for name in ("p50", "p99", "p999", "max")}
    for name, bound in LATENESS_US.items():
        met = met and late[name] <= bound
    promised = ", ".join(f"{name} ≤ {bound:g}" for name, bound in LATENESS_US.items())
    lateness = Figures(service.rps, *late.values())
    _add(table, "ours, poisson: lateness", lateness, f"{promised}: {'met' if met else 'MISSED'}")
    medians = {name: _median(figures) for name, figures in peers.items() if figures}
    theirs = medians["h2load"].p50_us
    assert service.p50_us is not None
    assert theirs is not None
    off = abs(service.p50_us - theirs)
    near = off <= SERVICE_WITHIN_US and service.errors == 0
    verdict = f"P50 {off:.0f} from h2load's (≤ {SERVICE_WITHIN_US:g}): {'met' if near else 'MISSED'}"
    _add(table, "ours, poisson: service", service, verdict)
    for name, figures in medians.items():
        _add(table, name, figures, "")
    Console(width=150).print(table)
    return 0 if met and near else 1


def _median(rounds: Sequence[Figures]) -> Figures:
    def of(name: str) -> float | None:
        values = [getattr(figures, name) for figures in rounds]
        return None if None in values else statistics.median(values)

    return Figures(of("rps") or 0.0, of("p50_us"), of("p99_us"), of("p999_us"), of("max_us"))


def _add(table: Table, name: str, figures: Figures, promise: str) -> None:
    times = (figures.p50_us, figures.p99_us, figures.p999_us, figures.max_us)
    table.add_row(name, f"{figures.rps:,.0f}", *("–" if t is None else f"{t:,.0f}" for t in times), promise)


def long(minutes: float) -> int:
    with null_server(core=SERVER_CORE) as address, tempfile.TemporaryDirectory() as scratch:
        folder, ended = Path(scratch) / "run", threading.Event()
        resident: list[float] = []
        watcher = threading.Thread(target=_watch, args=(resident, ended))
        watcher.start()
        try:
            (row,) = inferload(address, minutes * 60, folder, *open_options(LONG_RATE))["rows"]
        finally:
            ended.set()
            watcher.join()
        quarters = _lateness_by_quarter(folder, minutes * 60)
    memory = [statistics.median(part) for part in _quarters(resident)]
    table = Table(
        title=f"bench_fidelity --minutes {minutes:g}: poisson {LONG_RATE:,}/s, {row['requests']:,} requests, "
        f"{sum(row['errors'].values())} errors, {row['unsent']} unsent; {conditions()}",
        title_justify="left",
    )
    for column in ("quarter", "resident MiB", "lateness P50 µs", "P99 µs", "P99.9 µs"):
        table.add_column(column)
    for number, (mebibytes, histogram) in enumerate(zip(memory, quarters, strict=True), 1):
        late = (histogram.percentile_us(p) for p in (50, 99, 99.9))
        table.add_row(str(number), f"{mebibytes:.1f}", *(f"{value or 0:,.0f}" for value in late))
    Console(width=150).print(table)
    flat = memory[3] <= memory[1] * (1 + MEMORY_WITHIN)
    steady = all(
        (quarters[3].percentile_us(p) or 0) <= (quarters[1].percentile_us(p) or 0) * LATENESS_TIMES + LATENESS_PLUS_US
        for p in (50, 99)
    )
    # What falls due in the very moment of the end is unsent, and right to be.
    whole = not row["errors"] and row["unsent"] <= row["due"] * 1e-5
    promises = {f"memory flat within {MEMORY_WITHIN:.0%}": flat, "no drift of lateness": steady, "nothing lost": whole}
    print("; ".join(f"{promise}: {'met' if met else 'MISSED'}" for promise, met in promises.items()))
    return 0 if all(promises.values()) else 1


def _watch(resident: list[float], ended: threading.Event) -> None:
    """Resident memory in MiB of the generator, which is our only child that runs Locust, once a second."""
    while not ended.wait(1.0):
        for child in psutil.Process().children():
            try:
                if "locust" in child.cmdline():
                    resident.append(child.memory_info().rss / 2**20)
            except psutil.NoSuchProcess:
                pass


def _quarters(values: Sequence[float]) -> list[Sequence[float]]:
    size = len(values) // 4
    return [values[number * size : (number + 1) * size] for number in range(4)]


def _lateness_by_quarter(folder: Path, seconds: float) -> list[Histogram]:
    quarters = [Histogram() for _ in range(4)]
    for interval in read_interval_log(folder / "run.hlog"):
        if parse_series_tag(interval.tag)[1] == "lateness":
            quarters[min(int(interval.start_s * 4 / seconds), 3)].add(interval.histogram)
    return quarters


def main() -> int:
    parser = argparse.ArgumentParser(description="Lateness and service time at a steady Poisson rate.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each generator in each round")
    parser.add_argument("--minutes", type=float, help=f"ours alone for this long, at {LONG_RATE:,} a second")
    options = parser.parse_args()
    return long(options.minutes) if options.minutes else short(options.rounds, options.seconds)


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
