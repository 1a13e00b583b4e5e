"""Running Locust with `loadgen/` against workers, as a process of its own that leaves a run directory."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from capacity.errors import InputError
from capacity.experiments.processes import LaunchError, end_process, last_error_in, package_folder, start_process
from capacity.rundir import HLOG_NAME, JSON_NAME, Run

_START_TIMEOUT_S = 60.0
_POLL_S = 0.02


@dataclass(frozen=True)
class RunningLoad:
    """A load that is going on: its process, and the run directory that it will leave."""

    process: subprocess.Popen[bytes]
    directory: Path

    def wait_until_started(self, timeout_s: float = _START_TIMEOUT_S) -> None:
        """Waits until the run directory is there. Raises LaunchError where the load ends before that."""
        limit = time.monotonic() + timeout_s
        while not (self.directory / HLOG_NAME).exists():
            if self.process.poll() is not None or time.monotonic() > limit:
                raise LaunchError(f"the load did not start: {last_error_in(_log_file(self.directory))}")
            time.sleep(_POLL_S)

    def wait(self, seconds: float) -> None:
        """Waits so many seconds, or until the load ends if that is earlier."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, seconds))


def run_load(
    targets: Sequence[str],
    directory: Path,
    arguments: Sequence[str],
    seconds: float,
    during: Callable[[RunningLoad], None] | None = None,
) -> Run:
    """Runs `locust -f loadgen/ ARGUMENTS` for `seconds` against the addresses `targets`; calls `during` meanwhile.

    Returns the run, valid or not. Raises LaunchError where the load leaves no run in `directory`.
    """
    if (directory / HLOG_NAME).exists():
        raise InputError(f"{directory} already holds a run: choose another directory")
    directory.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "locust", "-f", str(package_folder("loadgen")), "--headless", "--only-summary"]
    command += ["--loglevel", "ERROR", "--targets", ",".join(targets), "-t", f"{seconds:.0f}s", *arguments]
    command += ["--run-dir", str(directory)]
    log_file = _log_file(directory)
    with log_file.open("w") as log:
        process = start_process(command, log.fileno())
    try:
        if during is not None:
            during(RunningLoad(process, directory))
        process.wait(2 * seconds + 120)
    except subprocess.TimeoutExpired:
        raise LaunchError(f"the load did not end: {last_error_in(log_file)}") from None
    finally:
        end_process(process)
    if not (directory / JSON_NAME).is_file():
        raise LaunchError(f"the load left no run: {last_error_in(log_file)}")
    return Run.load(directory)


def _log_file(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.log")
