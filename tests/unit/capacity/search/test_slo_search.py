"""The search finds the highest rate within an SLO of a machine whose answer is known, whatever that machine does."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from capacity.search import (
    BoundShare,
    NextProbe,
    ProbeSummary,
    SearchEnd,
    SloSearch,
    StepSearch,
    bound_shares,
    conclude,
    is_saturated,
    probe_for_row,
    rate_inversions,
    throughput_with_interval,
)
from capacity.search.conclusion import rate_bounds
from capacity.search.crossing import crossing_with_interval, estimate_crossing
from capacity.statistics import Histogram, Slo, judge_slo

SLO = Slo.parse("p90=30ms")
SATURATED = 100.0


def smooth(rate: float) -> float:
    """The share of requests within the bound: 90 % at 70 a second, less above, none where it is saturated."""
    return 1 - 0.1 * (rate / 70) ** 4 if rate < 95 else 0.02


class Machine:
    """Answers probes as hardware with this share within the bound would, each answer by chance. `limit_rps` is the
    highest rate that its generator reaches."""

    def __init__(
        self,
        within: Callable[[float], float],
        seed: int = 0,
        dependence: float = 3.0,
        limit_rps: float = math.inf,
    ) -> None:
        self._within = within
        self._random = np.random.default_rng(seed)
        self._dependence = dependence
        self._limit_rps = limit_rps

    def probe(self, step: NextProbe, slo: Slo | None = SLO) -> tuple[ProbeSummary, float]:
        """Returns the probe's summary and its length in seconds; one that may stop early stops at a clear verdict."""
        for part in (0.25, 0.5, 1.0) if step.stop_early else (1.0,):
            seconds = step.max_seconds * part
            due = int(self._random.poisson(step.rate_rps * seconds))
            hits = int(self._random.binomial(due / self._dependence, self._within(step.rate_rps)) * self._dependence)
            latency = Histogram()
            latency.record_ns([20_000_000] * hits + [40_000_000] * (due - hits))
            verdict = judge_slo(slo, latency, 0, self._dependence).status if slo else None
            if verdict != "inconclusive":
                break
        achieved = min(due / seconds, SATURATED)
        valid = step.rate_rps <= self._limit_rps
        probes = ProbeSummary(
            phase=step.phase,
            planned_rps=step.rate_rps,
            offered_rps=due / seconds,
            throughput_rps=achieved,
            verdict=verdict if valid or slo is None else "inconclusive",
            shares=bound_shares(slo, latency, 0, self._dependence) if slo and valid else (),
            saturated=is_saturated(due, int(achieved * seconds)),
            valid=valid,
        )
        return probes, seconds


def search(machine: Machine, total_s: float = 165.0, first: float = 48.0) -> tuple[list[ProbeSummary], str, float]:
    """All probes of a search, why it ended, and how long it took with a second of pause after each probe."""
    plan = SloSearch(first_rps=first, closed_rps=2 * first, total_s=total_s)
    probes: list[ProbeSummary] = []
    left = total_s
    while isinstance(step := plan.next(probes, left), NextProbe):
        assert step.max_seconds <= left
        probe, seconds = machine.probe(step)
        probes.append(probe)
        left -= seconds + 1
    return probes, step.reason, total_s - left


def probes_of(*verdicts: tuple[float, str], phase: str = "refine") -> list[ProbeSummary]:
    """Probes of these rates and verdicts, with the shares that go with them."""
    within = {"met": 0.97, "missed": 0.5, "inconclusive": 0.9}
    return [
        ProbeSummary(phase, rate, rate, rate, verdict, (bound_share(within[verdict]),))  # type: ignore[arg-type]
        for rate, verdict in verdicts
    ]


def bound_share(within: float) -> BoundShare:
    """Of a thousand independent samples."""
    return BoundShare(0.9, within, 1000)


