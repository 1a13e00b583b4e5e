"""A fleet starts together, writes its targets file, and leaves nothing behind however it ends."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tools.processes import wait_for

Start = Callable[..., "subprocess.Popen[str]"]
SIM = ("--sim", "fixed:1ms", "--sim-host", "c5.large", "--sim-type", "eia2.medium")
TWO = ("--accelerators", "sim:0,sim:1", *SIM)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", "fleet", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ready(process: "subprocess.Popen[str]", count: int = 2) -> list[list[str]]:
    """The words of the ready lines, once there are `count`."""
    assert process.stdout is not None
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    lines = [process.stdout.readline().split() for _ in range(count)]
    watchdog.cancel()
    assert [line[0] for line in lines] == ["ready"] * count, process.communicate()
    return lines


def workers(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return [child for child in psutil.Process(process.pid).children() if "serve" in child.cmdline()]


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=20)[1]


def test_a_command_is_run_with_the_targets_and_its_code_is_the_fleets(fleet: Start, tmp_path: Path) -> None:
    show = "import os, json; print(os.environ['INFERLOAD_TARGETS'], open('t.json').read()); raise SystemExit(7)"
    process = fleet(*TWO, "--targets-file", "t.json", "--", sys.executable, "-c", show)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 7, err
    addresses, _, text = out.partition(" ")
    targets = json.loads(text)
    assert targets["schema"] == 1
    assert [target["address"] for target in targets["targets"]] == addresses.split(",")
    assert [(target["accelerator"], target["model"]) for target in targets["targets"]] == [
        ("sim:0", "sim"),
        ("sim:1", "sim"),
    ]
    assert "starting 2 workers: sim:0, sim:1" in err
    for target in targets["targets"]:
        assert not psutil.pid_exists(target["pid"])
    assert not (tmp_path / "t.json").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_everything_it_started(fleet: Start, tmp_path: Path, how: signal.Signals) -> None:
    process = fleet(*TWO, "--targets-file", "t.json")
    ready(process)
    children = workers(process)
    assert len(children) == 2
    wait_for((tmp_path / "t.json").exists)  # it comes after the last ready line
    process.send_signal(how)
    assert process.wait(30) == 0
    assert gone(children)
    assert not (tmp_path / "t.json").exists()


def test_a_signal_reaches_the_command_and_the_fleet_waits_for_it(fleet: Start) -> None:
    script = (
        "import signal, sys\n"
        "def heard(number, frame):\n    print('heard', number, flush=True)\n    sys.exit(5)\n"
        "signal.signal(signal.SIGINT, heard)\nprint('waiting', flush=True)\nsignal.pause()\n"
    )
    process = fleet(*TWO, "--", sys.executable, "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    children = workers(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 5
    assert process.stdout.read() == "heard 2\n"
    assert gone(children)


def test_nothing_is_left_when_the_fleet_is_killed(fleet: Start) -> None:
    process = fleet(*TWO)
    ready(process)
    children = workers(process)
    process.kill()
    process.wait(10)
    assert gone(children)


def test_a_worker_that_cannot_start_ends_the_fleet_with_its_message(fleet: Start, tmp_path: Path) -> None:
    process = fleet("none.pt", "--accelerators", "sim:0,cpu:0", "--targets-file", "t.json")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.splitlines()[-1] == "error: none.pt does not exist"
    assert not (tmp_path / "t.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--accelerators", ""), "is empty"),
        (("--accelerators", "sim:0,sim:0"), "names sim:0 twice"),
        (("--accelerators", "sim"), "needs ordinals"),
        (("--accelerators", "tpu"), "unknown kind of accelerator"),
        (("--accelerators", "sim:0", "--targets-file", "no/such/t.json"), "cannot be written"),
        (("--accelerators", "sim:0", "--", "no-such-command"), "no-such-command cannot be run"),
    ],
)
def test_wrong_input_is_one_line(fleet: Start, arguments: tuple[str, ...], words: str) -> None:
    process = fleet(*arguments)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    line = err.splitlines()[-1]
    assert line.startswith("error: ")
    assert words in line
    assert "Traceback" not in err


def test_a_worker_that_was_killed_is_restarted_at_its_address(fleet: Start) -> None:
    process = fleet("--accelerators", "sim:0", *SIM, "--restarts", "1")
    ((_, address, _, _),) = ready(process, 1)
    assert process.stderr is not None
    assert "starting 1 worker" in process.stderr.readline()
    (first,) = workers(process)
    first.kill()
    assert f"worker sim:0 at {address} ended with SIGKILL; restart 1 of 1" in process.stderr.readline()
    assert f"worker sim:0 at {address} is ready again" in process.stderr.readline()
    (second,) = workers(process)
    assert second.pid != first.pid
    assert statistics(address)["workers"][0]["requests"] == 0
    second.kill()
    assert "it was restarted 1 times and is not started again" in process.stderr.readline()
    assert process.wait(20) == 1
    assert "error: no worker is left" in process.stderr.read()


def statistics(targets: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "worker", "statistics", "--targets", targets, "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)


def test_statistics_count_what_each_worker_served(fleet: Start, tmp_path: Path) -> None:
    process = fleet(*TWO, "--targets-file", "t.json")
    ready(process)
    document = statistics(f"@{tmp_path / 't.json'}")
    assert document["requests"] == 0
    assert [(row["accelerator"], row["host_type"], row["simulated"]) for row in document["workers"]] == [
        ("sim:0", "c5.large", True),
        ("sim:1", "c5.large", True),
    ]
    down = statistics("127.0.0.1:1")
    assert down["workers"] == [{"address": "127.0.0.1:1", "error": "UNAVAILABLE"}]


def test_sixteen_simulated_workers_start_on_two_cores(fleet: Start) -> None:
    names = [f"sim:{number}" for number in range(16)]
    process = fleet("--accelerators", ",".join(names), *SIM)
    lines = ready(process, 16)
    assert [line[2] for line in lines] == names
    assert len({line[1] for line in lines}) == 16
    children = workers(process)
    assert len(children) == 16
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 0
    assert gone(children)
