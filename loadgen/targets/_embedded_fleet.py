"""The fleet of a run without targets: ResNet-18 on every cpu ordinal of this machine, ended with the run."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from capacity.experiments import LaunchError, run_worker_command, start_fleet
from loadgen._errors import InputError

MODEL = "resnet18"


class EmbeddedFleet:
    """A fleet that is ready when this object is made, after seconds. Raises InputError where it does not start."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="inferload-")
        try:
            arguments = [str(_model_file()), "--accelerators", ",".join(_cpu_ordinals())]
            self._fleet = start_fleet(arguments, Path(self._folder.name))
        except LaunchError as error:
            self._folder.cleanup()
            raise InputError(f"no targets given, and the embedded fleet did not start: {error}") from None

    @property
    def addresses(self) -> tuple[str, ...]:
        """The address of each worker."""
        return tuple(self._fleet.addresses)

    @property
    def accelerators(self) -> str:
        """The ordinals that it uses, for a message: cpu:0, cpu:1."""
        return ", ".join(worker.accelerator for worker in self._fleet.workers)

    def stop(self) -> None:
        """Ends the fleet and waits for it. A second call does nothing."""
        self._fleet.stop()
        self._folder.cleanup()


def _model_file() -> Path:
    """The exported model in the user's cache; exports it the first time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inferload"
    path = cache / f"{MODEL}.pt"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        run_worker_command("export", MODEL, "--mode", "trace", "--out", str(path))
    return path


def _cpu_ordinals() -> list[str]:
    devices = json.loads(run_worker_command("accelerators", "--json"))["devices"]
    return [f"cpu:{device['ordinal']}" for device in devices if device["kind"] == "cpu"]
