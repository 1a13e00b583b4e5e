"""interference: each ordinal alone, each pair, all together; what every neighbour costs the others."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from capacity.experiments.stress.figures import ms, ordinal_row, p99_ratio, share, time_ratio, valid
from capacity.experiments.stress.findings import TOGETHER, Estimate, Interference, Loaded, Neighbour, Table
from capacity.experiments.stress.setup import Bench
from capacity.pricing import format_hourly, format_money, rate_per_100k
from capacity.rundir import Run
from capacity.simulation import Pool, Profile, find_highest_rate
from capacity.statistics import Check

#: Of each run.
SECONDS = 5.0
#: Requests at each rate that is tried.
_SIMULATED = 30_000


def run(bench: Bench) -> dict[str, Any]:
    """All runs of it, and what they say."""
    seconds = bench.asked.for_s or SECONDS
    names = {worker.address: worker.accelerator or worker.address for worker in bench.workers}
    if len(names) < 2:
        raise ValueError("interference needs two ordinals at least")
    pairs = list(combinations(bench.addresses, 2))
    several = len(pairs) > 1
    said = f", {len(pairs)} pairs" if several else ""
    bench.say(f"{len(names)} alone{said}, all together: {seconds:g} s each")
    alone = {a: bench.saturated(_named("alone", names[a]), [a], seconds) for a in bench.addresses}
    together = bench.saturated(TOGETHER, bench.addresses, seconds)
    beside = {
        (a, b): bench.saturated(_named("pair", names[a], names[b]), [a, b], seconds) if several else together
        for a, b in pairs
    }
    within = _WithinSlo(bench)
    if bench.asked.slo:
        bench.say(f"rates within {bench.asked.slo}, simulated from what each ordinal took")
    neighbours = []
    for (first, second), pair in beside.items():
        for victim, other in ((first, second), (second, first)):
            before, later = ordinal_row(alone[victim], victim), ordinal_row(pair, victim)
            time = time_ratio(pair, alone[victim], victim)
            neighbours.append(
                Neighbour(
                    ordinal=names[victim],
                    neighbour=names[other],
                    p99=p99_ratio(later.latency_us, before.latency_us),
                    time=time,
                    # Of a load that waits for its answers: what takes twice as long comes half as often.
                    rate=time.by(lambda longer: 1 - 1 / (1 + longer)),
                    slo_rate=within.lost(alone[victim], pair, victim, time),
                )
            )
    loaded = [_loaded(names[a], a, alone[a], together, within) for a in bench.addresses]
    apart, loaded_rps = sum(one.alone_rps for one in loaded), sum(one.together_rps for one in loaded)
    found = Interference(ordinals=loaded, neighbours=neighbours, factor=loaded_rps / apart if apart else 0.0)
    sentences = [
        f"Fully loaded, the machine answers {loaded_rps:.4g} requests a second: {100 * found.factor:.1f} % of the "
        f"{apart:.4g} that its ordinals answer alone."
    ]
    certain = [one for one in neighbours if one.time.low is not None and one.time.low > 0 and one.time.value]
    if certain:
        worst = max(certain, key=lambda one: one.time.value or 0.0)
        sentences.append(
            f"The dearest neighbour: {worst.neighbour} makes {worst.ordinal} slower by {share(worst.time)}."
        )
    else:
        sentences.append("No neighbour costs another one anything that these runs can tell from chance.")
    prices = _prices(together, loaded_rps, apart)
    if prices:
        hour, cost, promised = prices
        currency = together.file.rows[0].currency
        sentences.append(
            f"At {format_hourly(hour, currency)} an hour 100,000 inferences then cost {format_money(cost, currency)}; "
            f"the ordinals alone would promise {format_money(promised, currency)}."
        )
    return {
        "sentences": sentences,
        "checks": [valid(bench.runs), _answered(bench.runs)],
        "tables": _tables(found, list(names.values())),
        "interference": found,
        "figures": {
            "factor": found.factor,
            "loaded_per_100k": prices[1] if prices else None,
            "alone_per_100k": prices[2] if prices else None,
        },
    }


def _prices(together: Run, loaded_rps: float, apart_rps: float) -> tuple[float, float, float] | None:
    """The machine's price an hour, and that of 100,000 inferences at both rates; None where a part has no price."""
    parts = [row.price_per_hour for row in together.file.rows]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or not loaded_rps or len({row.currency for row in together.file.rows}) > 1:
        return None
    return sum(known), rate_per_100k(sum(known), loaded_rps), rate_per_100k(sum(known), apart_rps)


