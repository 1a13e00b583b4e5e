"""Starting and ending processes: each ends with the process that started it, and its output goes to a file."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

from capacity.errors import CapacityError
from worker.wire import display_duration

#: How long a process may take to end after SIGTERM before it is killed, in seconds.
END_TIMEOUT_S = 45.0
#: How long a command of the worker that prints its answer may take: it imports torch, in seconds.
COMMAND_TIMEOUT_S = 300.0
# prctl(2): the signal that a process gets when its parent ends.
_PR_SET_PDEATHSIG = 1


class LaunchError(CapacityError):
    """A process did not start, or did not do its work. The message quotes the last error of its output, in one line."""


def package_folder(name: str) -> Path:
    """Returns the folder of an installed package without importing it. Raises LaunchError where there is none."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise LaunchError(f"the package {name} is not installed here: pip install inferload")
    return Path(next(iter(spec.submodule_search_locations)))


def run_worker_command(*arguments: str) -> str:
    """Runs `python -m worker ARGUMENTS` to its end and returns its standard output. Raises LaunchError if it fails."""
    package_folder("worker")
    try:
        process = subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise LaunchError(f"worker {arguments[0]} did not end within {display_duration(COMMAND_TIMEOUT_S)}") from None
    if process.returncode:
        raise LaunchError(f"worker {arguments[0]} failed: {last_error(process.stderr or process.stdout)}")
    return process.stdout


def start_process(command: list[str], output: int) -> subprocess.Popen[bytes]:
    """Starts a command whose output goes to the file descriptor `output`. On Linux it ends when this process ends."""
    parent = os.getpid()
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        # Ctrl-C in a terminal must not reach it before this process has ended its run.
        start_new_session=True,
        preexec_fn=lambda: _end_with(parent),
        env={**os.environ, "INFERLOAD_TARGETS": "", "PYTHONUNBUFFERED": "1"},
    )


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Ends a process with SIGTERM, and with SIGKILL where that does not help, and waits for it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def last_error(output: str) -> str:
    """Returns the last line of a process's output that reports an error, else its last line, at most 300 characters."""
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or line.startswith("inferload:")]
    return (errors or lines or ["it printed nothing"])[-1].strip()[:300]


def last_error_in(path: Path) -> str:
    """Returns `last_error` of a log file; a file that is not there has no lines."""
    try:
        return last_error(path.read_text(errors="replace"))
    except OSError:
        return last_error("")
