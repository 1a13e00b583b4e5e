"""What fleets are planned from: the offers, the pools that simulate them, the search over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from capacity.planning.fleet_search import Counts, Search, Verdict
from capacity.planning.offers import Offer, Offers
from capacity.planning.plan_file import Percentiles, PlanRow, Prediction
from capacity.planning.pools import Pools, Service


def no_words(_text: str) -> None:
    """For a caller that shows no progress."""


@dataclass(frozen=True)
class Task:
    """What is asked of every fleet: how it serves, how many of its instances may be gone, and how much room it has.

    `headroom` is a share: 0.3 asks for 130 % of each rate. `max_price` is an hour's.
    """

    service: Service
    survive: int = 0
    headroom: float = 0.0
    max_price: float | None = None
    say: Callable[[str], None] = no_words


class Ground:
    """Offers and what was simulated of them, which all that is planned and said of them shares."""

    def __init__(self, offers: Offers, task: Task) -> None:
        self.offers, self.task = offers, task
        self.all = list(offers.kept)
        self.pools = Pools(self.all, task.service)
        self.search = self.searcher(self.all, self.pools, task.say)

    def searcher(self, offers: Sequence[Offer], pools: Pools, say: Callable[[str], None] = no_words) -> Search:
        """A search among other offers, as of slower ones, for the same task."""
        return Search([offer.stock for offer in offers], pools, self.task.survive, say)

    @property
    def able(self) -> list[int]:
        """The offers of which one instance meets the SLO at some rate."""
        return [number for number in range(len(self.all)) if self.pools.highest(number, 1) > 0]

    def counts_of(self, rows: Sequence[PlanRow]) -> Counts:
        """Rows of a plan as counts of the offers."""
        have = {(row.hardware, row.market): row.instances for row in rows}
        return tuple(have.get((offer.instance.name, offer.market), 0) for offer in self.all)

    def rows_of(self, counts: Counts) -> list[PlanRow]:
        """Counts of the offers as rows of a plan."""
        return [
            PlanRow(
                hardware=offer.instance.name,
                host=offer.instance.host,
                accelerator=offer.instance.accelerator,
                kind=offer.kind,
                market=offer.market,
                instances=count,
                ordinals=offer.ordinals,
                price_each=offer.price,
                simulated=offer.simulated,
            )
            for offer, count in zip(self.all, counts, strict=True)
            if count
        ]


def prediction_of(rate: float, verdict: Verdict) -> Prediction:
    """What was simulated of a fleet, as a plan has it."""
    return Prediction(
        rps=rate, latency_us=percentiles_of(verdict), busy=round(verdict.busy, 4), requests=verdict.requests
    )


def percentiles_of(verdict: Verdict) -> Percentiles:
    """A verdict's latencies in µs by the plan's names."""
    return Percentiles(**{f"p{percentile:g}": value for percentile, value in verdict.percentiles})
