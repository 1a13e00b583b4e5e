"""--shape: drives one probe after another through whoever keeps the book, as capacity/search.py decides, and turns what
came of them into capacity curves. It runs on the master, or on a generator that is alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import gevent

from capacity.measures import HardwareCombination, Series, Tally
from capacity.pricing import format_seconds
from capacity.rundir import Probe, RunFile, SloRate, pooled_autocorrelation_time
from capacity.search import (
    MIN_PROBE_S,
    NextProbe,
    SearchEnd,
    SearchStrategy,
    SloSearch,
    StepSearch,
    conclude,
    probe_for_row,
)
from capacity.statistics import Histogram, judge_slo
from loadgen._options import Options
from loadgen.measure import GeneratorHealth, RunTotals, tally_difference
from loadgen.run._validity import probe_checks, whole_checks
from loadgen.run._writer import Book
from loadgen.search._outcome import Searched
from loadgen.search._probes import Order, pool_of, pools_of
from loadgen.search._verdicts import judged, words
from loadgen.targets import Target

#: How long a search takes where --run-time does not say it.
SEARCH_S = 165.0
#: Kept of the time for the end of the run.
_MARGIN_S = 2.0
#: The closed loop at the beginning, where --warmup is not longer.
_WARM_S = 1.5
#: Requests that settling takes at least, at most this share of a probe, and never more than so many seconds.
_SETTLE_REQUESTS, _SETTLE_SHARE, _SETTLE_MOST_S = 50, 0.25, 10.0
_SETTLE_S = 0.5
#: A verdict looked for again and again is found by chance: it is looked for rarely, and must be found twice.
_FIRST_LOOK, _GROWTH = 100, 1.25
_POLL_S = 0.1
#: What generators may take beyond the deadline to say that they are at rest.
_REST_GRACE_S = 8.0
#: How long to wait until all users have become sources.
_GATHER_S = 10.0


@dataclass(frozen=True)
class Sums:
    """What all generators measured so far, what they kept apart, and the dependence of this probe's latencies."""

    totals: Mapping[Series, Tally]
    warmups: Mapping[Series, Tally]
    dependence: Mapping[Series, float]


class Prober(Protocol):
    """What a search asks of the keeper of the book."""

    environment: Any
    turn: Any

    def sources(self) -> list[int]: ...
    def order(self, order: Order) -> None: ...
    def stop_probe(self, number: int) -> None: ...
    def rested(self, number: int) -> GeneratorHealth | None: ...
    def sums(self) -> Sums: ...
    def generators(self) -> list[dict[str, Any]]: ...
    def tick(self) -> None: ...


@dataclass(frozen=True)
class _Underway:
    """A probe that was ordered: what there was before it."""

    search: Searched
    order: Order
    step: NextProbe
    from_s: float
    before: Mapping[Series, Tally]


