"""When is it enough: `--until resolved` ends a run once the SLO's verdict is clear for every row."""

from __future__ import annotations

from collections.abc import Mapping

from capacity.measures import HardwareCombination, Series, Tally
from capacity.statistics import Slo, judge_slo

#: A verdict looked for again and again is found by chance; so it is looked for rarely, and must be found twice.
GROWTH = 1.25
FIRST_LOOK = 30


class Resolution:
    """Looks at what was measured so far whenever that has grown by a quarter."""

    def __init__(self, slo: Slo) -> None:
        self._slo = slo
        self._next = FIRST_LOOK
        self._last: dict[tuple[HardwareCombination, str], str] = {}

    def reached(self, totals: Mapping[Series, Tally], dependence: Mapping[Series, float]) -> bool:
        """True where no row's verdict is inconclusive, and every row's verdict is the one of the look before."""
        if min((tally.due for tally in totals.values()), default=0) < self._next:
            return False
        self._next = int(min(tally.due for tally in totals.values()) * GROWTH) + 1
        pooled: dict[tuple[HardwareCombination, str], Tally] = {}
        samples: dict[tuple[HardwareCombination, str], float] = {}
        for series, tally in totals.items():
            key = series.hardware, series.model
            pooled.setdefault(key, Tally()).add(tally)
            samples[key] = max(samples.get(key, 1.0), dependence.get(series, 1.0))
        verdicts = {
            key: judge_slo(self._slo, tally.histograms["latency"], tally.failed + tally.unsent, samples[key]).status
            for key, tally in pooled.items()
        }
        same, self._last = verdicts == self._last, dict(verdicts)
        return same and "inconclusive" not in verdicts.values()
