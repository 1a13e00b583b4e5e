"""A fleet for a run that has no targets: ResNet-18 on every cpu ordinal of this machine, ended with the run."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gevent

from loadgen._errors import InputError
from worker.wire import read_targets_file

MODEL = "resnet18"
#: Exporting, and one process per ordinal that imports torch and warms up.
START_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 30.0


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inferload"


class EmbeddedFleet:
    """`python -m worker fleet` in a session of its own, so that Ctrl-C reaches it only after the run has ended."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="inferload-")
        self._file = Path(self._folder.name) / "targets.json"
        self._errors = Path(self._folder.name) / "fleet.log"
        model = self._model()
        ordinals = self._ordinals()
        with self._errors.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "worker", "fleet", str(model)),
                    *("--accelerators", ",".join(ordinals), "--targets-file", str(self._file)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        atexit.register(self.stop)

    @property
    def targets(self) -> str:
        """What --targets would have said."""
        return f"@{self._file}"

    @property
    def accelerators(self) -> str:
        """Which ordinals it took, for the line that says so."""
        return ", ".join(entry.accelerator for entry in read_targets_file(self._file))

    @staticmethod
    def _model() -> Path:
        path = _cache() / f"{MODEL}.pt"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            _worker("export", MODEL, "--mode", "trace", "--out", str(path))
        return path

    @staticmethod
    def _ordinals() -> list[str]:
        found = json.loads(_worker("accelerators", "--json"))
        return [f"cpu:{device['ordinal']}" for device in found["devices"] if device["kind"] == "cpu"]

    def wait(self) -> None:
        """Until all workers are ready. Raises InputError with the fleet's own words where it fails."""
        limit = time.monotonic() + START_TIMEOUT_S
        while not self._file.is_file():
            if self._process.poll() is not None or time.monotonic() > limit:
                said = self._errors.read_text(errors="replace").strip().splitlines()
                self.stop()
                raise InputError(f"the embedded fleet did not start: {said[-1] if said else 'it said nothing'}")
            gevent.sleep(0.05)

    def stop(self) -> None:
        """Ends the fleet and waits for it. A second time does nothing."""
        atexit.unregister(self.stop)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._folder.cleanup()


def _worker(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "worker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise InputError(f"no targets given, and no embedded fleet: {said[-1] if said else 'worker said nothing'}")
    return done.stdout
