"""interference: each ordinal alone, each pair, and all together; what every neighbour costs the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from capacity.errors import InputError
from capacity.experiments.stress import (
    TOGETHER,
    Estimate,
    Interference,
    NeighbourCost,
    OrdinalInterference,
    ResultTable,
    ScenarioResult,
    StressEnvironment,
    check_failed_requests,
    check_valid_runs,
    format_ms,
    format_share,
    p99_growth,
    target_row,
    time_growth,
)
from capacity.pricing import format_hourly, format_money, rate_per_100k
from capacity.rundir import Run
from capacity.simulation import Pool, Profile, find_highest_rate
from capacity.statistics import Slo
from worker.wire import display_duration

#: The length of each run, in seconds.
SECONDS = 5.0
_SIMULATED_REQUESTS = 30_000


def run_interference(environment: StressEnvironment) -> ScenarioResult:
    """Loads each ordinal alone, each pair, and all together, and compares each ordinal's figures."""
    seconds = environment.options.seconds or SECONDS
    names = {worker.address: worker.name for worker in environment.workers}
    if len(names) < 2:
        raise InputError("interference needs at least two ordinals")
    alone, pairs, together = _run_all(environment, names, seconds)
    slo_rates = _SloRates(environment)
    if environment.options.slo:
        environment.progress(f"rates within {environment.options.slo}, simulated from each ordinal's service times")
    neighbours = [
        _neighbour_cost(names, victim, other, alone[victim], pair, slo_rates)
        for (first, second), pair in pairs.items()
        for victim, other in ((first, second), (second, first))
    ]
    ordinals = [_ordinal(names[a], a, alone[a], together, slo_rates) for a in environment.addresses]
    alone_rps, together_rps = (
        sum(one.alone_rps for one in ordinals),
        sum(one.together_rps for one in ordinals),
    )
    factor = together_rps / alone_rps if alone_rps else 0.0
    interference = Interference(ordinals=ordinals, neighbours=neighbours, factor=factor)
    prices = _prices(together, together_rps, alone_rps)
    return ScenarioResult(
        summary=_summary(interference, alone_rps, together_rps, prices),
        checks=[check_valid_runs(environment.runs), check_failed_requests(environment.runs)],
        tables=_tables(interference, list(names.values())),
        interference=interference,
        figures={
            "factor": factor,
            "loaded_per_100k": prices.together_per_100k if prices else None,
            "alone_per_100k": prices.alone_per_100k if prices else None,
        },
    )


def _run_all(
    environment: StressEnvironment, names: Mapping[str, str], seconds: float
) -> tuple[dict[str, Run], dict[tuple[str, str], Run], Run]:
    """The runs of each ordinal alone, of each pair, and of all together."""
    pairs = list(combinations(environment.addresses, 2))
    several = f", {len(pairs)} pairs" if len(pairs) > 1 else ""
    environment.progress(f"{len(names)} alone{several}, all together: {display_duration(seconds)} each")
    alone = {a: environment.run_saturated(_run_name("alone", names[a]), [a], seconds) for a in environment.addresses}
    together = environment.run_saturated(TOGETHER, environment.addresses, seconds)
    if len(pairs) == 1:
        return alone, {pairs[0]: together}, together
    pair_runs = {
        (a, b): environment.run_saturated(_run_name("pair", names[a], names[b]), [a, b], seconds) for a, b in pairs
    }
    return alone, pair_runs, together


def _run_name(kind: str, *ordinals: str) -> str:
    return "-".join([kind, *(ordinal.replace(":", "") for ordinal in ordinals)])


def _neighbour_cost(
    names: Mapping[str, str], victim: str, other: str, alone: Run, pair: Run, slo_rates: _SloRates
) -> NeighbourCost:
    before, later = target_row(alone, victim), target_row(pair, victim)
    growth = time_growth(pair, alone, victim)
    return NeighbourCost(
        ordinal=names[victim],
        neighbour=names[other],
        p99_growth=p99_growth(later.latency_us, before.latency_us),
        time_growth=growth,
        # In a closed loop, twice the time is half the throughput.
        throughput_loss=growth.transform(lambda share: 1 - 1 / (1 + share)),
        slo_rate_loss=slo_rates.loss(alone, pair, victim, growth),
    )


def _ordinal(name: str, address: str, alone: Run, together: Run, slo_rates: _SloRates) -> OrdinalInterference:
    growth = time_growth(together, alone, address)
    before, later = target_row(alone, address), target_row(together, address)
    return OrdinalInterference(
        ordinal=name,
        alone_rps=before.throughput_rps,
        together_rps=later.throughput_rps,
        throughput_factor=growth.transform(lambda share: 1 / (1 + share), falling=True),
        alone_p99_us=before.latency_us.p99,
        together_p99_us=later.latency_us.p99,
        slo_rate_alone_rps=slo_rates.rate(alone, address),
        slo_rate_together_rps=slo_rates.rate(together, address),
        slo_rate_loss=slo_rates.loss(alone, together, address, growth),
    )


