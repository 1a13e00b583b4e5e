"""Which rate to try next, and what all the tries together say: the search for the highest rate within an SLO, and even
steps up to saturation. Decisions only: no clock and no load in here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.special import stdtrit

from capacity.confidence import CONFIDENCE
from capacity.document import SloRate
from capacity.histogram import Histogram
from capacity.slo import Slo

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
_MOST_PROBES = 60
_MOST_TRIES = 4
_STEPS = 10
_REPLICATES = 400
#: Where fewer samples than these may be beyond a bound, the share that was seen says little.
_FEW_BEYOND = 3
_NONE_PASSED = "no rate passed: a probe of a lower one would take longer than there is time"
_BATCHES = 10

Verdict = Literal["PASS", "FAIL", "UNRESOLVED"]


@dataclass(frozen=True)
class Share:
    """Of `samples` independent samples' worth, the share `within` was within a bound that `needed` of them must be."""

    needed: float
    within: float
    samples: float


@dataclass(frozen=True)
class Seen:
    """A probe as the search takes it: rates a second as planned, offered and achieved, and what came of it.

    A probe that is not `valid` is one of the generator, not of the hardware.
    """

    phase: str
    rate: float
    offered: float
    achieved: float
    verdict: Verdict | None
    shares: tuple[Share, ...] = ()
    saturated: bool = False
    valid: bool = True

    @property
    def leans(self) -> bool:
        """Whether it passed, or would have if there had been no doubt. Of a few samples more are sooner had above."""
        seems = all(
            share.within >= share.needed or share.samples * (1 - share.needed) < _FEW_BEYOND for share in self.shares
        )
        return self.verdict == "PASS" or (self.verdict == "UNRESOLVED" and seems)


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


def shares(slo: Slo, latency: Histogram, lost: int, dependence: float) -> tuple[Share, ...]:
    """For each bound of the SLO, how many of answered and `lost` requests were within it."""
    total = latency.count + lost
    if not total:
        return ()
    found = [
        Share(p / 100, (latency.count - latency.count_above_us(bound_ns / 1000)) / total, total / dependence)
        for p, bound_ns in slo.bounds
    ]
    if slo.max_error_rate is not None:
        found.append(Share(1 - slo.max_error_rate, latency.count / total, float(total)))
    return tuple(found)


def saturated(offered: int, answered: int) -> bool:
    """Whether clearly less was answered than was due in the same time: by 5 %, and by more than chance makes of it."""
    return offered - answered > max(0.05 * offered, 2 * math.sqrt(offered))


def bounds(seen: Sequence[Seen]) -> tuple[float | None, float | None]:
    """The highest planned rate that passed and the lowest that failed. A pass above a fail is no bound."""
    verdicts = _verdicts(seen)
    failing = min((rate for rate, verdict in verdicts.items() if verdict == "FAIL"), default=None)
    passing = max(
        (rate for rate, verdict in verdicts.items() if verdict == "PASS" and (failing is None or rate < failing)),
        default=None,
    )
    return passing, failing


def _verdicts(seen: Sequence[Seen]) -> dict[float, Verdict]:
    """By planned rate: what most of its clear verdicts say; UNRESOLVED where they are even, or where there is none."""
    found: dict[float, list[Verdict]] = {}
    for one in seen:
        if one.valid and one.verdict is not None:
            found.setdefault(one.rate, []).append(one.verdict)
    said: dict[float, Verdict] = {}
    for rate, verdicts in sorted(found.items()):
        passed, failed = verdicts.count("PASS"), verdicts.count("FAIL")
        said[rate] = "UNRESOLVED" if passed == failed else "PASS" if passed > failed else "FAIL"
    return said


def cliffs(seen: Sequence[Seen]) -> list[tuple[float, float]]:
    """Rates that failed below a rate that passed, each with the highest such rate."""
    verdicts = _verdicts(seen)
    passed = [rate for rate, verdict in verdicts.items() if verdict == "PASS"]
    return [
        (rate, max(passed)) for rate, verdict in verdicts.items() if verdict == "FAIL" and passed and max(passed) > rate
    ]


# -- where the SLO is crossed -----------------------------------------------------------------------------------------


def crossing(seen: Sequence[Seen]) -> float | None:
    """The offered rate at which the fitted share within the SLO's bounds falls below what is needed; None if it does
    not in what was seen. The fit is isotonic: more load is never better; weights are independent samples.
    """
    usable = _usable(seen)
    if len(usable) < 2:
        return None
    rates = np.log([one.offered for one in usable])
    found = [_cross(rates, *arrays) for arrays in _by_bound(usable)]
    low, high = float(rates[0]), float(rates[-1])
    lowest = min(found)
    return math.exp(lowest) if low < lowest < high else None


def estimate(seen: Sequence[Seen]) -> tuple[float, float, float] | None:
    """`crossing`, and the interval that holds it with 95 % confidence, by redrawing each probe's share."""
    centre = crossing(seen)
    if centre is None:
        return None
    usable = _usable(seen)
    rates = np.log([one.offered for one in usable])
    # The same for the same probes.
    generator = np.random.default_rng(len(usable))
    drawn = []
    for _ in range(_REPLICATES):
        found = []
        for needed, within, samples in _by_bound(usable):
            hits = within * samples
            redrawn = generator.beta(hits + 0.5, samples - hits + 0.5)
            found.append(_cross(rates, needed, redrawn, samples))
        drawn.append(min(max(min(found), rates[0]), rates[-1]))
    ends = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return centre, min(math.exp(ends[0]), centre), max(math.exp(ends[1]), centre)


