"""How many of what: the cheapest fleet whose pool, simulated whole with its router, carries a rate within the SLO.

Integer programs propose, the simulation of the whole fleet decides. Capacity is not additive, so what a program adds
up is only where the search begins: what it asks for is tightened until a fleet holds, and loosened until none cheaper
does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations_with_replacement
from typing import Protocol

from capacity.planning.integer_program import Option, cheaper_fleets, cheapest, least_cost

Counts = tuple[int, ...]

# Programs solved with a requirement moved up or down, before what is found must do.
_MOVES = 7
# A requirement is not moved by less than this share.
_CLOSE = 0.004
# So many cheaper fleets are looked at one by one, of so many that could be listed.
_LOOKS = 60
_LISTED = 4000
# By how much a mixture of n may carry more of its ceiling than known pools do, times n: they hold one instance too many
# at most, and are of about its size.
_UNSURE = 1.5
# From so many instances on whole numbers do not decide which kind is the cheapest; from so many on counts are exact to
# half a percent.
_MANY = 30
_EXACT = 200


@dataclass(frozen=True)
class Verdict:
    """What a simulated pool did at a rate: percentiles of latency in µs by percent, None beyond all answered.

    `holds` is whether it surely stays within the SLO; `busy` the share of their time that its ordinals compute.
    """

    holds: bool
    percentiles: tuple[tuple[float, float | None], ...] = ()
    busy: float = 0.0
    requests: int = 0


class Oracle(Protocol):
    """What the search asks about pools of instances of several options; counts and rates are of whole instances."""

    def verdict(self, counts: Counts, rate: float) -> Verdict:
        """Of the whole pool at a rate in requests a second."""

    def highest(self, option: int, count: int) -> float:
        """The highest rate that a pool of so many instances of one option surely carries; 0 where there is none."""

    def ceiling(self, option: int) -> float:
        """The rate of one instance that is never idle."""

    def over(self, option: int) -> tuple[float, ...]:
        """The share of requests beyond each bound of the SLO with no waiting at all."""

    @property
    def allowed(self) -> tuple[float, ...]:
        """The share of requests that may be beyond each bound."""

    @property
    def pooled(self) -> bool:
        """Whether the router looks at what is outstanding, so that an instance more never hurts."""


@dataclass(frozen=True)
class Stock:
    """An option as the search buys it: its name, price an hour, and how many there are."""

    name: str
    price: float
    limit: int | None = None


@dataclass(frozen=True)
class Found:
    """The fleet for one rate. No fleet costs less than `least` (by capacity alone); `gap` is the solver's own.

    `alone` has for each option that was looked at the smallest pool of it alone that holds (None: its limit forbids
    it); `beaten` the least that a fleet with it would cost, for those that were not.
    """

    rate: float
    counts: Counts
    cost: float
    verdict: Verdict
    least: float
    gap: float
    simulated: int
    alone: dict[int, int | None] = field(default_factory=dict)
    beaten: dict[int, float] = field(default_factory=dict)


class Search:
    """Fleets for one or more rates from the same stock; what was simulated for one rate serves the next.

    `survive` instances, whichever they are, may be gone and the fleet still holds.
    """

    def __init__(
        self,
        stock: Sequence[Stock],
        oracle: Oracle,
        survive: int = 0,
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._stock = list(stock)
        self._oracle = oracle
        self._survive = survive
        self._say = say
        self._verdicts: dict[tuple[Counts, float], Verdict] = {}
        self._simulated = 0
        # How much of its ceiling a pool turned out to carry, by option and size: where to look first the next time.
        self._shares: dict[int, list[tuple[int, float]]] = {}

    def verdict(self, counts: Counts, rate: float) -> Verdict:
        """Of the whole fleet, none lost."""
        key = counts, rate
        if key not in self._verdicts:
            self._simulated += 1
            self._verdicts[key] = self._oracle.verdict(counts, rate)
        return self._verdicts[key]

    def stands(self, counts: Counts, rate: float) -> bool:
        """Whether the fleet holds, and whichever instances it may lose."""
        lost = list(self.after_losses(counts))
        # With instances gone it is the harder question, and answers the easier one for routers that pool.
        return all(any(left) and self.verdict(left, rate).holds for left in lost) and self.verdict(counts, rate).holds

    def after_losses(self, counts: Counts) -> Iterable[Counts]:
        """What is left of a fleet, for every choice of instances that it may lose."""
        present = [number for number, count in enumerate(counts) if count]
        if not self._survive:
            return
        for gone in combinations_with_replacement(present, self._survive):
            left = list(counts)
            for number in gone:
                left[number] -= 1
            if min(left) >= 0:
                yield tuple(left)

    def plan(self, rate: float) -> Found | None:
        """The cheapest fleet found for a rate above 0; None where no fleet of these options holds it."""
        before = self._simulated
        alone, beaten, best = self._pools_alone(rate)
        known = [number for number in alone if self._oracle.highest(number, 1) > 0]
        if not known:
            return None
        # The program for one kind alone proves nothing that its smallest pool does not.
        gap = 0.0
        if best is None or (len(known) > 1 and self._may_mix(known, rate, best)):
            self._say(f"mixing {len(known)} kinds of instance for {rate:g} requests/s")
            options = [self._option(number, alone[number], rate) for number in known]
            best, gap = self._mixed(known, options, rate, best)
            if best is None:
                return None
            best = self._one_by_one(known, options, rate, best)
        every = [self.ceiling_option(number) for number in range(len(self._stock))]
        least = least_cost(every, rate, self._oracle.allowed, self._survive)
        cost, counts = best
        return Found(
            rate,
            counts,
            cost,
            self.verdict(counts, rate),
            min(least, cost),
            gap,
            self._simulated - before,
            alone,
            beaten,
        )

    def needed(self, number: int, rate: float) -> int | None:
        """The smallest pool of one option that stands at this rate; None where its limit, or the SLO, forbids it."""
        ceiling, limit = self._oracle.ceiling(number), self._stock[number].limit
        least = max(math.ceil(rate / ceiling - 1e-9), 1) + self._survive
        if (limit is not None and limit < least) or self._oracle.highest(number, 1) <= 0:
            return None
        guess = max(math.ceil(rate / (ceiling * self._share(number, least)) - 1e-9), least - self._survive)
        low, high = least - 1, guess + self._survive
        close = max(guess // _EXACT, 1)
        while not self.stands(self._only(number, high), rate):
            if limit is not None and high >= limit:
                return None
            low, high = high, high + max(high // 32, 1)
            if limit is not None:
                high = min(high, limit)
        # Downwards in growing steps from what stands: the guess is seldom far off.
        step = close
        while low < high - close:
            middle = max(high - step, low + 1) if step < high - low else (low + high) // 2
            if self.stands(self._only(number, middle), rate):
                high, step = middle, 2 * step
            else:
                low, step = middle, max((high - middle) // 2, 1)
        if limit is not None and high > limit:
            return None
        self._shares.setdefault(number, []).append((high, rate / (ceiling * max(high - self._survive, 1))))
        return high

    def _share(self, number: int, size: int) -> float:
        """About how much of its ceiling a pool of this size carries, from pools of this or other options."""
        known = self._shares.get(number) or [pair for pairs in self._shares.values() for pair in pairs]
        if not known:
            return min(max(self._oracle.highest(number, 1) / self._oracle.ceiling(number), 0.05), 1.0)
        return min(known, key=lambda pair: abs(math.log(pair[0] / size)))[1]

    def _only(self, number: int, count: int) -> Counts:
        return tuple(count if at == number else 0 for at in range(len(self._stock)))

    def _pools_alone(self, rate: float) -> tuple[dict[int, int | None], dict[int, float], tuple[float, Counts] | None]:
        """Pools of one option each, the promising ones first; none for options that no cheaper fleet can have."""
        alone: dict[int, int | None] = {}
        beaten: dict[int, float] = {}
        best: tuple[float, Counts] | None = None
        every = [self.ceiling_option(number) for number in range(len(self._stock))]
        able = [number for number in range(len(self._stock)) if self._oracle.ceiling(number) > 0]
        able.sort(key=lambda number: self._stock[number].price / self._oracle.ceiling(number))
        for place, number in enumerate(able):
            stock = self._stock[number]
            if best is not None and place >= 2:
                beaten[number] = self._at_least(number, rate, every, many=sum(best[1]) >= _MANY)
                if beaten[number] >= best[0]:
                    continue
                del beaten[number]
            self._say(f"{stock.name}: how many for {rate:g} requests/s")
            count = alone[number] = self.needed(number, rate)
            if count is not None:
                cost = stock.price * count
                if best is None or cost < best[0]:
                    best = cost, self._only(number, count)
        return alone, beaten, best

    def _at_least(self, number: int, rate: float, every: Sequence[Option], many: bool) -> float:
        """What a fleet with this option costs at least; where `many` are needed, what one of it alone does."""
        if many:
            return self._stock[number].price * rate / self._oracle.ceiling(number)
        return least_cost(every, rate, self._oracle.allowed, self._survive, with_option=number)

    def ceiling_option(self, number: int) -> Option:
        """An option by its capacity alone."""
        stock = self._stock[number]
        return Option(stock.price, (), self._oracle.ceiling(number), self._oracle.over(number), stock.limit)

    def _curve(self, number: int, alone: int | None, rate: float) -> tuple[tuple[int, float], ...]:
        """Pool sizes and what they carry: a few by simulation, and the pool that was found to hold the whole rate."""
        points = {1: self._oracle.highest(number, 1)}
        most = alone if alone is not None else self._stock[number].limit or 1
        size = 4
        while size < most and size <= 64 and self._oracle.pooled:
            points[size] = self._oracle.highest(number, size)
            size *= 4
        if alone is not None and alone > self._survive:
            points[alone - self._survive] = max(points.get(alone - self._survive, 0.0), rate)
        return tuple(never_less(points))

    def _option(self, number: int, alone: int | None, rate: float) -> Option:
        stock = self._stock[number]
        curve = self._curve(number, alone, rate)
        return Option(stock.price, curve, self._oracle.ceiling(number), self._oracle.over(number), stock.limit)

    def _may_mix(self, known: Sequence[int], rate: float, best: tuple[float, Counts]) -> bool:
        """Whether some mixture could be cheaper, carrying somewhat more of its ceiling than pools of its size do."""
        size = sum(best[1])
        likely = [
            replace(option, ceiling=option.ceiling * min(self._share(number, size) * (1 + _unsure(size)), 1.0))
            for number, option in ((number, self.ceiling_option(number)) for number in known)
        ]
        return least_cost(likely, rate, self._oracle.allowed, self._survive) < best[0] * (1 - 1e-6)

    def _spread(self, known: Sequence[int], counts: Counts) -> Counts:
        """Counts of some options as counts of all."""
        of = dict(zip(known, counts, strict=True))
        return tuple(of.get(number, 0) for number in range(len(self._stock)))

    def _mixed(
        self, known: Sequence[int], options: Sequence[Option], rate: float, best: tuple[float, Counts] | None
    ) -> tuple[tuple[float, Counts] | None, float]:
        """The cheapest fleet that stands, of those that programs propose for a requirement moved up and down."""
        gap, asked = 0.0, 1.0
        fails, holds = 0.0, math.inf
        for _move in range(_MOVES):
            solution = cheapest(options, rate * asked, self._survive)
            if solution is None:
                # The limits are reached: less may still be enough.
                holds = min(holds, asked)
            else:
                gap = max(gap, solution.gap)
                counts = self._spread(known, solution.counts)
                if best is not None and solution.cost >= best[0]:
                    holds = min(holds, asked)
                elif self.stands(counts, rate):
                    best, holds = (solution.cost, counts), min(holds, asked)
                else:
                    fails = max(fails, asked)
            if math.isinf(holds):
                asked = fails * 1.08
            elif fails == 0.0:
                asked = holds * 0.9
            elif holds - fails < _CLOSE:
                break
            else:
                asked = (holds + fails) / 2
        return best, gap

    def _one_by_one(
        self, known: Sequence[int], options: Sequence[Option], rate: float, best: tuple[float, Counts]
    ) -> tuple[float, Counts]:
        """Cheaper fleets that are not overloaded, cheapest first, where they are few enough to be looked at."""
        listed = cheaper_fleets(options, rate, best[0], _LISTED)
        failed: list[Counts] = []
        looks = 0
        for cost, some in listed or ():
            counts = self._spread(known, some)
            size = sum(some)
            if self._oracle.pooled:
                # More of everything would hold if this did.
                if any(all(a <= b for a, b in zip(counts, other, strict=True)) for other in failed):
                    continue
                about = sum(
                    count * option.ceiling * self._share(number, size)
                    for number, count, option in zip(known, some, options, strict=True)
                )
                if about * (1 + _unsure(size)) < rate:
                    continue
            looks += 1
            if looks > _LOOKS:
                break
            if self.stands(counts, rate):
                return cost, counts
            failed.append(counts)
        return best


def never_less(points: Mapping[int, float]) -> list[tuple[int, float]]:
    """Pool sizes and what they carry, ascending: never less for each than a smaller pool, as which it can be run."""
    kept: list[tuple[int, float]] = []
    for k, carried in sorted(points.items()):
        each = max(carried / k, kept[-1][1] / kept[-1][0] if kept else 0.0)
        kept.append((k, each * k))
    return kept


def _unsure(size: int) -> float:
    return _UNSURE / max(size, 1)
