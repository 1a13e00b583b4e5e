"""The load generators that are compared, each driven once: ours, stock Locust with grpcio, perf_analyzer and h2load."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from null_server import MODEL, SERVICE, infer_request

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "tools"))

from environments import NotAvailable, debian_library, environment  # noqa: E402

__all__ = ["NotAvailable"]

GENERATOR_CORE, SERVER_CORE = 0, 1
SLACK_S = 90


def conditions() -> str:
    """What every table says of the machine, at its end: how busy it was, and whether these processes went first."""
    priority = os.getpriority(os.PRIO_PROCESS, 0)
    nice = f", all at niceness {priority}" if priority else ""
    first = ", all at real-time priority" if os.sched_getscheduler(0) == os.SCHED_FIFO else ""
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores{nice}{first}"


def exit_code(benchmark: Callable[[], int]) -> int:
    """What the benchmark returns; 2 with one line on stderr where something that it needs is not here or fails."""
    try:
        return benchmark()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        print(f"error: not measured: {error}", file=sys.stderr)
        return 2


@dataclass(frozen=True)
class Figures:
    """What one generator reported of one run; times in µs, None where it does not say."""

    rps: float
    p50_us: float | None = None
    p99_us: float | None = None
    p999_us: float | None = None
    max_us: float | None = None
    errors: int = 0


def inferload(address: str, seconds: float, folder: Path, *options: str, model: str = MODEL) -> dict[str, Any]:
    """`locust -f loadgen/ --headless` on the generator's core; run.json, whatever its verdict on the run."""
    arguments = ["--headless", "--only-summary", "--loglevel", "WARNING", "-t", f"{seconds:g}s", "--targets", address]
    arguments += ["--model", model, "--hardware", "null server", "--run-dir", str(folder), *options]
    _locust(ROOT / "loadgen", arguments, seconds, accepted=(0, 1))
    document: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return document


def stock(address: str, seconds: float, folder: Path, *, users: int, rate: float = 0) -> Figures:
    """Locust as it comes, with the user of its documentation; `rate` requests a second of each user, 0 for closed."""
    arguments = ["--headless", "--only-summary", "--loglevel", "WARNING", "-t", f"{seconds:g}s", "-H", address]
    arguments += ["-u", str(users), "-r", str(users), "--csv", str(folder / "stock")]
    file = ROOT / "benchmarks" / "locustfiles" / "stock_grpcio.py"
    _locust(file, arguments, seconds, accepted=(0,), STOCK_RATE=str(rate))
    with (folder / "stock_stats.csv").open(newline="") as table:
        (row,) = [row for row in csv.DictReader(table) if row["Name"] == "Aggregated"]
    p50, p99, p999, largest = (float(row[name]) * 1000 for name in ("50%", "99%", "99.9%", "100%"))
    return Figures(float(row["Requests/s"]), p50, p99, p999, largest, int(row["Failure Count"]))


def perf_analyzer(address: str, seconds: float, *options: str) -> Figures:
    """NVIDIA's generator, synchronous: asynchronous calls of it need their ids back, which a fixed reply has not.

    Raises NotAvailable where it cannot be installed.
    """
    home = environment("tritonclient")
    libraries = [debian_library("libb64-0d"), next(home.rglob("libcudart.so*")).parent]
    # Three windows are the fewest; -s 999 takes them as they are.
    window = ["-p", f"{seconds * 1000 / 3:.0f}", "-r", "3", "-s", "999", "--percentile", "50"]
    command = [home / "bin/perf_analyzer", "-m", MODEL, "-u", address, "-i", "grpc", *window, *options]
    output = _run(command, seconds, LD_LIBRARY_PATH=":".join(map(str, libraries)))
    times = {name: float(value) for name, value in re.findall(r"(p\d+) latency: (\d+) usec", output)}
    return Figures(_number(r"Throughput: ([\d.]+) infer/sec", output), times.get("p50"), times.get("p99"))


def h2load(address: str, seconds: float, folder: Path, *, in_flight: int, rate: float = 0) -> Figures:
    """nghttp2's generator on one connection; `rate` requests a second, 0 for as many as go.

    It keeps a rate by a burst every 10 ms: with one in flight the requests of a burst do not wait for each other.
    """
    if shutil.which("h2load") is None:
        raise FileNotFoundError("h2load is not installed (Debian: apt-get install nghttp2-client)")
    message = infer_request()
    body, log = folder / "body", folder / "h2load.log"
    body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    log.unlink(missing_ok=True)
    command = ["h2load", "-D", f"{seconds:g}", "-c", "1", "-t", "1", "-m", str(in_flight), "-d", body]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    # The log of every request costs h2load time: only where its percentiles are wanted.
    command += [f"--rps={rate:g}", f"--log-file={log}"] if rate else []
    output = _run([*command, f"http://{address}{SERVICE}ModelInfer"], seconds)
    failed = int(_number(r"(\d+) failed", output))
    rps = _number(r"finished in [\d.]+m?s, ([\d.]+) req/s", output)
    if not rate:
        return Figures(rps, errors=failed)
    p50, p99, p999, largest = (float(value) for value in np.percentile(np.loadtxt(log, usecols=2), [50, 99, 99.9, 100]))
    return Figures(rps, p50, p99, p999, largest, failed)


def _locust(file: Path, arguments: list[str], seconds: float, *, accepted: tuple[int, ...], **variables: str) -> None:
    path = os.pathsep.join((str(ROOT), str(ROOT / "benchmarks")))
    command = [sys.executable, "-m", "locust", "-f", file, *arguments]
    _run(command, seconds, accepted=accepted, PYTHONPATH=path, INFERLOAD_TARGETS="", **variables)


def _run(command: list[Any], seconds: float, *, accepted: tuple[int, ...] = (0,), **variables: str) -> str:
    pinned = ["taskset", "-c", str(GENERATOR_CORE), *map(str, command)]
    done = subprocess.run(
        pinned, capture_output=True, text=True, timeout=seconds + SLACK_S, env={**os.environ, **variables}, check=False
    )
    if done.returncode not in accepted:
        raise RuntimeError(f"{' '.join(map(str, command[:4]))} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def _number(pattern: str, text: str) -> float:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"no match for {pattern!r} in: {text[-2000:]}")
    return float(match[1])
