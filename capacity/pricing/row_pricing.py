"""The price of a combination an hour, and what it makes of a row: the prices of 100,000 inferences."""

from __future__ import annotations

from dataclasses import dataclass

from capacity.pricing.cost import rate_per_100k, rates_per_100k, sequential_per_100k
from capacity.rundir import CostPer100k, Row, without_price


@dataclass(frozen=True)
class Price:
    """The price an hour of a whole combination; `note` has its parts and date."""

    per_hour: float
    currency: str
    note: str


@dataclass(frozen=True)
class UnknownPrice:
    """There is no price, for this reason."""

    reason: str


def price_row(row: Row, price: Price | UnknownPrice) -> Row:
    """The row with its prices of 100,000 inferences at this price an hour, or with why there are none."""
    if isinstance(price, UnknownPrice):
        return without_price(row, price.reason)
    mean = row.latency_us.mean
    reasons = {}
    if mean is None:
        reasons["sequential"] = "no request was answered"
    sequential = None if mean is None else sequential_per_100k(price.per_hour, mean, row.count)
    ends = row.latency_us.mean_interval
    low, high = (sequential_per_100k(price.per_hour, end, row.count) for end in ends or (0.0, 0.0))
    saturated, met, crossing = row.saturation.rps, row.slo_rate.met_rps, row.slo_rate.interval
    if saturated is None:
        reasons["saturated"] = "needs a search that goes up to saturation (--shape steps or slo-search)"
    if met is None:
        missed, estimate = row.slo_rate.missed_rps, row.slo_rate.estimate_rps
        if missed is None:
            reasons["at_slo"] = "needs a search for the highest rate within the SLO (--shape slo-search)"
        elif estimate is None:
            reasons["at_slo"] = f"no tested rate met the SLO; the lowest that missed it: {missed:.4g} requests a second"
        else:
            reasons["at_slo"] = (
                f"no rate was shown to meet the SLO: {missed:.4g} requests a second missed it, about {estimate:.3g} "
                "may meet it; a longer search would decide it"
            )
    if met is not None and crossing is not None:
        # The rate that met the SLO is part of the interval, too.
        crossing = min(crossing[0], met), max(crossing[1], met)
    return row.model_copy(
        update={
            "price_per_hour": price.per_hour,
            "currency": price.currency,
            "price_note": price.note,
            "cost_per_100k": CostPer100k(
                sequential=sequential,
                sequential_interval=(low, high) if ends else None,
                saturated=None if saturated is None else rate_per_100k(price.per_hour, saturated),
                saturated_interval=rates_per_100k(price.per_hour, row.saturation.interval),
                at_slo=None if met is None else rate_per_100k(price.per_hour, met),
                at_slo_interval=None if met is None else rates_per_100k(price.per_hour, crossing),
                reasons=reasons,
            ),
        }
    )