def test_it_finds_the_known_rate_in_its_time_and_the_interval_holds_it() -> None:
    searches = [search(Machine(smooth, seed)) for seed in range(20)]

    rates = [conclude(probes) for probes, _reason, _seconds in searches]
    close = [abs((rate.estimate_rps or 0) / 70 - 1) <= 0.05 for rate in rates]
    covered = [rate.interval is not None and rate.interval[0] <= 70 <= rate.interval[1] for rate in rates]
    assert sum(close) >= 19
    assert sum(covered) >= 17
    assert all(seconds <= 165 + 1 for _probes, _reason, seconds in searches)
    assert sum(reason == "confirmed" for _probes, reason, _seconds in searches) >= 16
    # A claim is wrong where the truth is on its other side: chance does that rarely.
    wrong = [rate for rate in rates if (rate.met_rps or 0) > 70 or (rate.missed_rps or 99) < 70]
    assert len(wrong) <= 3


@pytest.mark.parametrize("first", [1.0, 9.0, 300.0, 2000.0])
def test_a_bad_first_rate_costs_time_and_not_the_answer(first: float) -> None:
    probes, _reason, _seconds = search(Machine(smooth), first=first)

    rate = conclude(probes)
    assert rate.estimate_rps == pytest.approx(70, rel=0.08)


def test_an_inconclusive_probe_is_no_bound() -> None:
    probes = probes_of((40, "met"), (60, "inconclusive"), (70, "inconclusive"), (80, "missed"))

    assert rate_bounds(probes) == (40, 80)
    assert rate_bounds(probes_of((60, "inconclusive"))) == (None, None)
    assert conclude(probes).met_rps == 40
    assert conclude(probes).missed_rps == 80


def test_a_miss_below_a_met_rate_is_rechecked_and_is_the_bound_where_it_repeats() -> None:
    plan = SloSearch(first_rps=10, closed_rps=20, total_s=165)
    inverted = probes_of((20, "met"), (40, "missed"), (80, "met"), (160, "missed"))

    step = plan.next(inverted, 100)
    assert isinstance(step, NextProbe)
    assert (step.phase, step.rate_rps) == ("recheck", 40)

    met = [*inverted, *probes_of((40, "met"))]
    assert rate_inversions(met) == []
    assert rate_bounds(met) == (80, 160)

    missed = [*inverted, *probes_of((40, "missed"))]
    assert rate_inversions(missed) == [(40, 80)]
    assert rate_bounds(missed) == (20, 40)
    after = plan.next(missed, 100)
    assert isinstance(after, NextProbe)
    assert after.phase != "recheck"


def test_a_real_cliff_is_found_from_below() -> None:
    def with_gap(rate: float) -> float:
        return 0.5 if 30 < rate < 45 else smooth(rate)

    probes, _reason, _seconds = search(Machine(with_gap, seed=1), first=40)

    assert (conclude(probes).met_rps or 0) < 31


def test_the_generators_own_limit_is_no_verdict_on_the_hardware() -> None:
    probes, reason, _seconds = search(Machine(smooth, limit_rps=55), first=20)

    rate = conclude(probes)
    assert rate.missed_rps is None
    assert rate.estimate_rps is None
    assert rate.met_rps is not None
    assert 44 < rate.met_rps <= 55
    assert rate.confirmed, reason


def test_a_generator_that_limit_rps_with_nothing_ends_the_search() -> None:
    probes, reason, _seconds = search(Machine(smooth, limit_rps=0))

    assert reason == "the generator reached its own limit at every tested rate"
    assert len(probes) <= 8
    assert probe_for_row(probes) is None
    assert conclude(probes).met_rps is None


def test_hardware_that_never_meets_the_slo_ends_the_search() -> None:
    probes, reason, _seconds = search(Machine(lambda rate: 0.3))

    assert reason.startswith("no tested rate met the SLO")
    assert len(probes) < 12
    assert conclude(probes).met_rps is None
    shown = probe_for_row(probes)
    assert shown is not None
    assert probes[shown].planned_rps == min(probe.planned_rps for probe in probes)


def test_hardware_that_meets_it_up_to_saturation_is_bounded_there() -> None:
    probes, _reason, seconds = search(Machine(lambda rate: 0.999 if rate < 95 else 0.02))

    rate = conclude(probes)
    assert seconds <= 166
    assert rate.met_rps is not None
    assert rate.missed_rps is not None
    assert 0.85 * 95 < rate.met_rps < 95 < rate.missed_rps * 1.03 < 1.15 * 95


