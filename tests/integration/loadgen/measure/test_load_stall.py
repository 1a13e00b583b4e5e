"""A server that freezes for a second: what is measured is what the schedule says, to 3 %, but not in a closed loop."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[4]
RATE, SECONDS, FREEZE_S = 200, 6, 1.0
ANSWER_S = 0.001


class Stalling:
    """`benchmarks/stall_server.py` in a process of its own; it freezes once, `after_s` after its first inference."""

    def __init__(self, after_s: float) -> None:
        command = [sys.executable, ROOT / "benchmarks" / "stall_server.py"]
        self.process = subprocess.Popen(
            [*command, "--after", str(after_s), "--freeze", str(FREEZE_S)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().split()[1]

    def end(self) -> list[float]:
        """How long each freeze really was, in seconds."""
        self.process.terminate()
        told, _ = self.process.communicate(timeout=30)
        return [float(line.split()[1]) for line in told.splitlines() if line.startswith("froze ")]


@pytest.fixture
def stalling() -> Iterator[Stalling]:
    server = Stalling(after_s=SECONDS / 2)
    yield server
    if server.process.poll() is None:
        server.process.kill()
        server.process.communicate()


def measured(locust: Callable[..., Any], tmp_path: Path, address: str, *options: str) -> dict[str, Any]:
    ended = locust(
        *("--headless", "-t", f"{SECONDS}s", "--targets", address, "--model", "stall", "--hardware", "a server"),
        *("--run-dir", "run", "-u", "1", *options),
    )
    assert ended.code in (0, 1), ended.err
    (row,) = json.loads((tmp_path / "run" / "run.json").read_text())["rows"]
    assert (row["errors"], row["answered"]) == ({}, row["requests"])
    return dict(row)


def test_an_open_loop_feels_the_whole_freeze(stalling: Stalling, locust: Callable[..., Any], tmp_path: Path) -> None:
    row = measured(locust, tmp_path, stalling.address, "--arrivals", "constant", "--user-rate", str(RATE))
    (froze_s,) = stalling.end()

    # Those due in the freeze wait for its end: the first for all of it, each next one 5 ms less. On average it begins
    # in the middle between two due times.
    latencies = [ANSWER_S] * row["requests"]
    for number in range(int(froze_s * RATE)):
        latencies[number] += froze_s - (number + 0.5) / RATE
    latencies.sort()
    rank = -(-len(latencies) * 99 // 100)
    assert row["requests"] == pytest.approx(RATE * SECONDS, rel=0.05)
    assert row["latency_us"]["p99"] == pytest.approx(latencies[rank - 1] * 1e6, rel=0.03)
    assert row["latency_us"]["max"] == pytest.approx(latencies[-1] * 1e6, rel=0.03)
    # Only those that were due in the freeze waited.
    assert row["latency_us"]["p50"] < 0.1 * froze_s * 1e6


def test_a_closed_loop_hides_the_freeze_from_its_percentiles(
    stalling: Stalling, locust: Callable[..., Any], tmp_path: Path
) -> None:
    row = measured(locust, tmp_path, stalling.address)
    (froze_s,) = stalling.end()

    assert row["latency_us"]["max"] == pytest.approx(froze_s * 1e6, rel=0.03)
    assert row["latency_us"]["p99"] < 0.1 * froze_s * 1e6
