"""telemetry.csv of a run: samples of processors and accelerators each second, and the energy per inference."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from capacity.errors import InputError
from capacity.rundir.row import Row
from capacity.rundir.run_file import RunFile

TELEMETRY_NAME = "telemetry.csv"
#: Measure -> name and unit in a picture, in the order of the panels.
TELEMETRY_MEASURES = {
    "utilisation_percent": "Utilisation, %",
    "power_w": "Power, W",
    "temperature_c": "Temperature, °C",
    "memory_bytes": "Memory in use, GiB",
    "clock_mhz": "Clock, MHz",
}


class TelemetryReading(NamedTuple):
    """One value of one device: `generator`, `worker`, `cpu` (of the host) or `cuda:N`, with its `id`."""

    device: str
    id: str
    measure: str
    value: float


class TelemetrySample(NamedTuple):
    """A reading, its host, and when it arrived, in seconds after the log's start."""

    seconds: float
    host: str
    reading: TelemetryReading


_HEADER = ("seconds", "host", "device", "id", "measure", "value")


class TelemetryWriter:
    """Writes one telemetry.csv, flushed after every write, so that a killed run has all of its samples."""

    def __init__(self, directory: Path) -> None:
        self._file = (directory / TELEMETRY_NAME).open("w", encoding="utf-8", newline="")
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(_HEADER)

    def write(self, seconds: float, host: str, readings: Iterable[TelemetryReading | Sequence[object]]) -> None:
        """Appends the readings of one host; values that are not finite numbers are left out."""
        for reading in readings:
            device, identity, measure, value = reading
            if isinstance(value, (int, float)) and math.isfinite(value):
                self._rows.writerow((f"{seconds:.3f}", host, device, identity, measure, f"{value:.10g}"))
        self._file.flush()

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        self._file.close()


def read_telemetry(directory: Path) -> list[TelemetrySample]:
    """The samples of a run directory, in order; none without the file. InputError that names a damaged line."""
    path = directory / TELEMETRY_NAME
    if not path.is_file():
        return []
    try:
        return _read_samples(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file: {error}") from None


def _read_samples(path: Path) -> list[TelemetrySample]:
    samples = []
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        if tuple(next(rows, ())) != _HEADER:
            raise InputError(f"{path}: not a {TELEMETRY_NAME} (expected the header {','.join(_HEADER)})")
        for row in rows:
            try:
                seconds, host, device, identity, measure, value = row
                sample = TelemetrySample(
                    float(seconds), host, TelemetryReading(device, identity, measure, float(value))
                )
            except ValueError:
                raise InputError(f"{path}, line {rows.line_num}: not a line of telemetry") from None
            samples.append(sample)
    return samples


def joules_per_inference(file: RunFile, row: Row, samples: Iterable[TelemetrySample], start_s: float) -> float | None:
    """Energy in J of the row's accelerators per answered request; None where the power of one is unknown.

    Mean power of each accelerator × seconds, without the host's own power. `start_s` is when measuring began, in
    seconds after the log's start.
    """
    ids = {
        plain_device_id(info.accelerator_id)
        for info in file.targets
        if _serves(info.label, row, file) and info.accelerator_id
    }
    powers: dict[str, list[float]] = {identity: [] for identity in ids}
    for sample in samples:
        values = powers.get(plain_device_id(sample.reading.id))
        if values is not None and sample.reading.measure == "power_w" and sample.seconds >= start_s:
            values.append(sample.reading.value)
    if not powers or len(powers) < row.count or not all(powers.values()) or not row.answered or row.simulated:
        return None
    return sum(sum(values) / len(values) for values in powers.values()) * file.duration_s / row.answered


def _serves(label: str, row: Row, file: RunFile) -> bool:
    """Whether the target with this label is in the row's pool."""
    if row.target is not None:
        return row.target == label
    return any(
        target_row.target == label
        and (target_row.host, target_row.accelerator, target_row.model) == (row.host, row.accelerator, row.model)
        for target_row in file.target_rows
    )


def plain_device_id(identity: str) -> str:
    """A GPU's UUID as torch writes it: without NVML's prefix `GPU-`."""
    return identity.removeprefix("GPU-").lower()
