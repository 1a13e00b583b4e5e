"""What can be bought for a plan: each measured kind of instance in each market, and what drops out, with reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from capacity.measures import HardwareCombination
from capacity.planning.fleet_search import Stock
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
    """One instance (a host with the ordinals that were measured on it) in one market, and how its ordinals serve.

    `price` is of the whole instance an hour. `uncertainty` is by how much the mean service time may be off, as the
    ends of its 95 % interval over it; `limit` how many there are; `measured` where its figures are from.
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
        """The combination; its market too, where that is not on-demand."""
        return self.instance.name if self.market == MARKETS[0] else f"{self.instance.name} ({self.market})"

    @property
    def stock(self) -> Stock:
        """As a search counts it."""
        return Stock(self.name, self.price, self.limit)

    @property
    def ordinals(self) -> int:
        """Of one instance."""
        return self.instance.count

    @property
    def simulated(self) -> bool:
        """Whether its figures come from a simulated accelerator."""
        return self.profile.simulated

    def compute(self) -> Histogram:
        """The worker's own time of a forward pass, over all that was measured; empty where nothing was."""
        total = Histogram()
        for run, row in self.measured:
            if (found := run.histogram(row, "compute")) is not None:
                total.add(found)
        return total


@dataclass(frozen=True)
class Offers:
    """What the choice is made from, and the steps in which others dropped out before it."""

    model: str
    kept: tuple[Offer, ...]
    steps: tuple[ChoiceStep, ...]

    def without(self, numbers: Sequence[int]) -> Offers:
        """The same without some of the kept."""
        return replace(self, kept=tuple(offer for at, offer in enumerate(self.kept) if at not in numbers))


def slower(offers: Sequence[Offer], factor: float) -> list[Offer]:
    """The same with service times `factor` times as long; those of one profile keep one."""
    profiles = {id(offer.profile): offer.profile for offer in offers}
    made = {key: profile.with_slower_passes(factor) for key, profile in profiles.items()}
    return [replace(offer, profile=made[id(offer.profile)]) for offer in offers]


def parse_limits(texts: Sequence[str]) -> dict[tuple[str, str], int]:
    """`TYPE=N` and `TYPE@MARKET=N`, by type and market (empty: over all markets); ValueError in one sentence."""
    limits: dict[tuple[str, str], int] = {}
    for text in texts:
        name, equals, number = (part.strip() for part in text.rpartition("="))
        kind, _at, market = name.partition("@")
        if not equals or not kind.strip() or not number.isdecimal():
            raise ValueError(f"--limit {text}: write TYPE=N, such as g5.xlarge=4 or 'c5.large + eia2.medium@spot=4'")
        if market and market not in MARKETS:
            raise ValueError(f"--limit {text}: the markets are {', '.join(MARKETS)}")
        limits[kind.strip(), market.strip()] = int(number)
    return limits


def gather(
    runs: Sequence[Run],
    model: str | None,
    catalogue: Catalogue,
    markets: Sequence[str],
    limits: Mapping[tuple[str, str], int],
) -> Offers:
    """The offers of runs for one model. ValueError in one sentence where there is no telling which, or no measurement.

    Rows of one combination in several runs count together. A limit names a host type or a whole combination.
    """
    found = [entry for entry in labeled_rows(runs) if entry.row.target is None]
    models = list(dict.fromkeys(entry.row.model for entry in found))
    if model is None:
        if len(models) != 1:
            raise ValueError(f"the runs have {' and '.join(models) or 'no model'}: say which one with --model")
        model = models[0]
    if model not in models:
        raise ValueError(f"no run has the model {model}; they have {', '.join(models) or 'none'}")
    rows = [entry for entry in found if entry.row.model == model]
    steps = []
    invalid = [Excluded(entry.label, f"its run is not valid: {entry.invalid}") for entry in rows if entry.invalid]
    valid = [entry for entry in rows if not entry.invalid]
    instances: dict[HardwareCombination, list[tuple[Run, Row]]] = {}
    for entry in valid:
        row = _with_memory(entry.row, catalogue)
        instances.setdefault(instance_of(entry.row), []).append((entry.run, row))
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
        made = _offers_of(runs, model, instance, same, catalogue, markets, limits)
        if isinstance(made, str):
            unpriced.append(Excluded(instance.name, made))
        else:
            offers += made
    kept = tuple(dict.fromkeys(offer.name for offer in offers))
    steps.append(ChoiceStep("price", kept, tuple(unpriced)))
    currencies = {offer.currency for offer in offers}
    if len(currencies) > 1:
        raise ValueError(f"prices in {' and '.join(sorted(currencies))} are not compared: price all in one currency")
    return Offers(model, tuple(offers), tuple(steps))


def instance_of(row: Row) -> HardwareCombination:
    """One host of a row, with its share of the ordinals."""
    return HardwareCombination(row.host, row.accelerator, max(row.count // row.hosts, 1), 1)


def _offers_of(
    runs: Sequence[Run],
    model: str,
    instance: HardwareCombination,
    rows: Sequence[tuple[Run, Row]],
    catalogue: Catalogue,
    markets: Sequence[str],
    limits: Mapping[tuple[str, str], int],
) -> list[Offer] | str:
    """One for each market that has a price; why there is none, where no market has."""
    made, reasons = [], []
    profile = Profile.from_runs(runs, instance, model)
    for market in markets:
        price = catalogue.price(instance, market)
        if isinstance(price, UnknownPrice):
            reasons.append(price.reason)
            continue
        made.append(
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
    return made or "; ".join(dict.fromkeys(reasons))


def _limit(limits: Mapping[tuple[str, str], int], instance: HardwareCombination, market: str) -> int | None:
    found = [
        limits[key]
        for key in ((instance.name, market), (instance.host, market), (instance.name, ""), (instance.host, ""))
        if key in limits
    ]
    return min(found, default=None)


def _check_limits(limits: Mapping[tuple[str, str], int], instances: Mapping[HardwareCombination, object]) -> None:
    known = [name for instance in instances for name in (instance.name, instance.host)]
    for name, _market in limits:
        if name not in known:
            raise ValueError(f"--limit {name}: no run has it; they have {', '.join(dict.fromkeys(known))}")


def _with_memory(row: Row, catalogue: Catalogue) -> Row:
    """The row with the catalogue's memory where nothing was seen; what a worker said of its host comes first."""
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
    """The ends of the computing mean's 95 % interval over it, from the rows' samples as independent."""
    low, high = 1.0, 1.0
    best = 0
    for row in rows:
        measure = row.compute_us
        if measure.mean and measure.mean_interval and measure.samples > best and math.isfinite(measure.mean):
            best = measure.samples
            low, high = (end / measure.mean for end in measure.mean_interval)
    return low, high