class Shape:
    """One run's search, over one pool after another. `start` once all users are there, `cut` where the run ends before,
    `rest` when all is at rest, `close` for run.json.
    """

    def __init__(
        self,
        keeper: Prober,
        book: Book,
        options: Options,
        targets: Sequence[Target],
        *,
        say: Callable[[str], None],
        finish: Callable[[Any], None],
    ) -> None:
        self._say = say
        self._finish = finish
        self._keeper = keeper
        self._book = book
        self._options = options
        self._series = [target.series for target in targets]
        self._searches = [Searched(pool) for pool in pools_of(self._series)]
        self._number = 0
        self._underway: _Underway | None = None
        self._driver: gevent.Greenlet | None = None
        self._until = 0.0

    def start(self) -> None:
        """Begins, once."""
        if self._driver is None:
            self._driver = gevent.spawn(self._drive)

    def cut(self) -> None:
        """No more probes; the one under way will count for what it is."""
        if self._driver is not None and self._driver is not gevent.getcurrent():
            self._driver.kill()

    def rest(self) -> None:
        """All is at rest, and the last interval is in the log: what was cut off becomes a probe without a verdict."""
        underway, self._underway = self._underway, None
        if underway is not None and underway.order.rate > 0:
            underway.search.ended = underway.search.ended or "the run ended"
            self._take(underway, self._keeper.rested(underway.order.number) or GeneratorHealth(), cut=True)

    # -- the course ---------------------------------------------------------------------------------------------------

    def _drive(self) -> None:
        given = self._keeper.environment.parsed_options.run_time
        total_s = float(given) - _MARGIN_S if isinstance(given, int | float) and given else SEARCH_S
        self._until = time.monotonic() + total_s
        self._say(f"{self._options.shape} takes about {format_seconds(total_s)}")
        self._gather_sources()
        for index, search in enumerate(self._searches):
            left = (self._until - time.monotonic()) / (len(self._searches) - index)
            if len(self._searches) > 1:
                share = f"search {index + 1} of {len(self._searches)}, {format_seconds(max(left, 0))}"
                self._say(f"{share}: {search.pool.hardware.name}, {search.pool.model}")
            self._search(index, search, time.monotonic() + left)
        gevent.spawn(self._finish, self._keeper.environment)

    def _gather_sources(self) -> None:
        users, limit = self._keeper.environment.runner.target_user_count, time.monotonic() + _GATHER_S
        while time.monotonic() < limit:
            sources = self._keeper.sources()
            if sources and (sum(sources) if self._options.router == "pinned" else min(sources)) >= users:
                break
            gevent.sleep(_POLL_S)
        for search, number in zip(self._searches, self._keeper.sources(), strict=False):
            search.sources = number
            targets = sum(pool_of(series) == search.pool for series in self._series)
            if self._options.router == "pinned" and number % targets:
                self._say(
                    f"warning: {number} users on {targets} targets of {search.pool.hardware.name}: --router pinned "
                    f"loads them alike only where -u is a multiple of their number"
                )

    def _search(self, index: int, search: Searched, until: float) -> None:
        if not search.sources:
            search.ended = "no user sends to it"
            return
        closed_rps, service_s = self._warm(index, search)
        if closed_rps <= 0:
            search.ended = "nothing was answered in a closed loop"
            self._say(f"{search.pool.hardware.name}: {search.ended}")
            return
        plan = self._plan(closed_rps, until - time.monotonic())
        while True:
            found = plan(search.seen, until - time.monotonic())
            if isinstance(found, SearchEnd):
                search.ended = found.reason
                return
            self._probe(index, search, found, service_s, until)

    def _plan(self, closed_rps: float, total_s: float) -> SearchStrategy:
        if self._options.shape == "steps":
            return StepSearch(first_rps=closed_rps, total_s=total_s).next
        return SloSearch(first_rps=closed_rps / 2, closed_rps=closed_rps, total_s=total_s).next

    def _warm(self, index: int, search: Searched) -> tuple[float, float]:
        """A closed loop of all users, which is kept apart: answers a second, and the mean time of one in seconds."""
        seconds = max(_WARM_S, self._options.warmup_ns / 1e9)
        before = self._warmed(search)
        self._number += 1
        self._keeper.order(Order(self._number, index, 0.0, 0, 0, int(seconds * 1e9)))
        self._await_rest(self._number, seconds)
        after = self._warmed(search)
        answered = after[0] - before[0]
        return answered / seconds, (after[1] - before[1]) / answered if answered else 0.0

    def _warmed(self, search: Searched) -> tuple[int, float]:
        """Answered before measuring so far, and their summed latency in seconds."""
        self._record()
        warmups = [tally for series, tally in self._keeper.sums().warmups.items() if pool_of(series) == search.pool]
        return sum(t.answered for t in warmups), sum(t.histograms["latency"].sum_ns for t in warmups) / 1e9

    def _probe(self, index: int, search: Searched, step: NextProbe, service_s: float, until: float) -> None:
        settle_s = min(
            max(_SETTLE_S, _SETTLE_REQUESTS * service_s),
            max(_SETTLE_SHARE * step.max_seconds, _SETTLE_S),
            _SETTLE_MOST_S,
        )
        length_s = max(step.max_seconds, settle_s + MIN_PROBE_S / 2)
        passing, failing = self._reached(search)
        self._say(
            f"probe {len(search.probes) + 1}, {step.phase}: {step.rate_rps:,.4g}/s for "
            f"{'at most ' if step.stop_early else ''}{format_seconds(length_s)}{passing}{failing}; "
            f"at most {format_seconds(max(until - time.monotonic(), 0))} to go"
        )
        self._record()
        before = {series: tally.copy() for series, tally in self._keeper.sums().totals.items()}
        self._book.measuring_begins()
        self._number += 1
        order = Order(self._number, index, step.rate_rps / search.sources, 0, int(settle_s * 1e9), int(length_s * 1e9))
        self._underway = _Underway(search, order, step, self._book.at_s, before)
        self._keeper.order(order)
        if step.stop_early:
            self._watch(search, before, length_s)
        health = self._await_rest(order.number, length_s)
        self._record()
        underway, self._underway = self._underway, None
        assert underway is not None
        probe = self._take(underway, health or GeneratorHealth(), cut=False)
        self._say(words(probe, len(search.probes), self._options.slo))

    def _watch(self, search: Searched, before: Mapping[Series, Tally], length_s: float) -> None:
        """Ends the probe as soon as its verdict was found twice."""
        assert self._options.slo is not None
        limit, look, last = time.monotonic() + length_s, _FIRST_LOOK, ""
        while time.monotonic() < limit and self._keeper.rested(self._number) is None:
            gevent.sleep(_POLL_S)
            sums = self._keeper.sums()
            members = [series for series in sums.totals if pool_of(series) == search.pool]
            due = sum(sums.totals[series].due - before[series].due for series in members)
            if due < look:
                continue
            look = int(due * _GROWTH) + 1
            latency, lost = Histogram(), 0
            gained = {series: Tally() for series in members}
            for series in members:
                total, earlier = sums.totals[series], before[series]
                latency.add(total.histograms["latency"].subtract(earlier.histograms["latency"]))
                lost += total.due - total.answered - earlier.due + earlier.answered
                gained[series].answered = total.answered - earlier.answered
            verdict = judge_slo(
                self._options.slo, latency, lost, pooled_autocorrelation_time(members, gained, sums.dependence)
            ).status
            if verdict == last != "inconclusive":
                self._keeper.stop_probe(self._number)
                return
            last = verdict

    def _await_rest(self, number: int, length_s: float) -> GeneratorHealth | None:
        """The probe's notes when all generators are at rest; None where they did not come to rest in time."""
        limit = time.monotonic() + length_s + self._options.deadline_ns / 1e9 + _REST_GRACE_S
        while time.monotonic() < limit:
            health = self._keeper.rested(number)
            if health is not None:
                return health
            gevent.sleep(_POLL_S / 5)
        return None

    def _record(self) -> None:
        with self._keeper.turn:
            self._keeper.tick()

    def _take(self, underway: _Underway, health: GeneratorHealth, *, cut: bool) -> Probe:
        """The probe as run.json has it, from what was gained since it began."""
        search, step, slo = underway.search, underway.step, self._options.slo
        sums = self._keeper.sums()
        gained = {
            series: tally_difference(tally, underway.before.get(series, Tally()))
            for series, tally in sums.totals.items()
            if pool_of(series) == search.pool
        }
        self._book.take_own(gained, underway.from_s)
        outcome = RunTotals(gained, {}, {}, health.window_s, self._keeper.generators(), health)
        probe, seen = judged(
            Probe(
                number=len(search.probes) + 1,
                phase=step.phase,
                planned_rps=step.rate_rps,
                offered_rps=0.0,
                throughput_rps=0.0,
                seconds=round(health.window_s, 3),
                from_s=underway.from_s,
                to_s=self._book.at_s,
                due=0,
                requests=0,
                answered=0,
            ),
            outcome,
            probe_checks(outcome, self._options),
            slo,
            step.rate_rps,
            cut=cut,
        )
        search.probes.append(probe)
        search.seen.append(seen)
        search.outcomes.append(outcome)
        return probe

    def _reached(self, search: Searched) -> tuple[str, str]:
        if self._options.shape != "slo-search":
            return "", ""
        found = conclude(search.seen) if search.seen else SloRate()
        passing = f"; passing {found.met_rps:,.4g}/s" if found.met_rps is not None else ""
        failing = f", failing {found.missed_rps:,.4g}/s" if found.missed_rps is not None else ""
        return passing, failing

    # -- what it found ------------------------------------------------------------------------------------------------

    def close(self, outcome: RunTotals) -> RunFile:
        """Writes run.json: rows of the probes that `probe_for_row` names, and the curves. `outcome`: the run's."""
        chosen = {search.pool: probe_for_row(search.seen) for search in self._searches}
        totals = {series: Tally() for series in outcome.totals}
        durations: dict[tuple[HardwareCombination, str, bool], float] = {}
        dependence: dict[Series, float] = {}
        checks = whole_checks(replace(outcome, totals=self._all()))
        alone = len(self._searches) == 1
        for search in self._searches:
            number = chosen[search.pool]
            if number is not None:
                found = search.outcomes[number]
                totals |= found.totals
                durations[search.pool] = found.measured_s
                dependence.update(found.health.autocorrelation)
                checks += search.named(probe_checks(found, self._options), alone)
            checks += search.named([search.check(self._options)], alone)
        curves = [search.curve(self._options, chosen[search.pool]) for search in self._searches]
        health = GeneratorHealth()
        health.autocorrelation = dependence
        rows = replace(outcome, totals=totals, measured_s=max(durations.values(), default=0.0), health=health)
        return self._book.close(rows, checks, curves, durations)

    def _all(self) -> dict[Series, Tally]:
        """All probes' tallies."""
        found = {series: Tally() for series in self._series}
        for search in self._searches:
            for outcome in search.outcomes:
                for series, tally in outcome.totals.items():
                    found[series].add(tally)
        return found
