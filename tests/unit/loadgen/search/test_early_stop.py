"""A verdict ends a run or a probe once it is clear and was the same twice."""

from collections.abc import Mapping

import numpy as np

from capacity.measures import HardwareCombination, Series, Tally
from capacity.statistics import Slo
from loadgen.search import EarlyStop

SERIES = Series(HardwareCombination("host", "cpu-1c"), "m", "cpu:0 @ a:1", False)


def reached(early_stop: EarlyStop, tallies: Mapping[Series, Tally], autocorrelation: Mapping[Series, float]) -> bool:
    due = sum(one.due for one in tallies.values())
    return early_stop.reached(due, lambda: tallies, lambda: autocorrelation)


def tally(latency_ms: float, count: int) -> Tally:
    result = Tally(due=count, answered=count)
    result.histograms["latency"].record_ns(np.full(count, int(latency_ms * 1e6)))
    return result


def test_a_verdict_is_reached_when_it_was_found_twice() -> None:
    early_stop = EarlyStop(Slo.parse("p90=10ms"))

    assert not reached(early_stop, {SERIES: tally(5, 10)}, {})
    assert not reached(early_stop, {SERIES: tally(5, 60)}, {})
    # Not looked at again before the sample has grown by a quarter.
    assert not reached(early_stop, {SERIES: tally(5, 65)}, {})
    assert reached(early_stop, {SERIES: tally(5, 80)}, {})


def test_dependent_samples_resolve_later() -> None:
    early_stop = EarlyStop(Slo.parse("p90=10ms"))

    assert not reached(early_stop, {SERIES: tally(5, 100)}, {SERIES: 50.0})
    assert not reached(early_stop, {SERIES: tally(5, 200)}, {SERIES: 50.0})
    assert not reached(early_stop, {SERIES: tally(5, 4000)}, {SERIES: 50.0})
    assert reached(early_stop, {SERIES: tally(5, 8000)}, {SERIES: 50.0})
