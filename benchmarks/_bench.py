"""What benchmarks of a server share: servers on one core, requests in a closed loop from another, a table of promises.

Every figure is a median of rounds. What is compared is measured in turn, in the same run.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
import gevent.event
from rich.console import Console
from rich.table import Table

from loadgen.transport import Channel, PreparedRequest, Reply
from worker.wire import open_inference_pb2 as oip

CLIENT_CORE, SERVER_CORE = 0, 1
INFER = "/inference.GRPCInferenceService/ModelInfer"
READY_S = 120
SETTLE_S = 0.5


@dataclass(frozen=True)
class Promise:
    """One row of the table: what was promised of a figure, and what it was in each round."""

    name: str
    # "≥" or "≤".
    sense: str
    bound: float
    rounds: Sequence[float]
    unit: str = "×"
    detail: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def met(self) -> bool:
        return self.median >= self.bound if self.sense == "≥" else self.median <= self.bound


def judge(title: str, promises: Sequence[Promise]) -> int:
    """Prints the table and the conditions; the exit code, 1 where a promise is missed."""
    table = Table(title=title, caption=f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for column in ("promise", "median", "bound", "rounds", "from", ""):
        table.add_column(column)
    for promise in promises:
        rounds = " ".join(f"{figure:.4g}" for figure in promise.rounds)
        bound = f"{promise.sense} {promise.bound:g} {promise.unit}"
        verdict = "met" if promise.met else "MISSED"
        table.add_row(promise.name, f"{promise.median:.4g} {promise.unit}", bound, rounds, promise.detail, verdict)
    Console(width=180).print(table)
    return 0 if all(promise.met for promise in promises) else 1


def pin_client() -> None:
    """Binds this process, the client, to its core."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    # gevent polls sockets once a switch interval; 5 ms would be the latency measured.
    sys.setswitchinterval(1e-4)


@contextlib.contextmanager
def server(command: Sequence[str | Path], ready: str, folder: Path, **variables: str) -> Iterator[str]:
    """Runs a server on its core until the block ends; the line that starts with `ready`, once it has printed it.

    RuntimeError with its output where it ends before.
    """
    log = folder / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), *command],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **variables},
        )
    try:
        until = time.monotonic() + READY_S
        while not (lines := [line for line in log.read_text().splitlines() if ready in line]):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command} did not become ready: {log.read_text()[-2000:]}")
            gevent.sleep(0.05)
        yield lines[0]
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def worker(folder: Path, *arguments: str | Path) -> Iterator[str]:
    """`python -m worker serve …` on the server's core, which is the only one that it sees, cpu:0; its address."""
    with server([sys.executable, "-m", "worker", "serve", *map(str, arguments)], "ready ", folder) as line:
        yield line.split()[1]


def request(model: str, name: str, datatype: str, shape: Sequence[int], elements: bytes) -> PreparedRequest:
    """An inference request with raw contents, framed once."""
    tensor: Any = {"name": name, "datatype": datatype, "shape": shape}
    message = oip.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[elements])
    return Channel.prepare(message.SerializeToString())


def closed_loop(address: str, payload: PreparedRequest, in_flight: int, seconds: float) -> tuple[float, float]:
    """Keeps `in_flight` requests going; answers a second, and their median latency in µs. RuntimeError if one fails."""
    channel = Channel(address, method=INFER)
    latencies: list[int] = []
    clock = time.perf_counter_ns
    begin = clock() + int(SETTLE_S * 1e9)
    end = begin + int(seconds * 1e9)
    failed: list[str] = []
    ended = gevent.event.Event()
    going = in_flight

    def send() -> None:
        sent = clock()

        def done(reply: Reply) -> None:
            nonlocal going
            now = clock()
            if reply.code:
                failed.append(f"{reply.code}: {reply.message}")
            elif begin <= now < end:
                latencies.append(now - sent)
            if now < end and not failed:
                send()
            else:
                going -= 1
                if not going:
                    ended.set()

        channel.start(payload, 60, done)

    for _ in range(in_flight):
        send()
    ended.wait()
    channel.close()
    if failed:
        raise RuntimeError(f"a request failed: {failed[0]}")
    if not latencies:
        raise RuntimeError(f"{address} answered none of {in_flight} in flight within {seconds} s: are its cores free?")
    return len(latencies) / seconds, statistics.median(latencies) / 1e3
