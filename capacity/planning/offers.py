"""The offers of a plan: each measured kind of instance in each market, and the combinations excluded, with reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from capacity.errors import InputError
from capacity.measures import HardwareCombination
from capacity.planning.optimizer import Supply
from capacity.pricing import (
    MARKETS,
    Candidate,
    Catalogue,
    ChoiceStep,
    Excluded,
    UnknownPrice,
    exclude_by_memory,
    labeled_rows,
)
from capacity.rundir import Row, Run
from capacity.simulation import Profile
from capacity.statistics import Histogram


@dataclass(frozen=True)
class Offer:
    """One kind of instance, a host with its measured ordinals, in one market.

    `price` is that of the whole instance an hour. `uncertainty` has the ends of the 95 % interval of the mean service
    time, over the mean; `limit` is how many instances there are; `measured` has the rows that the figures are from.
    """

    instance: HardwareCombination
    market: str
    price: float
    currency: str
    price_note: str
    profile: Profile
    kind: str
    uncertainty: tuple[float, float] = (1.0, 1.0)
    limit: int | None = None
    measured: tuple[tuple[Run, Row], ...] = ()

    @property
    def name(self) -> str:
        """The combination, and its market where that is not on-demand."""
        return self.instance.name if self.market == MARKETS[0] else f"{self.instance.name} ({self.market})"

    @property
    def supply(self) -> Supply:
        """The offer as the optimizer takes it."""
        return Supply(self.name, self.price, self.limit)

    @property
    def ordinals(self) -> int:
        """The number of ordinals of one instance."""
        return self.instance.count

    @property
    def simulated(self) -> bool:
        """Whether its figures are from a simulated accelerator."""
        return self.profile.simulated

    def compute_histogram(self) -> Histogram:
        """Returns the worker's own compute times over all measured rows; empty where there are none."""
        total = Histogram()
        for run, row in self.measured:
            if (histogram := run.histogram(row, "compute")) is not None:
                total.add(histogram)
        return total


@dataclass(frozen=True)
class OfferSelection:
    """The offers for one model, and the steps that excluded other combinations."""

    model: str
    offers: tuple[Offer, ...]
    steps: tuple[ChoiceStep, ...]

    def without(self, numbers: Sequence[int]) -> OfferSelection:
        """Returns the selection without the offers of these numbers."""
        return replace(self, offers=tuple(offer for at, offer in enumerate(self.offers) if at not in numbers))


def with_slower_passes(offers: Sequence[Offer], factor: float) -> list[Offer]:
    """Returns the offers with service times `factor` times as long. Offers that share a profile still share one."""
    profiles = {id(offer.profile): offer.profile for offer in offers}
    slower = {key: profile.with_slower_passes(factor) for key, profile in profiles.items()}
    return [replace(offer, profile=slower[id(offer.profile)]) for offer in offers]


def parse_limits(texts: Sequence[str]) -> dict[tuple[str, str], int]:
    """Parses `TYPE=N` and `TYPE@MARKET=N` into limits by type and market (empty: each market). Raises InputError."""
    limits: dict[tuple[str, str], int] = {}
    for text in texts:
        name, equals, number = (part.strip() for part in text.rpartition("="))
        kind, _at, market = name.partition("@")
        if not equals or not kind.strip() or not number.isdecimal():
            raise InputError(f"--limit {text}: expected TYPE=N, such as g5.xlarge=4 or 'c5.large + eia2.medium@spot=4'")
        if market and market not in MARKETS:
            raise InputError(f"--limit {text}: unknown market (choose {', '.join(MARKETS)})")
        limits[kind.strip(), market.strip()] = int(number)
    return limits


