"""Telemetry of all hosts during a run: readings of generators and of targets into telemetry.csv."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from capacity.rundir import TelemetryReading, TelemetryWriter
from loadgen.targets import TargetTelemetry

_MAX_NAME = 200


class TelemetryRecorder:
    """Writes the telemetry of one run. Of what several processes read of the same host, the first one's is written.

    `targets` is asked at each `collect_targets`, and is closed at the end.
    """

    def __init__(self, directory: Path, targets: TargetTelemetry | None = None) -> None:
        self._writer: TelemetryWriter | None = TelemetryWriter(directory)
        self._targets = targets
        self._origin = time.monotonic()
        self._host_sources: dict[str, str] = {}
        self._generator_shares: dict[str, float] = {}

    @property
    def busiest_share(self) -> float | None:
        """The last reading of the busiest generator: its share of a core, 1.0 being all of it."""
        return max(self._generator_shares.values(), default=None)

    def record(self, generator: str, host: str, readings: Sequence[Any]) -> None:
        """Records a generator's readings, which may come from the network. Raises ValueError if they are malformed."""
        checked = [_checked_reading(entry) for entry in readings]
        for reading in checked:
            if reading.device == "generator" and reading.measure == "utilisation_percent":
                self._generator_shares[generator] = reading.value / 100
        self._write(generator, host, checked)

    def collect_targets(self) -> None:
        """Records what targets read since the last call, and asks them again."""
        for label, host, readings in self._targets.collect() if self._targets else ():
            self._write(label, host, readings)

    def close(self) -> None:
        """Ends the file; later readings are left out."""
        if self._targets is not None:
            self._targets.close()
            self._targets = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, source: str, host: str, readings: Sequence[TelemetryReading]) -> None:
        if self._writer is None:
            return
        of_host = self._host_sources.setdefault(host, source) == source
        rows = [reading for reading in readings if of_host or reading.device != "cpu"]
        self._writer.write(time.monotonic() - self._origin, host, rows)


def _checked_reading(entry: Any) -> TelemetryReading:
    if not isinstance(entry, (list, tuple)) or len(entry) != 4:
        raise ValueError("malformed telemetry: expected device, id, measure and value")
    device, identity, measure, value = entry
    if not all(isinstance(name, str) and len(name) < _MAX_NAME for name in (device, identity, measure)):
        raise ValueError(f"malformed telemetry: expected names of less than {_MAX_NAME} characters")
    return TelemetryReading(device, identity, measure, float(value))
