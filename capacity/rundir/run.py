"""A run directory: run.json, and the histograms, timeline and telemetry beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from capacity.errors import InputError
from capacity.measures import Series
from capacity.rundir.interval_log import Interval, parse_series_tag, read_interval_log
from capacity.rundir.row import Row
from capacity.rundir.run_file import JSON_NAME, Probe, RunFile, SearchResult
from capacity.rundir.telemetry import TelemetrySample, read_telemetry
from capacity.rundir.timeline import Timeline
from capacity.statistics import Histogram

HLOG_NAME = "run.hlog"


@dataclass(frozen=True)
class Run:
    """A run directory: its run.json, and what run.hlog and telemetry.csv hold, which are read on first use."""

    directory: Path
    file: RunFile

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Reads and checks a run directory; InputError in one sentence that names what is wrong."""
        if not directory.is_dir():
            raise InputError(f"{directory} is not a run directory: no such folder")
        if not (directory / JSON_NAME).is_file():
            log = (
                " (there is a run.hlog: the run was cut off before its end)" if (directory / HLOG_NAME).exists() else ""
            )
            raise InputError(f"{directory} is not a complete run: it has no {JSON_NAME}{log}")
        return cls(directory, RunFile.load(directory / JSON_NAME))

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.directory.resolve().name

    @cached_property
    def _log(self) -> tuple[dict[tuple[Series, str], Histogram], Timeline | None]:
        """run.hlog, read once: each histogram over the whole run, and the timeline."""
        totals: dict[tuple[Series, str], Histogram] = {}
        path = self.directory / HLOG_NAME
        if not path.is_file():
            return totals, None
        row_probes = {
            (search.hardware, search.model, search.simulated): [probe for probe in search.probes if probe.in_row]
            for search in self.file.searches
        }
        # The rows of a search are of one probe each, so there is no timeline of the whole run.
        timeline = None if row_probes else Timeline.of_log(path, self.file.duration_s)
        tags: dict[str, tuple[Series, str]] = {}
        for interval in read_interval_log(path):
            key = tags.get(interval.tag) or tags.setdefault(interval.tag, parse_series_tag(interval.tag))
            if row_probes and not any(_in_probe(interval, probe) for probe in row_probes.get(_pool_of(key[0]), ())):
                continue
            totals.setdefault(key, Histogram()).add(interval.histogram)
            if timeline is not None:
                timeline.add(interval, *key)
        return totals, timeline

    @property
    def histograms(self) -> dict[tuple[Series, str], Histogram]:
        """The histogram of each series and measure over the whole run, from run.hlog; empty without one."""
        return self._log[0]

    def probe_histograms(self, search: SearchResult) -> dict[int, dict[str, Histogram]]:
        """The histograms of a search's probes, by probe number and measure, all targets of the pool together."""
        histograms: dict[int, dict[str, Histogram]] = {probe.number: {} for probe in search.probes}
        path = self.directory / HLOG_NAME
        for interval in read_interval_log(path) if path.is_file() else ():
            series, measure = parse_series_tag(interval.tag)
            if _pool_of(series) != (search.hardware, search.model, search.simulated):
                continue
            for probe in search.probes:
                if _in_probe(interval, probe):
                    histograms[probe.number].setdefault(measure, Histogram()).add(interval.histogram)
        return histograms

    @property
    def timeline(self) -> Timeline | None:
        """The run over time; None without a run.hlog, after a search, or where nothing was measured."""
        return self._log[1]

    @cached_property
    def telemetry(self) -> list[TelemetrySample]:
        """Samples of processors and accelerators during the run; empty without a telemetry.csv."""
        return read_telemetry(self.directory)

    @property
    def measured_from_s(self) -> float:
        """When measuring began, in seconds after the log's start."""
        starts = [probe.from_s for search in self.file.searches for probe in search.probes if probe.in_row]
        return self.timeline.start_s if self.timeline else min(starts, default=0.0)

    def members(self, row: Row) -> list[Series]:
        """The series of the log that make up a row, sorted by target."""
        members = {series for series, _measure in self.histograms if _belongs(series, row)}
        return sorted(members, key=lambda series: series.target)

    def measures(self, row: Row) -> list[str]:
        """The measures of a row that run.hlog holds, sorted."""
        return sorted({measure for series, measure in self.histograms if _belongs(series, row)})

    def histogram(self, row: Row, measure: str) -> Histogram | None:
        """A row's histogram of one measure; None where run.hlog has none."""
        parts = [
            histogram
            for (series, name), histogram in self.histograms.items()
            if name == measure and _belongs(series, row)
        ]
        return _sum(parts) if parts else None


def _pool_of(series: Series) -> tuple[str, str, bool]:
    return series.hardware.name, series.model, series.simulated


def _in_probe(interval: Interval, probe: Probe) -> bool:
    # Both times are rounded to the millisecond; nothing of another probe is in flight at either end.
    return probe.from_s - 0.0005 < interval.start_s < probe.to_s - 0.0005


def _belongs(series: Series, row: Row) -> bool:
    """Whether a series is part of a row, whose pool may be called otherwise after a merge."""
    if (series.model, series.simulated) != (row.model, row.simulated):
        return False
    same = (series.hardware.host, series.hardware.accelerator) == (row.host, row.accelerator)
    return same and (row.target is None or row.target == series.target)


def _sum(histograms: Iterable[Histogram]) -> Histogram:
    total = Histogram()
    for histogram in histograms:
        total.add(histogram)
    return total