def _usable(seen: Sequence[Seen]) -> list[Seen]:
    return sorted((one for one in seen if one.valid and one.shares and one.offered > 0), key=lambda one: one.offered)


def _by_bound(usable: Sequence[Seen]) -> list[tuple[float, NDArray[np.float64], NDArray[np.float64]]]:
    """For each bound: the share needed, and each probe's share and independent samples, both of shape (probes,)."""
    return [
        (
            usable[0].shares[number].needed,
            np.array([one.shares[number].within for one in usable]),
            np.array([max(one.shares[number].samples, 1.0) for one in usable]),
        )
        for number in range(len(usable[0].shares))
    ]


def _cross(
    rates: NDArray[np.float64], needed: float, within: NDArray[np.float64], samples: NDArray[np.float64]
) -> float:
    """The log rate at which the fit crosses; infinite at the side on which it never does. `rates` ascend; (probes,)."""
    fit = isotonic_regression(within, weights=samples, increasing=False)
    starts = fit.blocks[:-1]
    weight = np.add.reduceat(samples, starts)
    middles = np.add.reduceat(samples * rates, starts) / weight
    # Half a sample to each side keeps the log odds finite.
    values = (np.add.reduceat(within * samples, starts) + 0.5) / (weight + 1)
    odds = np.log(values / (1 - values))
    wanted = math.log(needed / (1 - needed)) if needed < 1 else math.inf
    under = np.flatnonzero(odds < wanted)
    if not under.size:
        return math.inf
    first = int(under[0])
    if first == 0:
        return -math.inf
    if math.isinf(wanted):
        return float(middles[first - 1])
    part = (odds[first - 1] - wanted) / (odds[first - 1] - odds[first])
    return float(middles[first - 1] + part * (middles[first] - middles[first - 1]))


def conclude(seen: Sequence[Seen]) -> SloRate:
    """What the probes say of the SLO. A bound is claimed at the planned or the offered rate, whichever claims less."""
    passing, failing = bounds(seen)
    fresh = [one.rate for one in seen if _confirms(one) and (failing is None or one.rate < failing)]
    chosen = max(fresh) if fresh else passing
    found = estimate(seen)
    low = [min(one.rate, one.offered) for one in seen if one.valid and one.rate == chosen and one.verdict == "PASS"]
    high = [max(one.rate, one.offered) for one in seen if one.valid and one.rate == failing and one.verdict == "FAIL"]
    return SloRate(
        passing_rps=round(max(low), 3) if low else None,
        failing_rps=round(min(high), 3) if high else None,
        estimate_rps=round(found[0], 3) if found else None,
        interval=(round(found[1], 3), round(found[2], 3)) if found else None,
        confirmed=bool(fresh),
    )


def row_of(seen: Sequence[Seen]) -> int | None:
    """Which probe a run's row shows: the last confirming one, else the last that passed at the passing rate; where none
    passed, the lowest rate; in steps, the highest that did not saturate. None where no probe was valid."""
    numbered = [(number, one) for number, one in enumerate(seen) if one.valid]
    if not numbered:
        return None
    passing, failing = bounds(seen)
    fresh = [
        (one.rate, number) for number, one in numbered if _confirms(one) and (failing is None or one.rate < failing)
    ]
    if fresh:
        return max(fresh)[1]
    if passing is not None:
        return max(number for number, one in numbered if one.rate == passing and one.verdict == "PASS")
    calm = [(one.rate, number) for number, one in numbered if not one.saturated]
    if calm and not any(one.verdict for _number, one in numbered):
        return max(calm)[1]
    return min((one.rate, number) for number, one in numbered)[1]


def _confirms(one: Seen) -> bool:
    return one.valid and one.phase == "confirm" and one.verdict == "PASS"


def throughput(completed: Sequence[NDArray[np.int64]], seconds_each: float) -> tuple[float, tuple[float, float] | None]:
    """Answers a second, from how many each generator had in stretches of `seconds_each`, arrays of shape (stretches,).

    The 95 % interval is Student's over the means of ten batches, which depend on one another far less than answers do;
    None where there are too few stretches for that.
    """
    kept = [counts for counts in completed if counts.size]
    if not kept:
        return 0.0, None
    rate = sum(float(counts.mean()) for counts in kept) / seconds_each
    shortest = min(counts.size for counts in kept) // _BATCHES * _BATCHES
    if shortest < 2 * _BATCHES:
        return rate, None
    means = np.sum([counts[:shortest] for counts in kept], axis=0).reshape(_BATCHES, -1).mean(axis=1) / seconds_each
    half = float(stdtrit(_BATCHES - 1, (1 + CONFIDENCE) / 2) * means.std(ddof=1) / math.sqrt(_BATCHES))
    return rate, (round(max(rate - half, 0.0), 3), round(rate + half, 3))


# -- what to try next -------------------------------------------------------------------------------------------------


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
        if any(_confirms(one) and one.rate <= (bounds(seen)[0] or 0) for one in seen):
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
        verdicts = _verdicts(seen)
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
        spare = left_s - _TIME["confirm"] * self.total_s
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
        rate = min([passing, *(0.95 * one.rate for one in tried if one.valid)])
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
