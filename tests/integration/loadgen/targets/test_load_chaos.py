"""A network that delays, splits, resets and swallows: every request is accounted for, and none is run twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tools.processes import served, wait_for
from tools.proxy import Chaos, proxy

SIM = ("--accelerator", "sim:0", "--sim", "fixed:2ms")
ROOT = Path(__file__).parents[4]


def row_of(directory: Path) -> dict[str, Any]:
    document = json.loads((directory / "run.json").read_text())
    (row,) = document["rows"]
    assert row["due"] == row["requests"] + row["unsent"]
    assert row["requests"] == row["answered"] + sum(row["errors"].values())
    first: dict[str, Any] = row
    return first


def test_late_and_split_bytes_are_answers_all_the_same(
    serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path
) -> None:
    worker = serve(*SIM)
    with proxy(worker.address) as network:
        network.chaos = Chaos(delay_s=0.01, split=True)
        load = ("--headless", "-u", "4", "--requests", "150", "--check-outputs", "1", "--connections", "2")
        locust(*load, "--targets", network.address, "--run-dir", "run")

    row = row_of(tmp_path / "run")
    assert (row["requests"], row["errors"]) == (150, {})
    assert served(worker.address) == row["requests"] + row["warmup"]["requests"]


def test_resets_and_swallowed_bytes_cost_what_was_in_flight_and_nothing_is_run_twice(
    serve: Callable[..., Any], start_locust: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    worker = serve(*SIM)
    with proxy(worker.address) as network:
        load = start_locust(
            *("--headless", "-u", "5", "--user-rate", "20", "--arrivals", "constant", "--deadline", "20s"),
            *("--retries", "5", "--targets", network.address, "--run-dir", "run"),
        )

        def goes_on() -> None:
            there = served(worker.address)
            wait_for(lambda: served(worker.address) > there + 20)

        goes_on()
        network.reset()
        goes_on()
        # Bytes vanish without an error: only a PING without an answer shows it, long before the deadline of 20 s.
        network.hold()
        goes_on()
        load.send_signal(15)
        load.communicate(timeout=40)
        connections = network.connections

    row = row_of(tmp_path / "run")
    assert connections >= 3
    assert set(row["errors"]) == {"UNAVAILABLE"}
    # In flight when the bytes vanished, for the half second until a PING failed, and at the reset.
    assert row["errors"]["UNAVAILABLE"] < row["answered"]
    assert served(worker.address) <= row["requests"] + row["warmup"]["requests"]


NETEM = ("delay", "5ms", "2ms", "reorder", "25%", "duplicate", "1%", "loss", "1%")


@pytest.fixture
def namespace() -> Iterator[tuple[str, ...]]:
    """The start of a command that runs in a network namespace of the test, whose loopback netem disturbs."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("tc"):
        pytest.skip("network namespaces need root, ip and tc")
    name = f"inferload-{os.getpid()}"

    def run(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else (done.stderr or "failed").strip().splitlines()[0]

    if error := run("ip", "netns", "add", name):
        pytest.skip(f"this kernel makes no network namespace: {error}")
    try:
        inside = ("ip", "netns", "exec", name)
        error = run(*inside, "ip", "link", "set", "lo", "up")
        error = error or run(*inside, "tc", "qdisc", "add", "dev", "lo", "root", "netem", *NETEM)
        if error:
            pytest.skip(f"this kernel has no netem: {error}")
        yield inside
    finally:
        run("ip", "netns", "del", name)


def test_a_network_that_loses_reorders_and_doubles_packets(namespace: tuple[str, ...], tmp_path: Path) -> None:
    load = ["-m", "locust", "-f", str(ROOT / "loadgen"), "--headless", "--only-summary", "-u", "4", "--requests", "150"]
    command = [
        *namespace,
        sys.executable,
        "-m",
        "worker",
        "fleet",
        "--accelerators",
        "sim:0",
        "--sim",
        "fixed:2ms",
        "--",
    ]
    subprocess.run(
        [*command, sys.executable, *load, "--check-outputs", "1", "--run-dir", str(tmp_path / "run")],
        check=False,
        timeout=120,
        capture_output=True,
        cwd=tmp_path,
    )

    row = row_of(tmp_path / "run")
    assert (row["requests"], row["errors"]) == (150, {})


def test_a_trace_whose_last_answer_comes_when_the_run_is_ending_leaves_a_whole_run(
    serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path
) -> None:
    worker = serve("--accelerator", "sim:0", "--sim", "fixed:400ms")
    (tmp_path / "trace.csv").write_text("arrival_s\n" + "".join(f"0.{n}\n" for n in range(1, 7)))
    load = ("--headless", "-u", "1", "-t", "1s", "--arrivals", "trace:trace.csv", "--targets", worker.address)

    locust(*load, "--run-dir", "run")

    assert row_of(tmp_path / "run")["requests"] == 5
