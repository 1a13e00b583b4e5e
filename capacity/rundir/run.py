"""Run directories: run.json, checked when it is read, and the histograms of run.hlog beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from capacity.measures import Series
from capacity.rundir.interval_log import Interval, parse_series_tag, read_interval_log
from capacity.rundir.run_file import (
    JSON_NAME,
    Probe,
    Row,
    RunFile,
    SearchResult,
)
from capacity.rundir.telemetry import TelemetrySample, read_telemetry
from capacity.rundir.timeline import Timeline
from capacity.statistics import Histogram

HLOG_NAME = "run.hlog"


@dataclass(frozen=True)
class Run:
    """A run directory: its file, and the histograms that stand beside it."""

    directory: Path
    file: RunFile

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Reads and checks a run directory; ValueError in one sentence naming what is wrong."""
        if not directory.is_dir():
            raise ValueError(f"{directory} is not a run directory: no such folder")
        if not (directory / JSON_NAME).is_file():
            log = (
                " (there is a run.hlog: the run was cut off before its end)" if (directory / HLOG_NAME).exists() else ""
            )
            raise ValueError(f"{directory} is not a whole run: it has no {JSON_NAME}{log}")
        return cls(directory, RunFile.load(directory / JSON_NAME))

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.directory.resolve().name

    @cached_property
    def _read(self) -> tuple[dict[tuple[Series, str], Histogram], Timeline | None]:
        """The log, read once: each histogram over the whole run, and its course."""
        total: dict[tuple[Series, str], Histogram] = {}
        path = self.directory / HLOG_NAME
        if not path.is_file():
            return total, None
        searched = {
            (found.hardware, found.model, found.simulated): [probe for probe in found.probes if probe.in_row]
            for found in self.file.curve
        }
        # The rows of a search are of one probe each, which is no course of the whole run.
        course = None if searched else Timeline.over(path, self.file.duration_s)
        tags: dict[str, tuple[Series, str]] = {}
        for interval in read_interval_log(path):
            key = tags.get(interval.tag) or tags.setdefault(interval.tag, parse_series_tag(interval.tag))
            if searched and not any(_within(interval, probe) for probe in searched.get(_pool(key[0]), ())):
                continue
            total.setdefault(key, Histogram()).add(interval.histogram)
            if course is not None:
                course.add(interval, *key)
        return total, course

    @property
    def histograms(self) -> dict[tuple[Series, str], Histogram]:
        """Each series' and measure's histogram over the whole run, from run.hlog; empty if there is none."""
        return self._read[0]

    def probes(self, curve: SearchResult) -> dict[int, dict[str, Histogram]]:
        """The histograms of each probe of a curve, by its number and the measure, all workers of the pool together."""
        found: dict[int, dict[str, Histogram]] = {probe.number: {} for probe in curve.probes}
        path = self.directory / HLOG_NAME
        for interval in read_interval_log(path) if path.is_file() else ():
            series, name = parse_series_tag(interval.tag)
            if _pool(series) != (curve.hardware, curve.model, curve.simulated):
                continue
            for probe in curve.probes:
                if _within(interval, probe):
                    found[probe.number].setdefault(name, Histogram()).add(interval.histogram)
        return found

    @property
    def course(self) -> Timeline | None:
        """What was measured when; None without a run.hlog, or where nothing was measured."""
        return self._read[1]

    @cached_property
    def telemetry(self) -> list[TelemetrySample]:
        """What processors and accelerators did meanwhile; empty without a telemetry.csv."""
        return read_telemetry(self.directory)

    @property
    def measured_from_s(self) -> float:
        """When measuring began, in seconds after the log's start."""
        shown = [probe.from_s for curve in self.file.curve for probe in curve.probes if probe.in_row]
        return self.course.start_s if self.course else min(shown, default=0.0)

    def members(self, row: Row) -> list[Series]:
        """The series of the log that a row is made of, by worker."""
        found = {series for series, _measure in self.histograms if _of(series, row)}
        return sorted(found, key=lambda series: series.worker)

    def measures(self, row: Row) -> list[str]:
        """The measures that run.hlog has of a row."""
        return sorted({measure for series, measure in self.histograms if _of(series, row)})

    def histogram(self, row: Row, measure: str) -> Histogram | None:
        """A row's histogram of one measure; None where run.hlog has none of it."""
        found = [
            histogram for (series, name), histogram in self.histograms.items() if name == measure and _of(series, row)
        ]
        return _added(found) if found else None


def _pool(series: Series) -> tuple[str, str, bool]:
    return series.hardware.name, series.model, series.simulated


def _within(interval: Interval, probe: Probe) -> bool:
    # Both are kept to the millisecond; nothing of another probe is in flight at either end.
    return probe.from_s - 0.0005 < interval.start_s < probe.to_s - 0.0005


def _of(series: Series, row: Row) -> bool:
    if (series.model, series.simulated) != (row.model, row.simulated):
        return False
    same = (series.hardware.host, series.hardware.accelerator) == (row.host, row.accelerator)
    return same and (row.worker is None or row.worker == series.worker)


def _added(histograms: Iterable[Histogram]) -> Histogram:
    total = Histogram()
    for histogram in histograms:
        total.add(histogram)
    return total
