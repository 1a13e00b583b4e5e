"""What a run's keeper shows and notes beside the book: the live page, and the telemetry of all hosts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from capacity.measures import Series, Tally
from capacity.pricing import Catalogue
from capacity.rundir import RunFile, TelemetryReading, TelemetryWriter
from capacity.statistics import Check, check_generator_processor
from loadgen._options import Options
from loadgen.targets import TargetTelemetry
from loadgen.web._live import LiveView, merged

#: Seconds between two judgements of all checks while a run goes on.
LIGHTS_EVERY = 5


class Onlooker:
    """`begin` with the book, `hear` and `tick` each second, `end` when run.json is written. One for each node."""

    def __init__(self, *, shown: bool) -> None:
        self.live = LiveView()
        self._shown = shown
        self._telemetry: TelemetryWriter | None = None
        self._workers: TargetTelemetry | None = None
        self._origin = 0.0
        self._voices: dict[str, str] = {}
        self._shares: dict[str, float] = {}
        self._lights: list[Check] = []
        self._ticks = 0

    def begin(
        self,
        directory: Path,
        series: Iterable[Series],
        catalogue: Catalogue,
        options: Options,
        workers: TargetTelemetry | None = None,
    ) -> None:
        """A run begins; its files are in `directory`. `workers` of its workers are closed at its end."""
        self._workers = workers
        self.live.begin(series, catalogue, options.slo, options.arrivals)
        self._telemetry = TelemetryWriter(directory)
        self._origin = time.monotonic()
        self._voices, self._shares = {}, {}
        self._lights, self._ticks = [], 0

    def hear(self, client: str, host: str, readings: Sequence[Any]) -> None:
        """A generator's readings, perhaps from the network; ValueError where they are none. One tells for each host."""
        if self._telemetry is None:
            return
        told = [_reading(entry) for entry in readings]
        for reading in told:
            if reading.device == "generator" and reading.measure == "utilisation_percent":
                self._shares[client] = reading.value / 100
        self._tell(client, host, told)

    def _tell(self, who: str, host: str, told: Sequence[TelemetryReading]) -> None:
        """Into the file; of the host itself, what the first who told of it says."""
        first = self._voices.setdefault(host, who) == who
        kept = [reading for reading in told if first or reading.device != "cpu"]
        if self._telemetry is not None:
            self._telemetry.write(time.monotonic() - self._origin, host, kept)

    def due_for_lights(self) -> bool:
        """Whether somebody may look and the lights are to be judged anew: all checks cost what a second's load does."""
        self._ticks += 1
        return self._shown and self._ticks % LIGHTS_EVERY == 0

    def judge(self, lights: Sequence[Check]) -> None:
        """What the checks of the run say so far."""
        self._lights = list(lights)

    def tick(self, gained: Mapping[Series, Tally], in_flight: Mapping[Series, int]) -> None:
        """What the last second brought: to the page where there is one, and what workers told into the telemetry."""
        for label, host, told in self._workers.collect() if self._workers else ():
            self._tell(label, host, told)
        if not self._shown:
            return
        busiest = max(self._shares.values(), default=None)
        now = [] if busiest is None else [check_generator_processor(busiest)]
        self.live.tick(gained, in_flight, merged(self._lights, now))

    def end(self, directory: Path, file: RunFile) -> None:
        """The run is over, and is judged."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None
        if self._telemetry is not None:
            self._telemetry.close()
            self._telemetry = None
        self.live.end(directory, file.checks, file.valid)


def _reading(entry: Any) -> TelemetryReading:
    if not isinstance(entry, (list, tuple)) or len(entry) != 4:
        raise ValueError("telemetry came malformed")
    device, identity, measure, value = entry
    if not all(isinstance(word, str) and len(word) < 200 for word in (device, identity, measure)):
        raise ValueError("telemetry came malformed")
    return TelemetryReading(device, identity, measure, float(value))