def select_offers(
    runs: Sequence[Run],
    model: str | None,
    catalogue: Catalogue,
    markets: Sequence[str],
    limits: Mapping[tuple[str, str], int],
) -> OfferSelection:
    """Returns the offers of runs for one model; `model` may be None where the runs have only one.

    Rows of one combination in several runs count together. A limit names a host type or a whole combination. Raises
    InputError where the model is not clear, nothing is measured, or prices are in several currencies.
    """
    entries = [entry for entry in labeled_rows(runs) if entry.row.target is None]
    models = list(dict.fromkeys(entry.row.model for entry in entries))
    if model is None:
        if len(models) != 1:
            raise InputError(f"the runs have {' and '.join(models) or 'no model'}: choose one with --model")
        model = models[0]
    if model not in models:
        raise InputError(f"no run has the model {model} (they have {', '.join(models) or 'none'})")
    rows = [entry for entry in entries if entry.row.model == model]
    steps = []
    invalid = [Excluded(entry.label, f"its run is not valid: {entry.invalid}") for entry in rows if entry.invalid]
    valid = [entry for entry in rows if not entry.invalid]
    instances: dict[HardwareCombination, list[tuple[Run, Row]]] = {}
    for entry in valid:
        row = _with_memory(entry.row, catalogue)
        instances.setdefault(row_instance(entry.row), []).append((entry.run, row))
    if invalid:
        steps.append(ChoiceStep("validity", tuple(instance.name for instance in instances), tuple(invalid)))
    enough, memory = exclude_by_memory([Candidate(instance.name, same[-1][1]) for instance, same in instances.items()])
    steps.append(memory)
    names = {candidate.label for candidate in enough}
    _check_limits(limits, instances)
    offers: list[Offer] = []
    unpriced: list[Excluded] = []
    for instance, same in instances.items():
        if instance.name not in names:
            continue
        by_market = _offers_by_market(runs, model, instance, same, catalogue, markets, limits)
        if isinstance(by_market, str):
            unpriced.append(Excluded(instance.name, by_market))
        else:
            offers += by_market
    priced = tuple(dict.fromkeys(offer.name for offer in offers))
    steps.append(ChoiceStep("price", priced, tuple(unpriced)))
    currencies = {offer.currency for offer in offers}
    if len(currencies) > 1:
        raise InputError(f"prices in {' and '.join(sorted(currencies))} cannot be compared: price all in one currency")
    return OfferSelection(model, tuple(offers), tuple(steps))


def row_instance(row: Row) -> HardwareCombination:
    """Returns one host of a row with its share of the ordinals."""
    return HardwareCombination(row.host, row.accelerator, max(row.count // row.hosts, 1), 1)


def _offers_by_market(
    runs: Sequence[Run],
    model: str,
    instance: HardwareCombination,
    rows: Sequence[tuple[Run, Row]],
    catalogue: Catalogue,
    markets: Sequence[str],
    limits: Mapping[tuple[str, str], int],
) -> list[Offer] | str:
    """One offer for each market that has a price; the reason where none has."""
    offers, reasons = [], []
    profile = Profile.from_runs(runs, instance, model)
    for market in markets:
        price = catalogue.price(instance, market)
        if isinstance(price, UnknownPrice):
            reasons.append(price.reason)
            continue
        offers.append(
            Offer(
                instance,
                market,
                price.per_hour,
                price.currency,
                price.note,
                profile,
                rows[0][1].kind,
                _uncertainty([row for _run, row in rows]),
                _limit(limits, instance, market),
                tuple(rows),
            )
        )
    return offers or "; ".join(dict.fromkeys(reasons))


def _limit(limits: Mapping[tuple[str, str], int], instance: HardwareCombination, market: str) -> int | None:
    matching = [
        limits[key]
        for key in ((instance.name, market), (instance.host, market), (instance.name, ""), (instance.host, ""))
        if key in limits
    ]
    return min(matching, default=None)


def _check_limits(limits: Mapping[tuple[str, str], int], instances: Mapping[HardwareCombination, object]) -> None:
    names = [name for instance in instances for name in (instance.name, instance.host)]
    for name, _market in limits:
        if name not in names:
            raise InputError(f"--limit {name}: no run has it (they have {', '.join(dict.fromkeys(names))})")


def _with_memory(row: Row, catalogue: Catalogue) -> Row:
    """The row with the catalogue's memory where the worker reported none."""
    host, accelerator = catalogue.memory(HardwareCombination(row.host, row.accelerator, row.count, row.hosts))
    memory = row.memory
    return row.model_copy(
        update={
            "memory": memory.model_copy(
                update={
                    "host_bytes": memory.host_bytes or host,
                    "accelerator_bytes": memory.accelerator_bytes or (None if row.kind == "cpu" else accelerator),
                }
            )
        }
    )


def _uncertainty(rows: Sequence[Row]) -> tuple[float, float]:
    """The ends of the 95 % interval of the mean compute time, over the mean, of the row with most samples."""
    low, high = 1.0, 1.0
    samples = 0
    for row in rows:
        measure = row.compute_us
        if measure.mean and measure.mean_interval and measure.samples > samples and math.isfinite(measure.mean):
            samples = measure.samples
            low, high = (end / measure.mean for end in measure.mean_interval)
    return low, high
