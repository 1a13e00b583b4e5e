"""A server that answers in 1 ms freezes once for 1 s, in 20 s of 200 requests a second. What do generators report?

Promise: the P99 and the maximum that `locust -f loadgen/ --arrivals constant` measures are within 3 % of those computed
from the schedule. Beside them stand our own closed loop and stock Locust, which send less while the server stands still
and so hardly see it (coordinated omission).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _peers import ROOT, Figures, conditions, exit_code, inferload, stock
from rich.console import Console
from rich.table import Table
from stall_server import ANSWER_S, MODEL, computed

RATE = 200
PROMISE = 0.03
STOCK_USERS = 10


@dataclass
class Stalling:
    """A running stall server; `froze_s` is known once its run is over."""

    address: str
    froze_s: list[float] = field(default_factory=list)


@contextlib.contextmanager
def stall_server(after_s: float, freeze_s: float) -> Iterator[Stalling]:
    """Runs `stall_server.py` in a process of its own."""
    script = Path(__file__).with_name("stall_server.py")
    process = subprocess.Popen(
        [sys.executable, str(script), "--after", str(after_s), "--freeze", str(freeze_s)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        serving = Stalling(process.stdout.readline().split()[1])
        yield serving
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=30)
    serving.froze_s += [float(line.split()[1]) for line in output.splitlines() if line.startswith("froze ")]


def row_of(document: dict[str, Any]) -> Figures:
    """The only row of a run.json."""
    (row,) = document["rows"]
    latency = row["latency_us"]
    errors = sum(row["errors"].values())
    return Figures(row["throughput_rps"], latency["p50"], latency["p99"], None, latency["max"], errors)


def main() -> int:
    parser = argparse.ArgumentParser(description="A freeze of the server, as generators report it.")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--freeze", type=float, default=1.0)
    options = parser.parse_args()
    after = options.seconds / 2
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with stall_server(after, options.freeze) as server:
            arguments = ("-u", "1", "--arrivals", "constant", "--user-rate", str(RATE))
            document = inferload(server.address, options.seconds, folder / "open", *arguments, model=MODEL)
        (froze_s,) = server.froze_s
        with stall_server(after, options.freeze) as server:
            closed = row_of(inferload(server.address, options.seconds, folder / "closed", "-u", "1", model=MODEL))
        with stall_server(after, options.freeze) as server:
            peer = stock(server.address, options.seconds, folder, users=STOCK_USERS, rate=RATE / STOCK_USERS)
    ours, due = row_of(document), document["rows"][0]["due"]
    freeze = {"rate": RATE, "requests": due, "freeze_s": froze_s, "service_s": ANSWER_S}
    known_p99, known_max = computed(99, **freeze), computed(100, **freeze)
    expected = Figures(RATE, ANSWER_S * 1e6, known_p99 * 1e6, None, known_max * 1e6)

    table = Table(
        title=f"bench_stall: a server that answers in {ANSWER_S * 1000:g} ms froze once for {froze_s:.3f} s in "
        f"{options.seconds:g} s; {conditions()}",
        title_justify="left",
    )
    for column in ("", "requests/s", "P50 ms", "P99 ms", "maximum ms", "P99 and maximum off by"):
        table.add_column(column)
    missed = 0
    rows = {
        "computed from the schedule": expected,
        f"locust -f loadgen/, constant {RATE}/s": ours,
        "locust -f loadgen/, closed, 1 user": closed,
        f"stock Locust, grpcio, constant_throughput {RATE}/s": peer,
    }
    for name, figures in rows.items():
        p50, p99, largest = figures.p50_us or 0.0, figures.p99_us or 0.0, figures.max_us or 0.0
        off = [abs(p99 / (known_p99 * 1e6) - 1), abs(largest / (known_max * 1e6) - 1)]
        if figures is ours:
            missed = max(off) > PROMISE or figures.errors > 0
        milliseconds = [f"{value / 1000:,.1f}" for value in (p50, p99, largest)]
        difference = "" if figures is expected else " and ".join(f"{part:.1%}" for part in off)
        verdict = f" (≤ {PROMISE:.0%}: {'MISSED' if missed else 'met'})" if figures is ours else ""
        table.add_row(name, f"{figures.rps:,.0f}", *milliseconds, difference + verdict)
    Console(width=150).print(table)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
