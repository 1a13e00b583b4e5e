"""The hardware as the optimizer sees it: the supply of each option, and a model of pools made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

#: Instances of each option, by the option's number.
Counts = tuple[int, ...]


@dataclass(frozen=True)
class Supply:
    """An option as it is bought: its name, its price an hour, and how many instances there are (None: no limit)."""

    name: str
    price: float
    limit: int | None = None


@dataclass(frozen=True)
class PoolPrediction:
    """What a pool does at a rate: `meets_slo` is whether it surely stays within the SLO, `busy_share` the share of the
    time that its ordinals compute, `percentiles` latencies in µs by percent (None: beyond all answered requests)."""

    meets_slo: bool
    percentiles: tuple[tuple[float, float | None], ...] = ()
    busy_share: float = 0.0
    requests: int = 0


class PoolModel(Protocol):
    """Predicts pools of whole instances of several options. Rates are in requests a second."""

    def predict(self, counts: Counts, rate: float) -> PoolPrediction:
        """Predicts the whole pool at a rate."""

    def highest_rate(self, option: int, count: int) -> float:
        """Returns the highest rate at which a pool of one option surely meets the SLO; 0 where there is none."""

    def saturation_rate(self, option: int) -> float:
        """Returns the throughput of one instance that is never idle."""

    def shares_beyond(self, option: int) -> tuple[float, ...]:
        """Returns the share of requests beyond each bound of the SLO without any waiting."""

    @property
    def allowed_shares(self) -> tuple[float, ...]:
        """The share of requests that may be beyond each bound."""

    @property
    def balances_load(self) -> bool:
        """Whether the router looks at outstanding requests, so that one more instance never hurts."""


def rising_rates(rates: Mapping[int, float]) -> list[tuple[int, float]]:
    """Returns (size, rate) by ascending size, with at least the rate per instance of every smaller pool.

    A larger pool can be operated as several smaller ones.
    """
    points: list[tuple[int, float]] = []
    for size, rate in sorted(rates.items()):
        per_instance = max(rate / size, points[-1][1] / points[-1][0] if points else 0.0)
        points.append((size, per_instance * size))
    return points
