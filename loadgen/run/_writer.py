"""Writes a run directory: run.hlog during the run, run.json at its end."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gevent

from capacity.measures import HardwareCombination, Series, Tally
from capacity.pricing import Catalogue
from capacity.rundir import IntervalLogWriter, RunFile, SearchResult, build_run_file, series_tag
from capacity.statistics import Check, Histogram
from loadgen._options import Options
from loadgen.measure import RunTotals
from loadgen.targets import Target, own_histograms, read_snapshot
from loadgen.transport import Access
from worker.wire import display_duration

#: Where run directories are created, unless --run-dir is given.
RUNS = Path("runs")


class RunWriter:
    """Writes one run directory.

    `command` has the options as the user gave them, `request_shapes` the shapes of requests per model.
    """

    def __init__(
        self,
        options: Options,
        targets: Sequence[Target],
        catalogue: Catalogue,
        *,
        command: Mapping[str, Any],
        request_shapes: Mapping[str, str],
        users: int,
    ) -> None:
        self.started = datetime.now(UTC)
        self.directory = _new_directory(options.run_dir or RUNS / self.started.astimezone().strftime("%Y%m%d-%H%M%S"))
        self._options = options
        self._targets = targets
        self._catalogue = catalogue
        self._command = dict(command)
        self._request_shapes = dict(request_shapes)
        self._users = users
        #: What targets had counted when measuring began, by address.
        self._target_states: dict[str, Any] = {}
        self._origin = time.monotonic()
        self._last_s = 0.0
        self._log = IntervalLogWriter(
            self.directory / "run.hlog",
            self.started.timestamp(),
            ["inferload run; tags are hardware/model/worker/measured|simulated/measure; microseconds"],
        )

    @property
    def position_s(self) -> float:
        """Where the log is, in seconds after its start."""
        return round(self._last_s, 3)

    @property
    def description(self) -> dict[str, Any]:
        """What generators write into their own logs of this run, in plain types."""
        return {
            "started": self.started.isoformat(),
            "targets": [target.info.model_dump(mode="json") for target in self._targets if target.info is not None],
            "options": self._command,
            "conditions": self._planned_conditions(),
            "slo": str(self._options.slo) if self._options.slo else None,
        }

    def begin_measuring(self) -> None:
        """Reads the targets' own counters, so that what came before is subtracted at the end."""
        self._target_states = _snapshots(self._targets, self._options.access)

    def write_interval(self, tallies: Mapping[Series, Tally]) -> None:
        """Appends what was measured since the last interval."""
        now_s = time.monotonic() - self._origin
        for series, tally in tallies.items():
            for measure, histogram in tally.histograms.items():
                if histogram.count:
                    self._log.write(self._last_s, now_s - self._last_s, series_tag(series, measure), histogram)
                    # A third of a millisecond each: what is due meanwhile is sent in between.
                    gevent.sleep(0)
        self._last_s = now_s
        self._log.flush()

    def add_target_measures(self, tallies: Mapping[Series, Tally], from_s: float = 0.0) -> dict[str, Any]:
        """Adds what targets measured since `begin_measuring` to the tallies, and to the log as of `from_s`.

        Returns the targets' states by address; the next call counts from them.
        """
        states = _snapshots(self._targets, self._options.access)
        for target in self._targets:
            histograms = own_histograms(self._target_states.get(target.address), states.get(target.address))
            for measure, histogram in histograms.items():
                if histogram.count and target.series in tallies:
                    tallies[target.series].histograms.setdefault(measure, Histogram()).add(histogram)
                    self._log.write(from_s, self._last_s - from_s, series_tag(target.series, measure), histogram)
        self._target_states = states
        return states

    def close(
        self,
        totals: RunTotals,
        checks: Sequence[Check],
        searches: Sequence[SearchResult] = (),
        durations_s: Mapping[tuple[HardwareCombination, str, bool], float] | None = None,
    ) -> RunFile:
        """Adds the targets' own measures, and writes run.json. Returns its content.

        After a search `totals` are of the probes that the rows show, with the targets' measures, and `durations_s` says
        how long each pool's probe was.
        """
        tallies = {series: tally.copy() for series, tally in totals.totals.items()}
        states = self.add_target_measures({} if searches else tallies)
        self._log.close()
        file = build_run_file(
            started=self.started,
            options=self._command,
            conditions=self._conditions(totals),
            targets=[_with_peaks(target, states.get(target.address)) for target in self._targets if target.info],
            tallies=tallies,
            warmups=totals.warmups,
            first_requests_ns=totals.first_requests_ns,
            duration_s=totals.measured_s,
            slo=self._options.slo,
            catalogue=self._catalogue,
            checks=list(checks),
            autocorrelation_times=totals.health.autocorrelation,
            generators=[dict(generator) for generator in totals.generators],
            searches=searches,
            durations_s=durations_s,
            events=totals.health.events,
        )
        file.save(self.directory)
        return file

    def _conditions(self, totals: RunTotals) -> dict[str, str]:
        warmup = display_duration(self._options.warmup_ns / 1e9)
        return {
            **self._planned_conditions(),
            "measured": display_duration(totals.measured_s)
            + (" of one probe" if self._options.shape else f" after a warm-up of {warmup}"),
            "generators": f"{len(totals.generators)} on {platform.node()}, {os.cpu_count()} cores",
        }

    def _planned_conditions(self) -> dict[str, str]:
        """The conditions that are known before the run."""
        options = self._options
        arrivals = f"{options.arrivals}, {self._users} users"
        if options.shape:
            arrivals += f" at the rates of {options.shape}, seed {options.seed}"
        elif options.is_open:
            arrivals += f" of {options.user_rate:g}/s each, seed {options.seed}"
        else:
            arrivals += " (a user is one request in flight; due = sent)"
        conditions = {
            "arrivals": arrivals,
            "router": options.router,
            "transport": options.transport,
            "deadline": display_duration(options.deadline_ns / 1e9),
            "generator versions": ", ".join(
                f"{name} {version(name)}" for name in ("inferload", "locust", "gevent", "grpcio", "numpy")
            ),
        }
        if options.retries:
            conditions["retries"] = f"at most {options.retries} of a request that was refused and not run"
        conditions |= {f"input of {model}": shapes for model, shapes in self._request_shapes.items()}
        if down := [f"{t.address}: {t.down}" for t in self._targets if t.down]:
            conditions["down at the start"] = "; ".join(down)
        return conditions


def _new_directory(path: Path) -> Path:
    """The directory, or the first of DIR-2, DIR-3, … that holds no run yet: a run never overwrites another."""
    candidate, number = path, 1
    while (candidate / "run.hlog").exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    candidate.mkdir(parents=True, exist_ok=True)
    return candidate


def _snapshots(targets: Sequence[Target], access: Access) -> dict[str, Any]:
    described = [target.address for target in targets if target.info is not None]
    jobs = {address: gevent.spawn(read_snapshot, address, access) for address in described}
    gevent.joinall(list(jobs.values()))
    return {address: job.value for address, job in jobs.items() if job.value is not None}


def _with_peaks(target: Target, after: Any | None) -> Any:
    assert target.info is not None
    if after is None:
        return target.info
    return target.info.model_copy(
        update={
            "process_peak_bytes": after.process_peak_bytes,
            "accelerator_peak_bytes": after.accelerator_peak_bytes,
        }
    )
