"""What a run's keeper shows and notes beside the book: the live page, and the telemetry of the generators' hosts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from capacity import validity
from capacity.hardware import Catalogue
from capacity.run import RunFile
from capacity.tally import Series, Tally
from capacity.telemetry import Reading, TelemetryWriter
from loadgen._live import Live
from loadgen._options import Options


class Onlooker:
    """`begin` with the book, `hear` and `tick` each second, `end` when run.json is written. One for each node."""

    def __init__(self, *, shown: bool) -> None:
        self.live = Live()
        self._shown = shown
        self._telemetry: TelemetryWriter | None = None
        self._origin = 0.0
        self._voices: dict[str, str] = {}
        self._shares: dict[str, float] = {}

    def begin(self, directory: Path, series: Iterable[Series], catalogue: Catalogue, options: Options) -> None:
        """A run begins; its files are in `directory`."""
        self.live.begin(series, catalogue, options.slo, options.arrivals)
        self._telemetry = TelemetryWriter(directory)
        self._origin = time.monotonic()
        self._voices, self._shares = {}, {}

    def hear(self, client: str, host: str, readings: Sequence[Any]) -> None:
        """A generator's readings, perhaps from the network; ValueError where they are none. One tells for each host."""
        if self._telemetry is None:
            return
        told = [_reading(entry) for entry in readings]
        first = self._voices.setdefault(host, client) == client
        kept = [reading for reading in told if first or reading.device == "generator"]
        for reading in kept:
            if reading.device == "generator" and reading.measure == "utilisation_percent":
                self._shares[client] = reading.value / 100
        self._telemetry.write(time.monotonic() - self._origin, host, kept)

    def tick(self, gained: Mapping[Series, Tally], in_flight: Mapping[Series, int]) -> None:
        """What the last second brought; nothing to do where there is no page to show it."""
        if not self._shown:
            return
        busiest = max(self._shares.values(), default=None)
        self.live.tick(gained, in_flight, [] if busiest is None else [validity.generator_processor(busiest)])

    def end(self, directory: Path, file: RunFile) -> None:
        """The run is over, and is judged."""
        if self._telemetry is not None:
            self._telemetry.close()
            self._telemetry = None
        self.live.end(directory, file.checks, file.valid)


def _reading(entry: Any) -> Reading:
    if not isinstance(entry, (list, tuple)) or len(entry) != 4:
        raise ValueError("telemetry came malformed")
    device, identity, measure, value = entry
    if not all(isinstance(word, str) and len(word) < 200 for word in (device, identity, measure)):
        raise ValueError("telemetry came malformed")
    return Reading(device, identity, measure, float(value))
