"""Real processes for tests: workers on port 0, and Locust as a user starts it. Whatever is started here ends here."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tools.processes import ENVIRONMENT, hear_ctrl_c

ROOT = Path(__file__).parent.parent
READY_TIMEOUT_S = 90


@dataclass
class Worker:
    """A worker process that said it was ready."""

    address: str
    process: subprocess.Popen[str]

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Signals the worker and waits for it; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(30)


def _start(arguments: tuple[str, ...], cwd: Path) -> Worker:
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=ENVIRONMENT,
    )
    # A worker that hangs before it is ready must fail the test with its own words, not block the read for ever.
    watchdog = threading.Timer(READY_TIMEOUT_S, process.kill)
    watchdog.start()
    assert process.stdout is not None
    line = process.stdout.readline()
    watchdog.cancel()
    if not line.startswith("ready "):
        process.kill()
        raise AssertionError(f"worker {arguments} did not become ready: {line}{process.communicate()[1]}")
    return Worker(line.split()[1], process)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """`serve("--accelerator", "sim:0", …)` starts a worker; all end with the test."""
    started: list[Worker] = []

    def start(*arguments: str) -> Worker:
        worker = _start(arguments, tmp_path)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.end()
        if worker.process.poll() is None:
            worker.process.kill()
        worker.process.communicate()


@dataclass(frozen=True)
class Finished:
    """A process that ended: its exit code and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def locust(tmp_path: Path) -> Callable[..., Finished]:
    """`locust("--headless", "-u", "1", …)` runs `locust -f loadgen/` in the test's folder until it ends."""

    def run(*arguments: str, timeout: float = 90, environment: dict[str, str] | None = None) -> Finished:
        done = subprocess.run(
            [sys.executable, "-m", "locust", "-f", str(ROOT / "loadgen"), "--only-summary", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**ENVIRONMENT, **(environment or {})},
            timeout=timeout,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def start_locust(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """As `locust`, but returns the running process, for a test that does something to it."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **more: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "locust", "-f", str(ROOT / "loadgen"), "--only-summary", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=ENVIRONMENT,
            preexec_fn=hear_ctrl_c,
            **more,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
