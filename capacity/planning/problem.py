"""The planning problem: the offers, what a fleet must fulfil, and the pools and the search that all answers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from capacity.planning.offers import Offer, OfferSelection
from capacity.planning.optimizer import Counts, FleetSearch, PoolPrediction
from capacity.planning.plan_file import Percentiles, PlanRow, Prediction
from capacity.planning.simulated_pools import ServiceConditions, SimulatedPools


def ignore_progress(_text: str) -> None:
    """Takes a line about progress and shows nothing."""


@dataclass(frozen=True)
class FleetRequirements:
    """What every fleet must fulfil.

    It meets the SLO of `service` with any `survive` of its instances gone, at each rate times 1 + `headroom`, for at
    most `max_price` an hour. `progress` is called with a line about each step.
    """

    service: ServiceConditions
    survive: int = 0
    headroom: float = 0.0
    max_price: float | None = None
    progress: Callable[[str], None] = ignore_progress


class PlanningProblem:
    """The offers and the requirements, with the simulated pools that all plans and explanations share."""

    def __init__(self, selection: OfferSelection, requirements: FleetRequirements) -> None:
        self.selection, self.requirements = selection, requirements
        self.offers = list(selection.offers)
        self.pools = SimulatedPools(self.offers, requirements.service)
        self.search = self.search_among(self.offers, self.pools, requirements.progress)

    def search_among(
        self, offers: Sequence[Offer], pools: SimulatedPools, progress: Callable[[str], None] = ignore_progress
    ) -> FleetSearch:
        """Returns a search among other offers with the same requirements."""
        return FleetSearch([offer.supply for offer in offers], pools, self.requirements.survive, progress)

    @property
    def usable(self) -> list[int]:
        """The numbers of the offers of which one instance meets the SLO at some rate."""
        return [number for number in range(len(self.offers)) if self.pools.highest_rate(number, 1) > 0]

    def counts(self, rows: Sequence[PlanRow]) -> Counts:
        """Returns the counts of the offers for rows of a plan."""
        instances = {(row.hardware, row.market): row.instances for row in rows}
        return tuple(instances.get((offer.instance.name, offer.market), 0) for offer in self.offers)

    def rows(self, counts: Counts) -> list[PlanRow]:
        """Returns the rows of a plan for counts of the offers."""
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
            for offer, count in zip(self.offers, counts, strict=True)
            if count
        ]


def plan_prediction(rate: float, prediction: PoolPrediction) -> Prediction:
    """Returns a pool's prediction at a rate as a plan has it."""
    return Prediction(
        rps=rate,
        latency_us=plan_percentiles(prediction),
        busy_share=round(prediction.busy_share, 4),
        requests=prediction.requests,
    )


def plan_percentiles(prediction: PoolPrediction) -> Percentiles:
    """Returns a pool's predicted latencies in µs as a plan has them."""
    return Percentiles(**{f"p{percentile:g}": value for percentile, value in prediction.percentiles})
