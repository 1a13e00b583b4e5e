"""`python -m capacity stress` with real workers and Locust: it finds what was put there, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from capacity.experiments.stress import StressResult


def stress(folder: Path, *arguments: str) -> StressResult:
    done = subprocess.run(
        [sys.executable, "-m", "capacity", "stress", *arguments, "--out", "out"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        timeout=150,
        check=False,
    )
    assert (folder / "out" / "stress.json").is_file(), done.stdout + done.stderr
    result = StressResult.load(folder / "out" / "stress.json")
    # A busy machine may find a run not valid, and the exit code says so.
    assert done.returncode == (0 if result.passed else 1), done.stdout + done.stderr
    assert result.simulated
    assert "simulated" in (folder / "out" / "stress.html").read_text()
    assert all((folder / "out" / run / "report.html").is_file() for run in result.runs)
    return result


def left_in(folder: Path) -> list[str]:
    """Workers and generators whose working directory is the test's."""
    processes = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        if process.info["cwd"] == str(folder) and process.pid != os.getpid():
            processes.append(" ".join(process.info["cmdline"] or []))
    return processes


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert left_in(tmp_path) == []


def test_what_neighbours_cost_each_other_is_found(tmp_path: Path) -> None:
    # So much that a busy machine cannot hide it: what sim:1 does to sim:0 takes three times its own time.
    (tmp_path / "coupling.json").write_text(json.dumps({"sim:0": {"sim:1": 3.0}}))
    sims = ("--accelerators", "sim:0,sim:1", "--sim", "fixed:10ms", "--sim-coupling", "coupling.json")
    result = stress(tmp_path, "interference", *sims, "--for", "1s", "--slo", "p90=100ms").interference

    assert result is not None
    cost = {(one.ordinal, one.neighbour): one.time_growth.value or 0.0 for one in result.neighbours}
    assert set(cost) == {("sim:0", "sim:1"), ("sim:1", "sim:0")}
    assert cost["sim:0", "sim:1"] > 1.0
    assert cost["sim:0", "sim:1"] > 3 * cost["sim:1", "sim:0"]
    assert [one.ordinal for one in result.ordinals] == ["sim:0", "sim:1"]
    # And what it takes of the rate within the SLO, of each ordinal from its own times.
    lost = {one.ordinal: one.slo_rate_loss.value or 0.0 for one in result.neighbours if one.slo_rate_loss}
    assert lost["sim:0"] > 0.5
    assert lost["sim:0"] > lost["sim:1"]
    assert (result.ordinals[0].slo_rate_together_rps or 0.0) < 0.5 * (result.ordinals[0].slo_rate_alone_rps or 0.0)


def test_a_slowed_worker_need_not_be_down_and_goodput_comes_back(tmp_path: Path) -> None:
    sims = ("--accelerators", "sim:0,sim:1,sim:2", "--sim", "fixed:10ms")
    result = stress(tmp_path, "loss", *sims, "--fault", "slow", "--for", "10s")

    statuses = {check.name: check.status for check in result.checks}
    assert statuses["every request accounted for"] == "PASS"
    assert statuses["detected"] == "PASS"
    before, during, after = (float(row[2]) for row in result.tables[0].rows)
    assert min(before, during, after) > 0
    assert "not counted as down, the fault ended after" in result.summary[0] or result.figures["detected_s"] is not None


def test_a_hung_worker_is_noticed_and_every_request_accounted_for(tmp_path: Path) -> None:
    sims = ("--accelerators", "sim:0,sim:1,sim:2", "--sim", "fixed:10ms")
    result = stress(tmp_path, "loss", *sims, "--fault", "hang", "--fault-ordinal", "sim:1", "--for", "5s")

    statuses = {check.name: check.status for check in result.checks}
    assert statuses["every request accounted for"] == "PASS"
    assert result.figures["detected_s"] is not None
    assert result.figures["recovered_s"] is not None
    assert result.figures["detected_s"] < result.figures["recovered_s"]
    assert any("sim:1" in cell for table in result.tables for row in table.rows for cell in row)


def test_the_slower_of_three_is_named(tmp_path: Path) -> None:
    (tmp_path / "slow.json").write_text(json.dumps({"sim:1": {"sim:1": 1.0}}))
    sims = ("--accelerators", "sim:0,sim:1,sim:2", "--sim", "fixed:10ms", "--sim-coupling", "slow.json")
    result = stress(tmp_path, "skew", *sims, "--for", "8s")

    odd = next(check for check in result.checks if check.name == "slower ordinals")
    assert odd.status == "FAIL"
    assert str(odd.value).startswith("sim:1 @ ")
    assert result.summary[0].endswith("It is simulated (fixed:10ms, coupled slow.json).")


def test_a_soak_says_its_course_and_counts_every_request(tmp_path: Path) -> None:
    sims = ("--accelerators", "sim:0,sim:1", "--sim", "fixed:10ms")
    result = stress(tmp_path, "soak", *sims, "--for", "9s", "--at", "50%")

    statuses = {check.name: check.status for check in result.checks}
    assert statuses["every request accounted for"] == "PASS"
    assert {"memory of generator", "file descriptors of sim:0", "threads of sim:1"} <= set(statuses)
    cold, settled = result.figures["cold_rps"], result.figures["settled_rps"]
    assert cold is not None
    assert settled is not None
    assert min(cold, settled) > 0
    assert result.figures["offered_rps"] == 0.5 * cold
    assert len(result.tables[0].rows) == 8


def test_more_than_can_be_done_is_refused_and_counted(tmp_path: Path) -> None:
    sims = ("--accelerators", "sim:0,sim:1", "--sim", "fixed:10ms", "--max-queue-size", "4")
    result = stress(tmp_path, "overload", *sims, "--for", "4s", "--at", "200%")

    statuses = {check.name: check.status for check in result.checks}
    assert statuses["every request accounted for"] == "PASS"
    assert {"goodput against saturated throughput", "P99 of rejections", "longest wait in a queue"} <= set(statuses)
    answered, rejected = (int(row[1]) for row in result.tables[0].rows)
    assert answered > 0
    assert f"rejected: {rejected} UNAVAILABLE." in result.summary[0]


def test_a_trace_of_bursts_is_played_whole(tmp_path: Path) -> None:
    arrivals = [at / 20 for at in range(40)] + [1.0 + at / 500 for at in range(100)]
    (tmp_path / "trace.csv").write_text("arrival_s\n" + "".join(f"{at}\n" for at in sorted(arrivals)))
    sims = ("--accelerators", "sim:0,sim:1", "--sim", "fixed:10ms")
    result = stress(tmp_path, "burst", *sims, "--trace", "trace.csv")

    [accounted] = [check for check in result.checks if check.name == "every request accounted for"]
    # The first request to each target is a warm-up.
    assert (accounted.status, accounted.threshold) == ("PASS", f"{len(arrivals) - 2} due")
    assert str(accounted.value) == f"{len(arrivals) - 2} answered, 0 failed, 0 unsent"
    assert result.summary == ["Bursts: trace.csv."]
