"""Starting a fleet of workers on this machine and waiting until it is ready."""

from __future__ import annotations

import atexit
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from capacity.experiments.processes import LaunchError, end_process, last_error_in, package_folder, start_process
from worker.wire import display_duration, read_targets_file

#: How long a fleet may take to be ready: one process per ordinal imports torch and warms up, in seconds.
READY_TIMEOUT_S = 300.0
_POLL_S = 0.05


class RunningFleet:
    """A fleet that is ready. As a context manager it ends the fleet with the block; `stop` ends it otherwise."""

    def __init__(self, process: subprocess.Popen[bytes], folder: tempfile.TemporaryDirectory[str], file: Path) -> None:
        self._process, self._folder = process, folder
        #: The targets file that the fleet has written, there until the fleet is stopped.
        self.targets_file = file
        self.workers = read_targets_file(file)
        atexit.register(self.stop)

    @property
    def addresses(self) -> list[str]:
        """The address of each worker."""
        return [worker.address for worker in self.workers]

    def stop(self) -> None:
        """Ends all workers and waits for them. A second call does nothing."""
        atexit.unregister(self.stop)
        end_process(self._process)
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_fleet(arguments: Sequence[str], folder: Path, timeout_s: float = READY_TIMEOUT_S) -> RunningFleet:
    """Starts `python -m worker fleet ARGUMENTS` and waits until all its workers are ready.

    Its output is appended to `folder`/fleet.log. Raises LaunchError, with the fleet's last error, where it ends or is
    not ready within `timeout_s` seconds; then nothing of it is left.
    """
    package_folder("worker")
    log_file = folder / "fleet.log"
    scratch = tempfile.TemporaryDirectory(prefix="inferload-fleet-")
    targets_file = Path(scratch.name) / "targets.json"
    command = [sys.executable, "-m", "worker", "fleet", *arguments, "--targets-file", str(targets_file)]
    with log_file.open("ab") as log:
        process = start_process(command, log.fileno())
    try:
        limit = time.monotonic() + timeout_s
        while not targets_file.is_file():
            if process.poll() is not None:
                raise LaunchError(f"the fleet did not start: {last_error_in(log_file)}")
            if time.monotonic() > limit:
                raise LaunchError(f"the fleet was not ready within {display_duration(timeout_s)}")
            time.sleep(_POLL_S)
        return RunningFleet(process, scratch, targets_file)
    except BaseException:
        end_process(process)
        scratch.cleanup()
        raise
