"""What all probes of a search say together: bounds, where the SLO is crossed, what is claimed, which probe is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.special import stdtrit

from capacity.rundir.document import SloRate
from capacity.statistics.histogram import Histogram
from capacity.statistics.intervals import CONFIDENCE, SAMPLES_A_DEGREE
from capacity.statistics.slo import Slo

_REPLICATES = 400
#: Where fewer samples than these may be beyond a bound, the share that was seen says little.
_FEW_BEYOND = 3
_BATCHES = 10
#: Probes within this factor of the crossing (a logarithm) are fitted by a line, unless it is flatter than this.
_NEAR, _FLAT = math.log(1.25), -1.0

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
    verdicts = verdicts_of(seen)
    failing = min((rate for rate, verdict in verdicts.items() if verdict == "FAIL"), default=None)
    passing = max(
        (rate for rate, verdict in verdicts.items() if verdict == "PASS" and (failing is None or rate < failing)),
        default=None,
    )
    return passing, failing


def verdicts_of(seen: Sequence[Seen]) -> dict[float, Verdict]:
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
    verdicts = verdicts_of(seen)
    passed = [rate for rate, verdict in verdicts.items() if verdict == "PASS"]
    return [
        (rate, max(passed)) for rate, verdict in verdicts.items() if verdict == "FAIL" and passed and max(passed) > rate
    ]


def crossing(seen: Sequence[Seen]) -> float | None:
    """The offered rate at which the fitted share within the SLO's bounds falls below what is needed; None if it does
    not in what was seen. The fit is isotonic: more load is never better; weights are independent samples.
    """
    usable = _usable(seen)
    if len(usable) < 2:
        return None
    rates = np.log([one.offered for one in usable])
    found = [_along(rates, *arrays, _cross(rates, *arrays)) for arrays in _by_bound(usable)]
    low, high = float(rates[0]), float(rates[-1])
    lowest = min(found)
    return math.exp(lowest) if low < lowest < high else None


def estimate(seen: Sequence[Seen]) -> tuple[float, float, float] | None:
    """`crossing`, and the interval that holds it with 95 % confidence, by redrawing each probe's share.

    It spans what both fits give, the isotonic one and the line: the line is narrower, and wrong where the odds bend.
    """
    centre = crossing(seen)
    if centre is None:
        return None
    usable = _usable(seen)
    rates = np.log([one.offered for one in usable])
    # The same for the same probes.
    generator = np.random.default_rng(len(usable))
    drawn = []
    for _ in range(_REPLICATES):
        steps, lines = [], []
        for needed, within, samples in _by_bound(usable):
            # How many independent samples they are worth is itself known as a variance of a tenth of them is.
            degrees = np.maximum(samples / SAMPLES_A_DEGREE, 1.0)
            worth = samples * generator.chisquare(degrees) / degrees
            hits = within * worth
            redrawn = generator.beta(hits + 0.5, worth - hits + 0.5)
            steps.append(_cross(rates, needed, redrawn, samples))
            lines.append(_along(rates, needed, redrawn, samples, steps[-1]))
        drawn.append((min(steps), min(lines)))
    held = np.clip(drawn, rates[0], rates[-1])
    low, high = np.quantile(held, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return centre, min(math.exp(low.min()), centre), max(math.exp(high.max()), centre)


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


def _along(
    rates: NDArray[np.float64], needed: float, within: NDArray[np.float64], samples: NDArray[np.float64], about: float
) -> float:
    """The crossing `about` that the isotonic fit found, by a line through the log odds of all probes near it: each of
    them has its say. `about` itself where they are too few, or the line does not fall; shapes (probes,)."""
    near = np.abs(rates - about) < _NEAR
    if near.sum() < 3 or needed >= 1:
        return about
    wanted = math.log(needed / (1 - needed))
    x, n = rates[near] - about, samples[near]
    share = (within[near] * n + 0.5) / (n + 1)
    odds, weight = np.log(share / (1 - share)), n * share * (1 - share)
    total = weight.sum()
    x_mean, odds_mean = float(weight @ x / total), float(weight @ odds / total)
    spread = float(weight @ (x - x_mean) ** 2)
    slope = float(weight @ ((x - x_mean) * (odds - odds_mean))) / spread if spread > 0 else 0.0
    if slope >= _FLAT:
        return about
    return about + min(max(x_mean + (wanted - odds_mean) / slope, -_NEAR), _NEAR)


def conclude(seen: Sequence[Seen]) -> SloRate:
    """What the probes say of the SLO. A bound is claimed at the planned or the offered rate, whichever claims less."""
    passing, failing = bounds(seen)
    fresh = [one.rate for one in seen if confirms(one) and (failing is None or one.rate < failing)]
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
        (one.rate, number) for number, one in numbered if confirms(one) and (failing is None or one.rate < failing)
    ]
    if fresh:
        return max(fresh)[1]
    if passing is not None:
        return max(number for number, one in numbered if one.rate == passing and one.verdict == "PASS")
    calm = [(one.rate, number) for number, one in numbered if not one.saturated]
    if calm and not any(one.verdict for _number, one in numbered):
        return max(calm)[1]
    return min((one.rate, number) for number, one in numbered)[1]


def confirms(one: Seen) -> bool:
    """A fresh probe of a rate that had passed, and it passed again."""
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