def _named(kind: str, *ordinals: str) -> str:
    return "-".join([kind, *(ordinal.replace(":", "") for ordinal in ordinals)])


def _loaded(name: str, address: str, alone: Run, together: Run, within: _WithinSlo) -> Loaded:
    time = time_ratio(together, alone, address)
    before, later = ordinal_row(alone, address), ordinal_row(together, address)

    return Loaded(
        ordinal=name,
        alone_rps=before.throughput_rps,
        together_rps=later.throughput_rps,
        factor=time.by(lambda longer: 1 / (1 + longer), falling=True),
        alone_p99_us=before.latency_us.p99,
        together_p99_us=later.latency_us.p99,
        at_slo_alone_rps=within.rate(alone, address),
        at_slo_together_rps=within.rate(together, address),
        at_slo_lost=within.lost(alone, together, address, time),
    )


class _WithinSlo:
    """The highest rate within the SLO of an ordinal by itself, simulated from what it took in a run; None without an
    SLO, and where a run does not tell its times."""

    def __init__(self, bench: Bench) -> None:
        self._slo, self._say = bench.asked.slo, bench.say
        self._known: dict[tuple[str, str, float], float] = {}

    def rate(self, run: Run, address: str, slower: float = 1.0) -> float | None:
        """In requests a second, were its passes so many times as long."""
        if self._slo is None:
            return None
        key = (run.name, address, slower)
        if key not in self._known:
            try:
                profile = Profile.of_ordinal(run, ordinal_row(run, address)).with_slower_passes(slower)
                self._known[key] = find_highest_rate(Pool((profile,)), self._slo, requests=_SIMULATED).passing_rps
            except ValueError as error:
                self._say(f"no rate within {self._slo}: {error}")
                self._slo = None
                return None
        return self._known[key]

    def lost(self, alone: Run, later: Run, address: str, time: Estimate) -> Estimate | None:
        """The share of the rate alone that is lost; its interval is what `time`'s comes to, at the same arrivals."""
        before = self.rate(alone, address)
        if not before or self.rate(later, address) is None or time.value is None:
            return None
        measured = 1 + time.value
        return time.by(lambda longer: 1 - (self.rate(later, address, (1 + longer) / measured) or 0.0) / before)


def _share(estimate: Estimate | None) -> str:
    return "–" if estimate is None else share(estimate)


def _rate(rps: float | None) -> str:
    return "–" if rps is None else f"{rps:.4g}"


def _answered(runs: list[Run]) -> Check:
    failed = sum(sum(row.errors.values()) + row.unsent for run in runs for row in run.file.rows)
    return Check(name="failed requests", value=failed, threshold="0", status="WARN" if failed else "PASS")


def _tables(found: Interference, names: list[str]) -> list[Table]:
    by_pair = {(one.ordinal, one.neighbour): one for one in found.neighbours}

    def matrix(title: str, of: str) -> Table:
        rows = [
            [victim, *("" if victim == other else _share(getattr(by_pair[victim, other], of)) for other in names)]
            for victim in names
        ]
        return Table(title=title, columns=["beside", *names], rows=rows)

    rows = [
        [
            one.ordinal,
            f"{one.alone_rps:.4g}",
            f"{one.together_rps:.4g}",
            share(one.factor.by(lambda factor: factor - 1)),
            ms(one.alone_p99_us),
            ms(one.together_p99_us),
        ]
        for one in found.ordinals
    ]
    columns = ["ordinal", "alone /s", "all loaded /s", "difference", "P99 alone, ms", "P99 all loaded, ms"]
    tables = [
        Table(title="Alone and with all loaded", columns=columns, rows=rows),
        matrix("What a neighbour adds to the time between answers (95 % interval)", "time"),
        matrix("What a neighbour adds to P99 (95 % interval)", "p99"),
        matrix("What a neighbour takes of the throughput (95 % interval)", "rate"),
    ]
    if all(one.at_slo_alone_rps is None for one in found.ordinals):
        return tables
    rates = [
        [one.ordinal, _rate(one.at_slo_alone_rps), _rate(one.at_slo_together_rps), _share(one.at_slo_lost)]
        for one in found.ordinals
    ]
    return [
        *tables,
        Table(
            title="The rate within the SLO, alone and with all loaded",
            columns=["ordinal", "alone /s", "all loaded /s", "lost"],
            rows=rates,
            note="Simulated from the measured service times of each ordinal.",
        ),
        matrix("What a neighbour takes of the rate within the SLO (95 % interval)", "slo_rate"),
    ]
