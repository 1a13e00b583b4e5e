"""A run beside Locust's other users: they find the process as Locust made it, unless an InferenceUser takes part."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIM = ("--sim", "fixed:2ms", "--sim-host", "c5.large", "--sim-type", "eia2.medium")

LOCUSTFILE = """
import gc
import signal
import sys
import time

import locust
import locust.stats
from locust import User, events, task
from locust.rpc import zmqrpc

SOCKETS = zmqrpc.Server, zmqrpc.Client


def state():
    interrupts, rounding = signal.getsignal(signal.SIGINT), locust.stats.bucket_response_time
    return sys.getswitchinterval(), gc.get_freeze_count(), interrupts, rounding


BEFORE = state()

from loadgen import InferenceUser


class Plain(User):
    @task
    def look(self):
        self.environment.events.request.fire(request_type="T", name="look", response_time=7, response_length=0)
        Plain.during = state()
        time.sleep(0.05)


class Mine(InferenceUser):
    pass


@events.test_stop.add_listener
def show_users(environment, **_):
    print("users", environment.runner.target_user_count, "plain saw", getattr(Plain, "during", None) == BEFORE)


@events.quit.add_listener
def show_state(**_):
    print("restored", state() == BEFORE, (zmqrpc.Server, zmqrpc.Client) == SOCKETS)
"""


def locust(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "both.py").write_text(LOCUSTFILE)
    return subprocess.run(
        [sys.executable, "-m", "locust", "-f", "both.py", "--headless", "--only-summary", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
        check=False,
    )


def test_a_run_without_an_inference_user_is_locusts_own(tmp_path: Path) -> None:
    done = locust(tmp_path, "-t", "1s", "Plain")

    assert done.returncode == 0, done.stderr
    assert "users 1 plain saw True" in done.stdout
    assert "restored True True" in done.stdout
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["both.py"]


def test_a_run_with_an_inference_user_gives_back_what_it_changed(serve: Callable[..., Any], tmp_path: Path) -> None:
    worker = serve("--accelerator", "sim:0", *SIM)

    done = locust(tmp_path, "-u", "2", "-t", "3s", "--targets", worker.address, "--run-dir", "run")

    assert done.returncode in (0, 1), done.stderr
    assert "users 2 plain saw False" in done.stdout
    assert "restored True True" in done.stdout
    assert (tmp_path / "run" / "report.html").exists()


def test_an_exception_in_a_users_own_requests_is_shown_and_fails_the_run(
    serve: Callable[..., Any], tmp_path: Path
) -> None:
    worker = serve("--accelerator", "sim:0", *SIM)
    (tmp_path / "failing.py").write_text(
        "from loadgen import InferenceUser\n\nclass Failing(InferenceUser):\n"
        "    def requests(self):\n        yield {}['missing']\n"
    )

    done = subprocess.run(
        [
            *(sys.executable, "-m", "locust", "-f", "failing.py", "--headless", "--only-summary"),
            *("-u", "1", "-t", "2s", "--targets", worker.address),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "KeyError: 'missing'" in done.stderr
