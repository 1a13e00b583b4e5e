"""Which rate to try next: the search for the highest rate within an SLO, and even steps up to saturation.

Decisions only: no clock and no load in here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from capacity.search.crossing import (
    Seen,
    Share,
    bounds,
    cliffs,
    conclude,
    confirms,
    crossing,
    estimate,
    row_of,
    saturated,
    shares,
    throughput,
    verdicts_of,
)

__all__ = [
    "SHORTEST_S",
    "Plan",
    "Seen",
    "Share",
    "SloSearch",
    "Step",
    "Steps",
    "Stop",
    "bounds",
    "cliffs",
    "conclude",
    "crossing",
    "estimate",
    "row_of",
    "saturated",
    "shares",
    "throughput",
]

#: Shares of the time that is there: at most so much for one probe of this phase.
_TIME = {"bracket": 0.08, "saturate": 0.02, "refine": 0.2, "recheck": 0.12, "confirm": 0.2}
#: A probe shorter than this, in seconds, says nothing.
SHORTEST_S = 2.0
_SATURATE_MOST_S = 5.0
#: Passing and failing rates this close are not looked between.
_CLOSE = 1.08
#: How far from the estimate a verdict is looked for first, and how much farther after each that stayed open.
_OFFSET, _FARTHER = 0.1, 0.04
_LOWER_FIRST = 1.2
#: The share of the time that is kept for confirming, and how far back each time that a rate is not confirmed.
_KEPT, _BACK = 0.28, 0.92
_MOST_PROBES = 60
_MOST_TRIES = 4
_STEPS = 10
_NONE_PASSED = "no rate passed: a probe of a lower one would take longer than there is time"


@dataclass(frozen=True)
class Step:
    """The next probe: at most `most_s` seconds long; `early` ends it as soon as its verdict is clear."""

    phase: str
    rate: float
    most_s: float
    early: bool = False


@dataclass(frozen=True)
class Stop:
    """No more probes, and why."""

    reason: str


@dataclass(frozen=True)
class SloSearch:
    """Doubles or halves from `first` until a pass lies under a fail, looks where it saturates, closes in, and confirms.

    `closed_rps` is what a closed loop got through, `total_s` the time for everything.
    """

    first: float
    closed_rps: float
    total_s: float

    def next(self, seen: Sequence[Seen], left_s: float) -> Step | Stop:
        """The next probe, with `left_s` seconds left."""
        if any(confirms(one) and one.rate <= (bounds(seen)[0] or 0) for one in seen):
            return Stop("confirmed")
        if left_s < SHORTEST_S:
            return Stop("the time was over")
        if len(seen) >= _MOST_PROBES:
            return Stop(f"{_MOST_PROBES} probes did not settle it")
        if not seen:
            return self._step("bracket", self.first, left_s)
        for phase in (self._again, self._recheck, self._bracket, self._saturate, self._refine, self._confirm):
            found = phase(seen, left_s)
            if found is not None:
                return found
        return Stop("no probe would tell more")

    def _step(self, phase: str, rate: float, left_s: float) -> Step:
        most = max(_TIME[phase] * self.total_s, SHORTEST_S)
        if phase == "saturate":
            most = min(most, _SATURATE_MOST_S)
        return Step(phase, round(rate, 4), min(most, left_s), early=phase not in ("confirm", "saturate"))

    def _again(self, seen: Sequence[Seen], left_s: float) -> Step | None:
        """What a generator could not do once may have been a disturbance; twice is its limit."""
        last = seen[-1]
        if last.valid or last.phase == "saturate" or sum(one.rate == last.rate and not one.valid for one in seen) > 1:
            return None
        return self._step(last.phase, last.rate, left_s)

    def _recheck(self, seen: Sequence[Seen], left_s: float) -> Step | None:
        """A fail below a pass: chance, a disturbance, or a cliff. It is a cliff where it fails again."""
        for rate, _above in cliffs(seen):
            tries = [one for one in seen if one.rate == rate and one.valid]
            if len(tries) < 2:
                return self._step("recheck", rate, left_s)
        return None

    def _bracket(self, seen: Sequence[Seen], left_s: float) -> Step | Stop | None:
        verdicts = verdicts_of(seen)
        passing, failing = bounds(seen)
        kept_up = {one.rate for one in seen if one.valid}
        limit = min((one.rate for one in seen if one.rate not in kept_up), default=None)
        if not verdicts:
            assert limit is not None
            if len(seen) >= _MOST_TRIES:
                return Stop("the generator was at its limit at every rate that was tried")
            return self._step("bracket", limit / 4, left_s)
        leaning = {one.rate for one in seen if one.valid and one.leans}
        if passing is None and (not leaning or failing is not None or max(verdicts) not in leaning):
            lowest = min(verdicts)
            if leaning and lowest in leaning:
                # Too short to tell: farther from where it seems to be crossed, and for longer.
                tries = sum(one.phase == "refine" for one in seen)
                rate = 0.75 * 0.85**tries * (crossing(seen) or min(failing or math.inf, *(verdicts.keys() - leaning)))
                return self._step("refine", rate, left_s) if rate * left_s >= 60 else Stop(_NONE_PASSED)
            if lowest / 2 * left_s < 60:
                return Stop(_NONE_PASSED)
            return self._step("bracket", lowest / 2, left_s)
        if failing is None:
            highest = max(verdicts)
            rate = highest * (2 if highest in leaning else 1.4)
            if limit is not None and rate >= limit:
                # Between the last rate that the generator kept up with and the first that it did not.
                rate = math.sqrt(highest * limit)
                if rate < 1.1 * highest:
                    return None
            return self._step("bracket", rate, left_s)
        return None

    def _saturate(self, seen: Sequence[Seen], left_s: float) -> Step | None:
        tries = [one for one in seen if one.phase == "saturate"]
        _passing, failing = bounds(seen)
        if failing is None or any(one.saturated for one in seen) or len(tries) >= _MOST_TRIES:
            return None
        if any(not one.valid for one in tries) or left_s < 0.35 * self.total_s:
            return None
        rate = 2 * tries[-1].rate if tries else max(1.3 * self.closed_rps, 1.3 * max(one.rate for one in seen))
        return self._step("saturate", rate, left_s)

    def _refine(self, seen: Sequence[Seen], left_s: float) -> Step | None:
        passing, failing = bounds(seen)
        spare = left_s - _KEPT * self.total_s
        confirming = any(one.phase == "confirm" for one in seen)
        if passing is None or failing is None or failing / passing <= _CLOSE or confirming:
            return None
        if spare < max(0.04 * self.total_s, SHORTEST_S):
            return None
        inside = [one for one in seen if one.valid and passing < one.rate < failing]
        if not inside:
            return self._step("refine", math.sqrt(passing * failing), spare)
        middle = crossing(seen) or math.sqrt(passing * failing)
        middle = min(max(middle, passing * 1.001), failing / 1.001)
        below = middle * (1 - _OFFSET - _FARTHER * sum(one.rate < middle * 0.98 for one in inside))
        above = middle * (1 + _OFFSET + _FARTHER * sum(one.rate > middle * 1.02 for one in inside))
        # The side on which less is known first; where it is much the same the lower one, since what passes is wanted.
        sides = [(_LOWER_FIRST * middle / passing, below), (failing / middle, above)]
        for _gap, rate in sorted(sides, reverse=True):
            if passing * 1.02 < rate < failing / 1.02:
                return self._step("refine", rate, spare)
        return None

    def _confirm(self, seen: Sequence[Seen], left_s: float) -> Step | None:
        passing, _failing = bounds(seen)
        tried = [one for one in seen if one.phase == "confirm"]
        if passing is None or len(tried) >= _MOST_TRIES or left_s < min(0.06 * self.total_s, 10):
            return None
        # A rate that was not confirmed is not tried again: a little less may well be.
        rate = min([passing, *(_BACK * one.rate for one in tried if one.valid)])
        return self._step("confirm", rate, left_s)


@dataclass(frozen=True)
class Steps:
    """Doubles from `first` until less is answered than is offered, then goes there in even steps, and one beyond."""

    first: float
    total_s: float

    def next(self, seen: Sequence[Seen], left_s: float) -> Step | Stop:
        """The next probe, with `left_s` seconds left."""
        if left_s < SHORTEST_S:
            return Stop("the time was over")
        drawn = [one for one in seen if one.phase == "step"]
        top = max((one.achieved for one in seen if one.saturated and one.valid), default=None)
        limit = min((one.rate for one in seen if not one.valid), default=None)
        if not drawn and top is None and limit is None and len(seen) < _MOST_PROBES:
            rate = 2 * seen[-1].rate if seen else self.first
            most = min(max(0.03 * self.total_s, SHORTEST_S), _SATURATE_MOST_S)
            return Step("bracket", round(rate, 4), min(most, left_s))
        # What a step finds does not move the others.
        size = drawn[0].rate if drawn else (top if top is not None else limit or seen[-1].rate) / _STEPS
        if len(drawn) > _STEPS:
            return Stop("all steps were taken")
        most = max(left_s / (_STEPS + 1 - len(drawn)) - 0.5, SHORTEST_S)
        return Step("step", round(size * (len(drawn) + 1), 4), min(most, left_s))


Plan = Callable[[Sequence[Seen], float], Step | Stop]
