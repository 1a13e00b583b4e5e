"""--shape: probes one pool of targets after another, at the rates that a strategy of capacity.search asks for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import gevent

from capacity.measures import HardwareCombination, Series, Tally
from capacity.pricing import format_seconds
from capacity.rundir import SearchResult
from capacity.search import MIN_PROBE_S, NextProbe, SearchEnd, SearchStrategy, SloSearch, StepSearch
from capacity.statistics import Check
from loadgen._options import Options
from loadgen.checks import check_completeness
from loadgen.generator import ProbeOrder, ProbeProgress, Prober, StopCondition, pool_of, pools_of
from loadgen.measure import GeneratorHealth, RunTotals
from loadgen.search._early_stop import EarlyStop
from loadgen.search._pool_search import PoolSearch
from loadgen.search._probe_report import describe_probe, phase_name, report_probe

#: How long a search takes where --run-time does not say it.
DEFAULT_SEARCH_S = 165.0
#: Of --run-time, what remains for the end of the run.
_END_S = 2.0
#: The closed loop at the beginning, unless --warmup is longer.
_CLOSED_LOOP_S = 1.5
#: A probe settles for at least this time, and this many service times, but at most this share of it, and never longer
#: than the last.
_MIN_SETTLE_S, _SETTLE_REQUESTS, _MAX_SETTLE_SHARE, _MAX_SETTLE_S = 0.5, 50, 0.25, 10.0
#: Requests before it is looked whether a probe's verdict is clear.
_FIRST_LOOK = 100
#: How long it is waited for all users to have become sources.
_SOURCES_TIMEOUT_S = 10.0
_POLL_S = 0.1


class ProbeLog(Protocol):
    """The run directory, as a search writes to it."""

    @property
    def position_s(self) -> float:
        """Where run.hlog is, in seconds after its start."""

    def begin_measuring(self) -> None:
        """Reads the targets' own counters, so that what came before is subtracted later."""

    def add_target_measures(self, tallies: Mapping[Series, Tally], from_s: float = 0.0) -> Any:
        """Adds what the targets measured since `begin_measuring` to the tallies, and to the log as of `from_s`."""


@dataclass(frozen=True)
class SearchOutcome:
    """What run.json says of a search: `totals` are of the probes that the rows show, `durations_s` their lengths."""

    totals: RunTotals
    checks: list[Check]
    results: list[SearchResult]
    durations_s: dict[tuple[HardwareCombination, str, bool], float]


