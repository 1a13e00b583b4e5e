"""The process that owns a run: finds the targets, creates the run directory, collects and writes the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gevent
from gevent.event import Event

from capacity import errors
from capacity.pricing import Catalogue
from capacity.reporting import write_report
from capacity.rundir import Run, RunFile, TelemetryReading
from loadgen._errors import InputError
from loadgen._options import Options
from loadgen.checks import check_run
from loadgen.generator import LoadSession
from loadgen.run._control import RunControl
from loadgen.run._generators import Generators, RunCallbacks
from loadgen.run._live_feed import LiveFeed
from loadgen.run._target_finder import TargetFinder
from loadgen.run._telemetry import TelemetryRecorder
from loadgen.run._terminal import exit_code, print_line, print_result
from loadgen.run._ticker import Ticker
from loadgen.run._writer import RunWriter
from loadgen.search import EarlyStop, RateSearch
from loadgen.targets import Target, TargetTelemetry
from loadgen.web import LiveView

#: How long a search may take to finish its last probe after nothing is in flight any more.
_SEARCH_END_S = 30.0


@dataclass
class _ActiveRun:
    """The parts of the run that goes on."""

    options: Options
    writer: RunWriter
    telemetry: TelemetryRecorder
    feed: LiveFeed | None
    early_stop: EarlyStop | None
    search: RateSearch | None
    #: The greenlet of the search, or the one that waits for the end of the warm-up.
    greenlet: gevent.Greenlet | None = None


class Coordinator:
    """Runs one after another over `generators`. `live` is the state of the live page."""

    def __init__(self, control: RunControl, generators: Generators) -> None:
        self.live = LiveView()
        #: Set while every run that began is written down.
        self.finished = Event()
        self.finished.set()
        self._control = control
        self._generators = generators
        self._targets = TargetFinder()
        self._ticker = Ticker(self._tick, lambda error: self._fail("recording an interval", error))
        self._run: _ActiveRun | None = None
        self._result: tuple[Path, Path, str] | None = None

    @property
    def session(self) -> LoadSession | None:
        """The load of this process, if it is a generator itself."""
        return self._generators.session

    @property
    def running(self) -> bool:
        """Whether a run has begun and not ended."""
        return self._ticker.running

    def start_fleet(self) -> None:
        """Starts the embedded fleet that runs without targets use. Raises InputError."""
        self._targets.start_fleet()

    def stop_fleet(self) -> None:
        """Stops the embedded fleet, if there is one."""
        self._targets.stop_fleet()

    # -- course of a run --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begins a run. Raises InputError."""
        options = self._control.options()
        catalogue = _load_catalogue(options)
        targets = self._targets.find(options, catalogue)
        callbacks = RunCallbacks(self._ticker.tick_now, self._record_readings, self._control.stop)
        shapes = self._generators.prepare(options, targets, callbacks)
        try:
            self._run = self._open(options, catalogue, targets, shapes)
            self._generators.begin(self._run.writer.description)
        except BaseException:
            self._generators.close()
            raise
        self.finished.clear()
        self._ticker.start()

    def _open(
        self, options: Options, catalogue: Catalogue, targets: Sequence[Target], shapes: dict[str, str]
    ) -> _ActiveRun:
        series = [target.series for target in targets]
        writer = RunWriter(
            options,
            targets,
            catalogue,
            command=self._control.command(),
            request_shapes=shapes,
            users=self._control.user_count,
        )
        self.live.begin(series, catalogue, options.slo, options.arrivals)
        search = None
        if options.shape:
            search = RateSearch(
                self._generators.prober,
                writer,
                options,
                series,
                flush=self._ticker.tick_now,
                users=self._control.user_count,
                run_time_s=self._control.run_time_s,
                print_line=print_line,
            )
        has_page = self._control.has_page
        return _ActiveRun(
            options,
            writer,
            TelemetryRecorder(writer.directory, TargetTelemetry(targets, options.access)),
            LiveFeed(self.live, options, self._generators.current_totals) if has_page else None,
            EarlyStop(options.slo) if options.until_verdict and options.slo else None,
            search,
        )

    def users_ready(self) -> None:
        """Begins the search, or the warm-up."""
        run = self._run
        if run is None:
            return
        if run.search is not None:
            run.greenlet = run.greenlet or gevent.spawn(self._search, run.search)
            return
        delay_s = self._generators.start_measuring()
        run.greenlet = run.greenlet or gevent.spawn_later(delay_s, run.writer.begin_measuring)

    def _search(self, search: RateSearch) -> None:
        try:
            search.run()
        except Exception as error:
            self._fail("the search", error)
            return
        if not search.stopping:
            self._control.stop()

    def _fail(self, place: str, error: Exception) -> None:
        """A bug: the run is not valid, and goes on no longer."""
        self._control.report_failure(place, error)
        self._control.stop()

    def _tick(self) -> None:
        """Writes one interval."""
        run = self._run
        if run is None:
            return
        interval = self._generators.collect()
        run.writer.write_interval(interval.tallies)
        run.telemetry.collect_targets()
        if run.feed is not None:
            run.feed.push(interval, run.telemetry.busiest_share)
        if run.early_stop is not None and self._is_resolved(run.early_stop):
            run.early_stop = None
            self._control.stop()

    def _is_resolved(self, early_stop: EarlyStop) -> bool:
        totals = self._generators.tallies().totals
        due = min((tally.due for tally in totals.values()), default=0)
        return early_stop.reached(due, lambda: totals, self._generators.autocorrelation)

    def _record_readings(self, generator: str, host: str, readings: Sequence[TelemetryReading]) -> None:
        if self._run is not None:
            self._run.telemetry.record(generator, host, readings)

    def drain(self) -> None:
        """Sends nothing more, and blocks until nothing is in flight."""
        if not self.running:
            return
        if self._run is not None and self._run.search is not None:
            self._run.search.stop()
        self._generators.drain()

    def end(self) -> None:
        """Writes the results of the run."""
        if not self.running:
            return
        self._ticker.stop()
        try:
            if self._run is not None:
                self._finish(self._run)
        finally:
            self._run = None
            self.finished.set()

    def _finish(self, run: _ActiveRun) -> None:
        run.early_stop = None
        if run.greenlet is not None:
            if run.search is not None:
                run.greenlet.join(_SEARCH_END_S)
            run.greenlet.kill()
        self._generators.close()
        self._ticker.tick_now()
        file = self._write(run)
        run.telemetry.close()
        directory = run.writer.directory
        self.live.end(directory, file.checks, file.valid)
        report = write_report([Run.load(directory)], directory, run.options.slo)
        code = exit_code(file, run.options)
        if code:
            self._control.set_exit_code(code)
        self.stop_fleet()
        self._result = directory, report, run.options.table_by
        if not self._control.headless:
            self.print_result()

    def _write(self, run: _ActiveRun) -> RunFile:
        totals = self._generators.totals()
        if run.search is None:
            return run.writer.close(totals, check_run(totals, run.options))
        outcome = run.search.outcome(totals)
        return run.writer.close(outcome.totals, outcome.checks, outcome.results, outcome.durations_s)

    def print_result(self) -> None:
        """Prints the table of the run that ended, once. Headless, that is to be after Locust's own tables."""
        result, self._result = self._result, None
        if result is not None:
            print_result(*result)


def _load_catalogue(options: Options) -> Catalogue:
    try:
        return Catalogue.load(options.catalogue)
    except errors.InputError as error:
        raise InputError(str(error)) from None
