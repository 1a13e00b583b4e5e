"""The search finds the highest rate within an SLO of a machine whose answer is known, whatever that machine does."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from capacity.search.slo_search import (
    Seen,
    Share,
    SloSearch,
    Step,
    Steps,
    Stop,
    bounds,
    cliffs,
    conclude,
    crossing,
    estimate,
    row_of,
    saturated,
    shares,
    throughput,
)
from capacity.statistics.histogram import Histogram
from capacity.statistics.slo import Slo
from capacity.statistics.verdict import judge

SLO = Slo.parse("p90=30ms")
SATURATED = 100.0


def smooth(rate: float) -> float:
    """The share of requests within the bound: 90 % at 70 a second, less above, none where it is saturated."""
    return 1 - 0.1 * (rate / 70) ** 4 if rate < 95 else 0.02


class Machine:
    """Answers probes as hardware with this share within the bound would, each answer by chance. `keeps_up` is the
    highest rate that its generator does."""

    def __init__(
        self, within: Callable[[float], float], seed: int = 0, dependence: float = 3.0, keeps_up: float = math.inf
    ) -> None:
        self._within = within
        self._random = np.random.default_rng(seed)
        self._dependence = dependence
        self._keeps_up = keeps_up

    def probe(self, step: Step, slo: Slo | None = SLO) -> tuple[Seen, float]:
        """What a probe finds, and how many seconds it took: of one that may end early, as many as it needed."""
        for part in (0.25, 0.5, 1.0) if step.early else (1.0,):
            seconds = step.most_s * part
            due = int(self._random.poisson(step.rate * seconds))
            hits = int(self._random.binomial(due / self._dependence, self._within(step.rate)) * self._dependence)
            latency = Histogram()
            latency.record_ns([20_000_000] * hits + [40_000_000] * (due - hits))
            verdict = judge(slo, latency, 0, self._dependence).status if slo else None
            if verdict != "UNRESOLVED":
                break
        achieved = min(due / seconds, SATURATED)
        valid = step.rate <= self._keeps_up
        seen = Seen(
            phase=step.phase,
            rate=step.rate,
            offered=due / seconds,
            achieved=achieved,
            verdict=verdict if valid or slo is None else "UNRESOLVED",
            shares=shares(slo, latency, 0, self._dependence) if slo and valid else (),
            saturated=saturated(due, int(achieved * seconds)),
            valid=valid,
        )
        return seen, seconds


def search(machine: Machine, total_s: float = 165.0, first: float = 48.0) -> tuple[list[Seen], str, float]:
    """All probes of a search, why it ended, and how long it took with a second of pause after each probe."""
    plan = SloSearch(first=first, closed_rps=2 * first, total_s=total_s)
    seen: list[Seen] = []
    left = total_s
    while isinstance(step := plan.next(seen, left), Step):
        assert step.most_s <= left
        one, seconds = machine.probe(step)
        seen.append(one)
        left -= seconds + 1
    return seen, step.reason, total_s - left


def probed(*what: tuple[float, str], phase: str = "refine") -> list[Seen]:
    """Probes of these rates and verdicts, with the shares that go with them."""
    within = {"PASS": 0.97, "FAIL": 0.5, "UNRESOLVED": 0.9}
    return [
        Seen(phase, rate, rate, rate, verdict, (share(within[verdict]),))  # type: ignore[arg-type]
        for rate, verdict in what
    ]


def share(within: float) -> Share:
    """Of a thousand independent samples."""
    return Share(0.9, within, 1000)


def test_it_finds_the_known_rate_in_its_time_and_the_interval_holds_it() -> None:
    found = [search(Machine(smooth, seed)) for seed in range(20)]

    rates = [conclude(seen) for seen, _reason, _seconds in found]
    close = [abs((rate.estimate_rps or 0) / 70 - 1) <= 0.05 for rate in rates]
    held = [rate.interval is not None and rate.interval[0] <= 70 <= rate.interval[1] for rate in rates]
    assert sum(close) >= 19
    assert sum(held) >= 17
    assert all(seconds <= 165 + 1 for _seen, _reason, seconds in found)
    assert sum(reason == "confirmed" for _seen, reason, _seconds in found) >= 16
    # A claim is wrong where the truth is on its other side: chance does that rarely.
    wrong = [rate for rate in rates if (rate.passing_rps or 0) > 70 or (rate.failing_rps or 99) < 70]
    assert len(wrong) <= 3


@pytest.mark.parametrize("first", [1.0, 9.0, 300.0, 2000.0])
def test_a_bad_first_rate_costs_time_and_not_the_answer(first: float) -> None:
    seen, _reason, _seconds = search(Machine(smooth), first=first)

    rate = conclude(seen)
    assert rate.estimate_rps == pytest.approx(70, rel=0.08)


def test_an_unresolved_probe_is_no_bound() -> None:
    seen = probed((40, "PASS"), (60, "UNRESOLVED"), (70, "UNRESOLVED"), (80, "FAIL"))

    assert bounds(seen) == (40, 80)
    assert bounds(probed((60, "UNRESOLVED"))) == (None, None)
    assert conclude(seen).passing_rps == 40
    assert conclude(seen).failing_rps == 80


def test_a_pass_above_a_fail_is_tried_again_and_is_no_bound_where_it_stays() -> None:
    plan = SloSearch(first=10, closed_rps=20, total_s=165)
    odd = probed((20, "PASS"), (40, "FAIL"), (80, "PASS"), (160, "FAIL"))

    step = plan.next(odd, 100)
    assert isinstance(step, Step)
    assert (step.phase, step.rate) == ("recheck", 40)

    again = [*odd, *probed((40, "PASS"))]
    assert cliffs(again) == []
    assert bounds(again) == (80, 160)

    stays = [*odd, *probed((40, "FAIL"))]
    assert cliffs(stays) == [(40, 80)]
    assert bounds(stays) == (20, 40)
    after = plan.next(stays, 100)
    assert isinstance(after, Step)
    assert after.phase != "recheck"


def test_a_real_cliff_is_found_from_below() -> None:
    def holed(rate: float) -> float:
        return 0.5 if 30 < rate < 45 else smooth(rate)

    seen, _reason, _seconds = search(Machine(holed, seed=1), first=40)

    assert (conclude(seen).passing_rps or 0) < 31


def test_what_the_generator_could_not_do_is_no_verdict_on_the_hardware() -> None:
    seen, reason, _seconds = search(Machine(smooth, keeps_up=55), first=20)

    rate = conclude(seen)
    assert rate.failing_rps is None
    assert rate.estimate_rps is None
    assert rate.passing_rps is not None
    assert 44 < rate.passing_rps <= 55
    assert rate.confirmed, reason


def test_a_generator_that_keeps_up_with_nothing_ends_the_search() -> None:
    seen, reason, _seconds = search(Machine(smooth, keeps_up=0))

    assert reason == "the generator was at its limit at every rate that was tried"
    assert len(seen) <= 8
    assert row_of(seen) is None
    assert conclude(seen).passing_rps is None


def test_hardware_that_never_meets_the_slo_ends_the_search() -> None:
    seen, reason, _seconds = search(Machine(lambda rate: 0.3))

    assert reason.startswith("no rate passed")
    assert len(seen) < 12
    assert conclude(seen).passing_rps is None
    shown = row_of(seen)
    assert shown is not None
    assert seen[shown].rate == min(one.rate for one in seen)


def test_hardware_that_meets_it_up_to_saturation_is_bounded_there() -> None:
    seen, _reason, seconds = search(Machine(lambda rate: 0.999 if rate < 95 else 0.02))

    rate = conclude(seen)
    assert seconds <= 166
    assert rate.passing_rps is not None
    assert rate.failing_rps is not None
    assert 0.85 * 95 < rate.passing_rps < 95 < rate.failing_rps * 1.03 < 1.15 * 95


def test_a_confirming_probe_that_fails_takes_the_rate_back() -> None:
    once = [*probed((40, "PASS"), (60, "PASS"), (64, "FAIL")), *probed((60, "FAIL"), phase="confirm")]

    assert bounds(once) == (40, 64)
    assert not conclude(once).confirmed
    confirmed = [*once, *probed((40, "PASS"), phase="confirm")]
    assert conclude(confirmed).confirmed
    assert row_of(confirmed) == len(confirmed) - 1
    assert SloSearch(20, 40, 165).next(confirmed, 100) == Stop("confirmed")


def test_a_bound_is_claimed_at_the_planned_or_the_offered_rate_whichever_claims_less() -> None:
    low, high = probed((50, "PASS"), (70, "FAIL"))
    few = [Seen("refine", 50, 48.5, 48.5, "PASS", low.shares), Seen("refine", 70, 71.5, 71.5, "FAIL", high.shares)]

    assert (conclude(few).passing_rps, conclude(few).failing_rps) == (48.5, 71.5)


def test_the_fit_never_lets_more_load_be_better() -> None:
    seen = [
        Seen("refine", rate, rate, rate, "UNRESOLVED", (share(within),))
        for rate, within in ((40, 0.96), (50, 0.93), (60, 0.94), (70, 0.86), (80, 0.87))
    ]

    middle = crossing(seen)
    assert middle is not None
    assert 60 < middle < 75
    found = estimate(seen)
    assert found is not None
    assert found[1] < middle < found[2]
    assert crossing(seen[:3]) is None


def test_an_slo_with_several_bounds_is_crossed_where_the_first_of_them_is() -> None:
    slo = Slo.parse("p50=10ms,p90=30ms,errors=1%")

    def one(rate: float, fast: float, within: float) -> Seen:
        latency = Histogram()
        latency.record_ns(
            [5_000_000] * round(1000 * fast)
            + [20_000_000] * round(1000 * (within - fast))
            + [50_000_000] * round(1000 * (1 - within))
        )
        return Seen("refine", rate, rate, rate, "UNRESOLVED", shares(slo, latency, 0, 1.0))

    median_first = [one(40, 0.6, 0.99), one(80, 0.4, 0.97)]
    tail_first = [one(40, 0.9, 0.95), one(80, 0.8, 0.85)]

    assert crossing(median_first) == pytest.approx(math.sqrt(40 * 80), rel=0.01)
    assert crossing(tail_first) is not None


def test_steps_are_even_and_go_one_beyond_saturation() -> None:
    plan = Steps(first=30, total_s=120)
    seen: list[Seen] = []
    left = 120.0
    while isinstance(step := plan.next(seen, left), Step):
        one, seconds = Machine(smooth, len(seen)).probe(step, slo=None)
        seen.append(one)
        left -= seconds + 0.5

    drawn = [one.rate for one in seen if one.phase == "step"]
    assert len(drawn) == 11
    assert [b - a for a, b in pairwise(drawn)] == pytest.approx([drawn[0]] * 10, abs=1e-3)
    assert drawn[9] == pytest.approx(SATURATED, rel=0.01)
    assert seen[-1].saturated
    assert left >= -0.5
    shown = row_of(seen)
    assert shown is not None
    assert not seen[shown].saturated


def test_less_answered_than_offered_is_saturation_only_beyond_chance() -> None:
    assert not saturated(100, 85)
    assert saturated(100, 75)
    assert not saturated(10_000, 9_600)
    assert saturated(10_000, 9_400)


def test_the_interval_of_a_throughput_holds_it() -> None:
    random = np.random.default_rng(3)
    held = 0
    for _ in range(100):
        rate, interval = throughput([random.poisson(5.0, 60), random.poisson(2.5, 61)], 0.05)
        assert interval is not None
        assert interval[0] <= rate * 1.01
        held += interval[0] <= 150 <= interval[1]
    assert held >= 88
    assert throughput([np.array([5, 5, 5])], 0.05) == (100.0, None)
    assert throughput([], 0.05) == (0.0, None)