class RateSearch:
    """Searches one pool after another. `run` is the search, a loop over `prober.run_probe`; `stop` ends it early.

    `flush` writes an interval of the run's log now, so that no interval spans two probes. `users` is the number of
    users that become sources. `print_line` writes a line to the terminal.
    """

    def __init__(
        self,
        prober: Prober,
        log: ProbeLog,
        options: Options,
        series: Sequence[Series],
        *,
        flush: Callable[[], None],
        users: int,
        run_time_s: float | None,
        print_line: Callable[[str], None],
    ) -> None:
        self._prober = prober
        self._log = log
        self._options = options
        self._series = list(series)
        self._flush = flush
        self._users = users
        self._total_s = run_time_s - _END_S if run_time_s else DEFAULT_SEARCH_S
        self._print = print_line
        self._searches = [PoolSearch(pool, options) for pool in pools_of(self._series)]
        self._probe_number = 0
        #: Whether `stop` was called.
        self.stopping = False

    def stop(self) -> None:
        """Orders no more probes. The one that goes on is ended by its prober, and counts for what it is."""
        self.stopping = True

    def run(self) -> None:
        """Searches all pools. Blocks this greenlet."""
        ends = time.monotonic() + self._total_s
        self._print(f"{self._options.shape} takes about {format_seconds(self._total_s)}")
        self._count_sources()
        for index, search in enumerate(self._searches):
            left_s = (ends - time.monotonic()) / (len(self._searches) - index)
            if len(self._searches) > 1:
                position = f"search {index + 1} of {len(self._searches)}, {format_seconds(max(left_s, 0))}"
                self._print(f"{position}: {search.pool.hardware.name}, {search.pool.model}")
            self._search_pool(index, search, time.monotonic() + left_s)

    def _count_sources(self) -> None:
        """Waits until all users are sources, and notes how many each pool has."""
        pinned = self._options.router == "pinned"
        limit = time.monotonic() + _SOURCES_TIMEOUT_S
        while not self.stopping and time.monotonic() < limit:
            counts = self._prober.source_counts()
            if counts and (sum(counts) if pinned else min(counts)) >= self._users:
                break
            gevent.sleep(_POLL_S)
        for search, count in zip(self._searches, self._prober.source_counts(), strict=False):
            search.sources = count
            targets = sum(pool_of(series) == search.pool for series in self._series)
            if pinned and count % targets:
                self._print(
                    f"warning: {count} users on {targets} targets of {search.pool.hardware.name}: --router pinned "
                    f"gives all targets the same load only where -u is a multiple of their number"
                )

    def _search_pool(self, index: int, search: PoolSearch, ends: float) -> None:
        if not search.sources:
            search.stop_reason = "no user sends to it"
            return
        throughput_rps, service_s = self._run_closed_loop(index)
        if not self.stopping and throughput_rps <= 0:
            search.stop_reason = "no request of the closed loop was answered"
            self._print(f"{search.pool.hardware.name}: {search.stop_reason}")
            return
        strategy = self._strategy(throughput_rps, ends - time.monotonic())
        while not self.stopping:
            step = strategy(search.summaries, ends - time.monotonic())
            if isinstance(step, SearchEnd):
                search.stop_reason = step.reason
                return
            self._run_step(index, search, step, service_s, ends)
        search.stop_reason = "the run ended"

    def _strategy(self, closed_rps: float, total_s: float) -> SearchStrategy:
        if self._options.shape == "steps":
            return StepSearch(first_rps=closed_rps, total_s=total_s).next
        return SloSearch(first_rps=closed_rps / 2, closed_rps=closed_rps, total_s=total_s).next

    def _run_closed_loop(self, index: int) -> tuple[float, float]:
        """Warms up with one request in flight for each source. Returns answers a second and mean latency in s."""
        seconds = max(_CLOSED_LOOP_S, self._options.warmup_ns / 1e9)
        result = self._prober.run_probe(self._order(index, 0.0, seconds))
        answered = sum(tally.answered for tally in result.warmups.values())
        latency_s = sum(tally.histograms["latency"].sum_ns for tally in result.warmups.values()) / 1e9
        return answered / seconds, latency_s / answered if answered else 0.0

    def _run_step(self, index: int, search: PoolSearch, step: NextProbe, service_s: float, ends: float) -> None:
        """One probe: order, result, report."""
        settle_s = min(
            max(_MIN_SETTLE_S, _SETTLE_REQUESTS * service_s),
            max(_MAX_SETTLE_SHARE * step.max_seconds, _MIN_SETTLE_S),
            _MAX_SETTLE_S,
        )
        length_s = max(step.max_seconds, settle_s + MIN_PROBE_S / 2)
        number = len(search.reports) + 1
        length = f"{'at most ' if step.stop_early else ''}{format_seconds(length_s)}"
        self._print(
            f"probe {number}, {phase_name(step.phase)}: {step.rate_rps:,.4g}/s for {length}"
            f"{search.bounds_so_far()}; at most {format_seconds(max(ends - time.monotonic(), 0))} left"
        )
        self._flush()
        self._log.begin_measuring()
        from_s = self._log.position_s
        order = self._order(index, step.rate_rps / search.sources, length_s, settle_s)
        result = self._prober.run_probe(order, self._stop_condition() if step.stop_early else None)
        self._log.add_target_measures(result.tallies, from_s)
        span_s = from_s, self._log.position_s
        report = report_probe(number, step, result, self._options, span_s, cut_off=self.stopping)
        search.reports.append(report)
        self._print(describe_probe(report.probe, self._options.slo))

    def _order(self, pool: int, rate: float, length_s: float, settle_s: float = 0.0) -> ProbeOrder:
        self._probe_number += 1
        return ProbeOrder(self._probe_number, pool, rate, int(length_s * 1e9), int(settle_s * 1e9))

    def _stop_condition(self) -> StopCondition:
        assert self._options.slo is not None
        early_stop = EarlyStop(self._options.slo, _FIRST_LOOK)

        def stop_when(progress: ProbeProgress) -> bool:
            return early_stop.reached(progress.due, progress.tallies, progress.autocorrelation)

        return stop_when

    def outcome(self, totals: RunTotals) -> SearchOutcome:
        """What the search amounts to; `totals` are of the whole run."""
        alone = len(self._searches) == 1
        checks = check_completeness(replace(totals, totals=self._all_tallies()), self._options)
        tallies = {series: Tally() for series in totals.totals}
        durations_s: dict[tuple[HardwareCombination, str, bool], float] = {}
        health = GeneratorHealth()
        for search in self._searches:
            report = search.row_report
            if report is not None:
                tallies |= report.result.tallies
                durations_s[search.pool] = report.result.seconds
                health.autocorrelation.update(report.result.health.autocorrelation)
            checks += search.checks(alone=alone)
        rows = replace(totals, totals=tallies, measured_s=max(durations_s.values(), default=0.0), health=health)
        return SearchOutcome(rows, checks, [search.result() for search in self._searches], durations_s)

    def _all_tallies(self) -> dict[Series, Tally]:
        """The sum of all probes, by series."""
        tallies = {series: Tally() for series in self._series}
        for search in self._searches:
            for report in search.reports:
                for series, tally in report.result.tallies.items():
                    tallies[series].add(tally)
        return tallies
