"""How many requests a second one core can generate, at 32 in flight in a closed loop, recording included.

Promises: `locust -f loadgen/ --headless` does at least 8 times what stock Locust with grpcio under gevent does, at
least 2.5 times what perf_analyzer does, and at least half of what h2load does. One core for the generator, another for
a null server (nginx), all four in turn, several rounds in one run; medians, of the ratios too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from _peers import (
    GENERATOR_CORE,
    SERVER_CORE,
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

IN_FLIGHT = 32
OURS, STOCK, PERF_ANALYZER, H2LOAD = "locust -f loadgen/", "stock Locust, grpcio.gevent", "perf_analyzer", "h2load"
#: Ours is at least this many times the peer.
PROMISES = {STOCK: 8.0, PERF_ANALYZER: 2.5, H2LOAD: 0.5}


def rates_of(address: str, seconds: float, folder: Path) -> dict[str, float]:
    """One round: requests a second of each generator; an absent peer is left out."""
    document = inferload(address, seconds + 1, folder, "-u", str(IN_FLIGHT), "--warmup", "1s")
    (row,) = document["rows"]
    if row["errors"] or row["unsent"]:
        raise RuntimeError(f"{OURS} saw errors: {row['errors']}, unsent {row['unsent']}")
    rates = {OURS: row["throughput_rps"], STOCK: stock(address, seconds + 1, folder, users=IN_FLIGHT).rps}
    try:
        rates[PERF_ANALYZER] = perf_analyzer(address, seconds, "--concurrency-range", str(IN_FLIGHT)).rps
    except NotAvailable as error:
        print(f"{PERF_ANALYZER} is left out: {error}", file=sys.stderr)
    rates[H2LOAD] = h2load(address, seconds, folder, in_flight=IN_FLIGHT).rps
    return rates


def main() -> int:
    parser = argparse.ArgumentParser(description="Requests a second of one core, ours beside three peers.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each generator in each round")
    options = parser.parse_args()
    rounds = []
    with null_server(core=SERVER_CORE) as address, tempfile.TemporaryDirectory() as scratch:
        for number in range(options.rounds):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            rounds.append(rates_of(address, options.seconds, folder))
    table = Table(
        title=f"bench_generator: {IN_FLIGHT} in flight, closed; generator on core {GENERATOR_CORE}, nginx on core "
        f"{SERVER_CORE}; median (lowest to highest) of {options.rounds} rounds of {options.seconds:g} s; "
        f"{conditions()}",
        title_justify="left",
    )
    for column in ("generator", "requests/s", "lowest to highest", "ours is", "promise", ""):
        table.add_column(column)
    medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    missed = 0
    for name, median in medians.items():
        all_of_it = [one[name] for one in rounds]
        cells = [name, f"{median:,.0f}", f"{min(all_of_it):,.0f} to {max(all_of_it):,.0f}"]
        if name in PROMISES:
            ratio = statistics.median(one[OURS] / one[name] for one in rounds)
            met = ratio >= PROMISES[name]
            missed += not met
            cells += [f"{ratio:.2f} ×", f"≥ {PROMISES[name]:g} ×", "met" if met else "MISSED"]
        table.add_row(*cells)
    Console(width=150).print(table)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