def test_a_confirming_probe_that_fails_takes_the_rate_back() -> None:
    once = [*probes_of((40, "met"), (60, "met"), (64, "missed")), *probes_of((60, "missed"), phase="confirm")]

    assert rate_bounds(once) == (40, 64)
    assert not conclude(once).confirmed
    confirmed = [*once, *probes_of((40, "met"), phase="confirm")]
    assert conclude(confirmed).confirmed
    assert probe_for_row(confirmed) == len(confirmed) - 1
    assert SloSearch(20, 40, 165).next(confirmed, 100) == SearchEnd("confirmed")


def test_a_bound_is_claimed_at_the_planned_or_the_offered_rate_whichever_claims_less() -> None:
    low, high = probes_of((50, "met"), (70, "missed"))
    probes = [
        ProbeSummary("refine", 50, 48.5, 48.5, "met", low.shares),
        ProbeSummary("refine", 70, 71.5, 71.5, "missed", high.shares),
    ]

    assert (conclude(probes).met_rps, conclude(probes).missed_rps) == (48.5, 71.5)


def test_the_fit_never_lets_more_load_be_better() -> None:
    probes = [
        ProbeSummary("refine", rate, rate, rate, "inconclusive", (bound_share(within),))
        for rate, within in ((40, 0.96), (50, 0.93), (60, 0.94), (70, 0.86), (80, 0.87))
    ]

    middle = estimate_crossing(probes)
    assert middle is not None
    assert 60 < middle < 75
    crossing = crossing_with_interval(probes)
    assert crossing is not None
    assert crossing[1] < middle < crossing[2]
    assert estimate_crossing(probes[:3]) is None


def test_an_slo_with_several_bounds_is_crossed_where_the_first_of_them_is() -> None:
    slo = Slo.parse("p50=10ms,p90=30ms,errors=1%")

    def summary(rate: float, fast: float, within: float) -> ProbeSummary:
        latency = Histogram()
        latency.record_ns(
            [5_000_000] * round(1000 * fast)
            + [20_000_000] * round(1000 * (within - fast))
            + [50_000_000] * round(1000 * (1 - within))
        )
        return ProbeSummary("refine", rate, rate, rate, "inconclusive", bound_shares(slo, latency, 0, 1.0))

    median_first = [summary(40, 0.6, 0.99), summary(80, 0.4, 0.97)]
    tail_first = [summary(40, 0.9, 0.95), summary(80, 0.8, 0.85)]

    assert estimate_crossing(median_first) == pytest.approx(math.sqrt(40 * 80), rel=0.01)
    assert estimate_crossing(tail_first) is not None


def test_steps_are_even_and_go_one_beyond_saturation() -> None:
    plan = StepSearch(first_rps=30, total_s=120)
    probes: list[ProbeSummary] = []
    left = 120.0
    while isinstance(step := plan.next(probes, left), NextProbe):
        probe, seconds = Machine(smooth, len(probes)).probe(step, slo=None)
        probes.append(probe)
        left -= seconds + 0.5

    steps = [probe.planned_rps for probe in probes if probe.phase == "step"]
    assert len(steps) == 11
    assert [b - a for a, b in pairwise(steps)] == pytest.approx([steps[0]] * 10, abs=1e-3)
    assert steps[9] == pytest.approx(SATURATED, rel=0.01)
    assert probes[-1].saturated
    assert left >= -0.5
    shown = probe_for_row(probes)
    assert shown is not None
    assert not probes[shown].saturated


def test_less_answered_than_offered_is_saturation_only_beyond_chance() -> None:
    assert not is_saturated(100, 85)
    assert is_saturated(100, 75)
    assert not is_saturated(10_000, 9_600)
    assert is_saturated(10_000, 9_400)


def test_the_interval_of_a_throughput_holds_it() -> None:
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(100):
        rate, interval = throughput_with_interval([random.poisson(5.0, 60), random.poisson(2.5, 61)], 0.05)
        assert interval is not None
        assert interval[0] <= rate * 1.01
        covered += interval[0] <= 150 <= interval[1]
    assert covered >= 88
    assert throughput_with_interval([np.array([5, 5, 5])], 0.05) == (100.0, None)
    assert throughput_with_interval([], 0.05) == (0.0, None)