class _SloRates:
    """The highest rate within the SLO of a single ordinal, simulated from its service times in a run.

    None without an SLO, and where a run does not report the times.
    """

    def __init__(self, environment: StressEnvironment) -> None:
        self._slo: Slo | None = environment.options.slo
        self._progress = environment.progress
        self._rates: dict[tuple[str, str, float], float] = {}

    def rate(self, run: Run, address: str, factor: float = 1.0) -> float | None:
        """Returns the rate in requests a second if its passes were `factor` times as long."""
        if self._slo is None:
            return None
        key = (run.name, address, factor)
        if key not in self._rates:
            try:
                profile = Profile.of_ordinal(run, target_row(run, address)).with_slower_passes(factor)
                highest = find_highest_rate(Pool((profile,)), self._slo, requests=_SIMULATED_REQUESTS)
            except InputError as error:
                self._progress(f"no rate within {self._slo}: {error}")
                self._slo = None
                return None
            self._rates[key] = highest.met_rps
        return self._rates[key]

    def loss(self, alone: Run, later: Run, address: str, growth: Estimate) -> Estimate | None:
        """Returns the lost share of the rate alone, with the interval of `growth`, simulated at the same arrivals."""
        before = self.rate(alone, address)
        if not before or self.rate(later, address) is None or growth.value is None:
            return None
        measured = 1 + growth.value
        return growth.transform(lambda share: 1 - (self.rate(later, address, (1 + share) / measured) or 0.0) / before)


@dataclass(frozen=True)
class _Prices:
    """The price of the machine an hour, and of 100,000 inferences with all ordinals loaded and by their sum alone."""

    per_hour: float
    together_per_100k: float
    alone_per_100k: float
    currency: str


def _prices(together: Run, together_rps: float, alone_rps: float) -> _Prices | None:
    """None where an ordinal has no price, or prices are in several currencies."""
    rows = together.file.rows
    prices = [row.price_per_hour for row in rows if row.price_per_hour is not None]
    if len(prices) < len(rows) or not together_rps or len({row.currency for row in rows}) > 1:
        return None
    total = sum(prices)
    return _Prices(total, rate_per_100k(total, together_rps), rate_per_100k(total, alone_rps), rows[0].currency)


def _summary(interference: Interference, alone_rps: float, together_rps: float, prices: _Prices | None) -> list[str]:
    sentences = [
        f"The fully loaded machine answers {together_rps:.4g} requests a second, {100 * interference.factor:.1f} % of "
        f"the {alone_rps:.4g} that its ordinals answer alone."
    ]
    significant = [
        one
        for one in interference.neighbours
        if one.time_growth.low is not None and one.time_growth.low > 0 and one.time_growth.value
    ]
    if significant:
        worst = max(significant, key=lambda one: one.time_growth.value or 0.0)
        growth = format_share(worst.time_growth)
        sentences.append(f"The largest effect: {worst.neighbour} slows {worst.ordinal} down by {growth}.")
    else:
        sentences.append("No neighbour has an effect that these runs can distinguish from chance.")
    if prices:
        sentences.append(
            f"At {format_hourly(prices.per_hour, prices.currency)} an hour 100,000 inferences cost "
            f"{format_money(prices.together_per_100k, prices.currency)}; by the ordinals alone it would be "
            f"{format_money(prices.alone_per_100k, prices.currency)}."
        )
    return sentences


def _format_rate(rps: float | None) -> str:
    return "–" if rps is None else f"{rps:.4g}"


def _tables(interference: Interference, names: Sequence[str]) -> list[ResultTable]:
    rows = [
        [
            one.ordinal,
            f"{one.alone_rps:.4g}",
            f"{one.together_rps:.4g}",
            format_share(one.throughput_factor.transform(lambda factor: factor - 1)),
            format_ms(one.alone_p99_us),
            format_ms(one.together_p99_us),
        ]
        for one in interference.ordinals
    ]
    columns = ["ordinal", "alone /s", "all loaded /s", "difference", "P99 alone, ms", "P99 all loaded, ms"]
    tables = [
        ResultTable(title="Alone and with all loaded", columns=columns, rows=rows),
        _matrix("Growth of the time between answers", "time_growth", interference, names),
        _matrix("Growth of P99", "p99_growth", interference, names),
        _matrix("Loss of throughput", "throughput_loss", interference, names),
    ]
    if all(one.slo_rate_alone_rps is None for one in interference.ordinals):
        return tables
    rates = [
        [
            one.ordinal,
            _format_rate(one.slo_rate_alone_rps),
            _format_rate(one.slo_rate_together_rps),
            format_share(one.slo_rate_loss),
        ]
        for one in interference.ordinals
    ]
    return [
        *tables,
        ResultTable(
            title="Highest rate within the SLO, alone and with all loaded",
            columns=["ordinal", "alone /s", "all loaded /s", "loss"],
            rows=rates,
            note="Simulated from the measured service times of each ordinal.",
        ),
        _matrix("Loss of the rate within the SLO", "slo_rate_loss", interference, names),
    ]


def _matrix(title: str, field: str, interference: Interference, names: Sequence[str]) -> ResultTable:
    by_pair = {(one.ordinal, one.neighbour): one for one in interference.neighbours}
    rows = [
        [victim, *("" if victim == other else format_share(getattr(by_pair[victim, other], field)) for other in names)]
        for victim in names
    ]
    title = f"{title} beside a neighbour (95 % interval)"
    return ResultTable(title=title, columns=["beside", *names], rows=rows)
