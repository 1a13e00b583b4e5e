"""Workers and load as processes of their own, by the product's own commands; what is started here ends here."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from capacity.rundir.run import HLOG_NAME, JSON_NAME, Run

#: How long a fleet may take to be ready, and a process to end by itself once it was asked to.
READY_S, END_S = 300.0, 45.0
_PR_SET_PDEATHSIG = 1


class LaunchFailed(ValueError):
    """A process that was started failed: its own last words, in one line."""


@dataclass(frozen=True)
class Worker:
    """One target of a load. `pid` is 0 where it is not known to be a process of this host."""

    address: str
    accelerator: str = ""
    model: str = ""
    pid: int = 0


def package_folder(name: str) -> Path:
    """Where a package lies, without importing it."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise LaunchFailed(f"the package {name} is not installed here: pip install inferload")
    return Path(next(iter(found.submodule_search_locations)))


def read_targets(text: str) -> list[Worker]:
    """`A,B` or `@FILE` as a fleet writes it, whose process ids are of this host. ValueError in one sentence."""
    if not text.startswith("@"):
        return [Worker(address.strip()) for address in text.split(",") if address.strip()]
    try:
        entries = json.loads(Path(text[1:]).read_text(encoding="utf-8"))["targets"]
        return [
            Worker(
                str(one["address"]), str(one.get("accelerator", "")), str(one.get("model", "")), int(one.get("pid", 0))
            )
            for one in entries
        ]
    except OSError as error:
        raise ValueError(f"targets file {text[1:]}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"targets file {text[1:]}: not what `python -m worker fleet --targets-file` writes") from None


@contextlib.contextmanager
def fleet(arguments: Sequence[str], folder: Path) -> Iterator[list[Worker]]:
    """A fleet with these arguments of `python -m worker fleet`, ready; it ends with the block. Its log: `folder`."""
    package_folder("worker")
    with tempfile.TemporaryDirectory(prefix="inferload-fleet-") as scratch, (folder / "fleet.log").open("a") as log:
        targets = Path(scratch) / "targets.json"
        process = _start(
            [sys.executable, "-m", "worker", "fleet", *arguments, "--targets-file", str(targets)], log.fileno()
        )
        try:
            limit = time.monotonic() + READY_S
            while not targets.is_file():
                if process.poll() is not None:
                    raise LaunchFailed(f"the fleet did not start: {_last_line(folder / 'fleet.log')}")
                if time.monotonic() > limit:
                    raise LaunchFailed(f"the fleet was not ready within {READY_S:g} s")
                time.sleep(0.05)
            yield read_targets(f"@{targets}")
        finally:
            _end(process)


@dataclass(frozen=True)
class Running:
    """A load that goes on: its process, and the directory that it will leave."""

    process: subprocess.Popen[bytes]
    directory: Path

    def begun(self, timeout_s: float = 60.0) -> None:
        """Waits until the run has opened its directory. LaunchFailed where it ended before."""
        limit = time.monotonic() + timeout_s
        while not (self.directory / HLOG_NAME).exists():
            if self.process.poll() is not None or time.monotonic() > limit:
                raise LaunchFailed(f"the load did not start: {_last_line(_log_of(self.directory))}")
            time.sleep(0.02)

    def wait(self, seconds: float) -> None:
        """So long, or until it ends before."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, seconds))


def load(
    targets: Sequence[str],
    directory: Path,
    arguments: Sequence[str],
    seconds: float,
    during: Callable[[Running], None] | None = None,
) -> Run:
    """`locust -f loadgen/` for so many seconds against these targets; `during` is called while it goes on.

    The run is loaded whether or not it found itself valid. LaunchFailed where it left none.
    """
    if (directory / HLOG_NAME).exists():
        raise ValueError(f"{directory} holds a run already")
    directory.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "locust", "-f", str(package_folder("loadgen")), "--headless", "--only-summary"]
    command += ["--loglevel", "ERROR", "--targets", ",".join(targets), "-t", f"{seconds:.0f}s", *arguments]
    command += ["--run-dir", str(directory)]
    with _log_of(directory).open("w") as log:
        process = _start(command, log.fileno())
    try:
        if during is not None:
            during(Running(process, directory))
        process.wait(2 * seconds + 120)
    except subprocess.TimeoutExpired:
        raise LaunchFailed(f"the load did not end: {_last_line(_log_of(directory))}") from None
    finally:
        _end(process)
    if not (directory / JSON_NAME).is_file():
        raise LaunchFailed(f"the load left no run: {_last_line(_log_of(directory))}")
    return Run.load(directory)


def _log_of(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.log")


def _start(command: list[str], output: int) -> subprocess.Popen[bytes]:
    parent = os.getpid()
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        # Ctrl-C in a terminal is ours to hand on; a death of ours is the kernel's.
        start_new_session=True,
        preexec_fn=lambda: _die_with(parent),
        env={**os.environ, "INFERLOAD_TARGETS": "", "PYTHONUNBUFFERED": "1"},
    )


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def _last_line(path: Path) -> str:
    try:
        lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    told = [line for line in lines if "error" in line.lower() or line.startswith("inferload:")]
    return (told or lines or ["it says nothing"])[-1].strip()[:300]
