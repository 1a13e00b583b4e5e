"""Feeds the live page once a second: the last interval, and from time to time the checks of the run so far."""

from __future__ import annotations

from collections.abc import Callable

from capacity.statistics import Check
from loadgen._options import Options
from loadgen.checks import check_generator_processor, check_running
from loadgen.measure import RunTotals
from loadgen.run._generators import Interval
from loadgen.web import LiveView, merge_checks

#: Ticks between two evaluations of all checks, which cost as much as a second's load.
CHECK_INTERVAL = 5


class LiveFeed:
    """Pushes a run's state to the page. `current_totals` returns None where there is nothing to check yet."""

    def __init__(self, live: LiveView, options: Options, current_totals: Callable[[], RunTotals | None]) -> None:
        self._live = live
        self._options = options
        self._current_totals = current_totals
        self._checks: list[Check] = []
        self._ticks = 0

    def push(self, interval: Interval, busiest_share: float | None) -> None:
        """Pushes one interval; `busiest_share` is the busiest generator's share of a core, as it was read last."""
        self._ticks += 1
        # Of a search there are no checks before its end: each probe has its own.
        if self._ticks % CHECK_INTERVAL == 0 and not self._options.shape:
            totals = self._current_totals()
            if totals is not None:
                self._checks = check_running(totals, self._options)
        fresh = [] if busiest_share is None else [check_generator_processor(busiest_share)]
        self._live.tick(interval.tallies, interval.in_flight, merge_checks(self._checks, fresh))
