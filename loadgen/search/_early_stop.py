"""When a verdict is clear enough to stop: of a run with --until verdict, and of a probe."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from capacity.measures import HardwareCombination, Series, Tally
from capacity.rundir import pooled_autocorrelation_time
from capacity.statistics import Histogram, Slo, judge_slo

#: Between two looks the sample grows by this factor. A verdict that is looked for often enough is reached by chance, so
#: it is looked for rarely, and must be the same twice in a row.
_GROWTH = 1.25


class EarlyStop:
    """Looks at the verdict of each row once `first_look` requests are there, and whenever they grew by a quarter."""

    def __init__(self, slo: Slo, first_look: int = 30) -> None:
        self._slo = slo
        self._next_look = first_look
        self._last_verdicts: dict[tuple[HardwareCombination, str], str] = {}

    def reached(
        self,
        due: int,
        tallies: Callable[[], Mapping[Series, Tally]],
        autocorrelation: Callable[[], Mapping[Series, float]],
    ) -> bool:
        """Returns whether every row's verdict is clear, and the one of the look before.

        `due` is the size of the sample in requests, which decides whether it is looked at all; `autocorrelation`
        returns the autocorrelation time of each series' latencies in samples.
        """
        if due < self._next_look:
            return False
        self._next_look = int(due * _GROWTH) + 1
        verdicts = self._verdicts(tallies(), autocorrelation())
        stable, self._last_verdicts = verdicts == self._last_verdicts, verdicts
        return stable and "inconclusive" not in verdicts.values()

    def _verdicts(
        self, tallies: Mapping[Series, Tally], autocorrelation: Mapping[Series, float]
    ) -> dict[tuple[HardwareCombination, str], str]:
        rows: dict[tuple[HardwareCombination, str], list[Series]] = {}
        for series in tallies:
            rows.setdefault((series.hardware, series.model), []).append(series)
        return {row: self._verdict(members, tallies, autocorrelation) for row, members in rows.items()}

    def _verdict(
        self, members: list[Series], tallies: Mapping[Series, Tally], autocorrelation: Mapping[Series, float]
    ) -> str:
        latency, lost = Histogram(), 0
        for series in members:
            latency.add(tallies[series].histograms["latency"])
            lost += tallies[series].failed + tallies[series].unsent
        time = pooled_autocorrelation_time(members, tallies, autocorrelation)
        return judge_slo(self._slo, latency, lost, time).status
