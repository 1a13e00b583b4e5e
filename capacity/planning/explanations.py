"""Why a fleet is the one: what binds, what would break it, the runner-ups, and a reason for every loser."""

from __future__ import annotations

import math
from dataclasses import replace

from capacity.planning.fleet_search import Counts, Found, Search, Verdict
from capacity.planning.integer_program import least_cost
from capacity.planning.offers import slower
from capacity.planning.plan_file import Alternative, Lost, Prediction, Sensitivity
from capacity.planning.pools import Pools
from capacity.planning.problem import Ground, percentiles_of, prediction_of
from capacity.pricing import format_hourly

WORSE = 1.2
_RUNNER_UPS = 4
# With other service times only so many of the cheapest kinds are planned with anew.
_ANEW = 3


class Reasons:
    """What is to be said of fleets that were found among the same offers, or not found."""

    def __init__(self, ground: Ground) -> None:
        self._ground, self._task, self._all = ground, ground.task, ground.all

    def words(self, counts: Counts) -> str:
        """A fleet in words."""
        return " and ".join(row.words for row in self._ground.rows_of(counts))

    def after_losses(self, counts: Counts, rate: float) -> Prediction | None:
        """The worst that losing instances leaves."""
        if not self._task.survive:
            return None
        verdicts = [self._ground.search.verdict(left, rate) for left in self._ground.search.after_losses(counts)]
        worst = max(verdicts, key=lambda verdict: verdict.percentiles[1][1] or math.inf, default=None)
        return prediction_of(rate, worst) if worst else None

    def interval(self, found: Found, rate: float) -> tuple[float, float] | None:
        """What the fleet costs where service times are at either end of what was measured."""
        used = [offer for offer, count in zip(self._all, found.counts, strict=True) if count]
        low, high = min(offer.uncertainty[0] for offer in used), max(offer.uncertainty[1] for offer in used)
        ends = []
        for factor in (low, high):
            cost = found.cost if factor == 1.0 else self._cost_if(found, rate, factor, 0)
            if cost is None:
                return None
            ends.append(cost)
        return min(*ends, found.cost), max(*ends, found.cost)

    def _cost_if(self, found: Found, rate: float, factor: float, others: int) -> float | None:
        """What a fleet of the chosen combinations and some others costs with other service times; None for no fleet."""
        chosen = {number for number, count in enumerate(found.counts) if count}
        able = [number for number, count in found.alone.items() if count is not None and number not in chosen]
        able.sort(key=lambda number: (found.alone[number] or 0) * self._all[number].price)
        looked = sorted([*chosen, *able[:others]])
        offers = slower([self._all[number] for number in looked], factor)
        other = self._ground.searcher(offers, Pools(offers, self._task.service)).plan(rate)
        return other.cost if other else None

    def sensitivity(self, found: Found, rate: float) -> Sensitivity:
        """What service times that are worse by a fifth do to the fleet, and what then would do."""
        worse = slower(self._all, WORSE)
        pools = Pools(worse, self._task.service)
        verdict = pools.verdict(found.counts, rate)
        if not verdict.percentiles:
            # Overloaded: there is no latency to predict.
            verdict = Verdict(False)
        holds = self._ground.searcher(worse, pools).stands(found.counts, rate)
        return Sensitivity(
            factor=WORSE,
            holds=holds,
            latency_us=percentiles_of(verdict),
            cost_per_hour=found.cost if holds else self._cost_if(found, rate, WORSE, _ANEW),
        )

    def runner_ups(self, found: Found) -> list[Alternative]:
        """The cheapest fleets of each other kind alone, and the best of one kind where the plan mixes."""
        chosen = {number for number, count in enumerate(found.counts) if count}
        others = []
        for number, count in found.alone.items():
            if count is None or chosen == {number}:
                continue
            cost = count * self._all[number].price
            rows = self._ground.rows_of(tuple(count if at == number else 0 for at in range(len(self._all))))
            others.append(Alternative(rows=rows, cost_per_hour=cost, more=cost / found.cost - 1 if found.cost else 0.0))
        return sorted(others, key=lambda other: other.cost_per_hour)[:_RUNNER_UPS]

    def losers(self, found: Found | None) -> list[Lost]:
        """Every combination that is not in the fleet, with its reason."""
        lost = [
            Lost(hardware=loser.label, step=step.name, reason=loser.reason)
            for step in self._ground.offers.steps
            for loser in step.excluded
        ]
        for number, offer in enumerate(self._all):
            if self._ground.pools.highest(number, 1) <= 0:
                lost.append(Lost(hardware=offer.name, step="latency", reason=self._too_slow(number)))
        if found is None:
            return lost
        chosen = {number for number, count in enumerate(found.counts) if count}
        for number, count in found.alone.items():
            offer = self._all[number]
            if number in chosen or self._ground.pools.highest(number, 1) <= 0:
                continue
            if count is None:
                reason = f"{offer.limit} are not enough alone, and beside others they make no fleet cheaper"
                lost.append(Lost(hardware=offer.name, step="limit", reason=reason))
            else:
                cost = count * offer.price
                more = f"{100 * (cost / found.cost - 1):.0f} % more" if cost > found.cost * 1.005 else "the same"
                reason = f"{count} of it would cost {format_hourly(cost, offer.currency)} an hour: {more}"
                lost.append(Lost(hardware=offer.name, step="price", reason=reason))
        for number, least in found.beaten.items():
            offer = self._all[number]
            if self._ground.pools.highest(number, 1) > 0:
                reason = f"with it, never idle, at least {format_hourly(least, offer.currency)} an hour"
                lost.append(Lost(hardware=offer.name, step="price", reason=reason))
        return lost

    def _too_slow(self, number: int) -> str:
        slo = self._task.service.slo
        for (percentile, bound), over in zip(slo.bounds, self._ground.pools.over(number), strict=True):
            if over > 1 - percentile / 100:
                return (
                    f"{100 * over:.3g} % of its requests take over {bound / 1e6:g} ms without any waiting; "
                    f"P{percentile:g} allows {100 - percentile:.3g} %"
                )
        return "one instance meets the SLO at no rate"

    def why_not(self, rate: float) -> str:
        """Why there is no fleet for a rate."""
        if not self._all:
            return "no combination has enough memory and a price"
        if not self._ground.able:
            return f"no combination meets {self._task.service.slo} even without waiting"
        return f"the limits leave too few instances for {rate:g} requests/s"

    def binds(self, found: Found, rate: float) -> list[str]:
        """Which constraints make the fleet as dear as it is."""
        currency = self._all[0].currency
        said = []
        options = [self._ground.search.ceiling_option(number) for number in range(len(self._all))]
        bare = least_cost(options, rate, (), self._task.survive)
        if bare < found.cost * 0.99:
            said.append(
                f"latency: by throughput alone {format_hourly(bare, currency)} an hour would do; the SLO takes "
                f"{100 * (found.cost / bare - 1):.0f} % more"
                if bare > 0
                else "latency: by throughput alone a free fleet would do"
            )
        if self._task.survive:
            calm = Search([offer.stock for offer in self._all], self._ground.pools).plan(rate)
            if calm and calm.cost < found.cost - 1e-9:
                said.append(
                    f"survival: without --survive {self._task.survive} it would cost "
                    f"{format_hourly(calm.cost, currency)}"
                )
        if any(offer.limit is not None for offer in self._all):
            free = [replace(offer, limit=None) for offer in self._all]
            unlimited = self._ground.searcher(free, self._ground.pools).plan(rate)
            if unlimited and unlimited.cost < found.cost - 1e-9:
                names = [
                    offer.name
                    for offer, count, before in zip(self._all, unlimited.counts, found.counts, strict=True)
                    if offer.limit is not None and count > before
                ]
                said.append(
                    f"limit: without that on {' and '.join(names)} it would cost "
                    f"{format_hourly(unlimited.cost, currency)}"
                )
        said += [
            f"memory: {loser.label} is left out ({loser.reason})"
            for step in self._ground.offers.steps
            if step.name == "memory"
            for loser in step.excluded
        ]
        kinds = sorted(number for number, count in enumerate(found.counts) if count)
        dearer = [
            (count * self._all[number].price, number)
            for number, count in found.alone.items()
            if count is not None and [number] != kinds
        ]
        if dearer:
            cost, number = min(dearer)
            said.append(
                f"price: the next, {self._all[number].name} alone, costs {format_hourly(cost, currency)} an hour"
            )
        return said
