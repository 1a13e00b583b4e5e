"""interference: each ordinal alone, each pair, all together; what every neighbour costs the others."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from capacity.confidence import Check
from capacity.cost import hourly, money, rate_per_100k
from capacity.hardware import HardwareCombination
from capacity.profile import Profile
from capacity.run import Run
from capacity.simulate import Pool, highest_rate
from capacity.stress.bench import Bench
from capacity.stress.figures import ms, ordinal_row, p99_ratio, share, time_ratio, valid
from capacity.stress.findings import TOGETHER, Estimate, Interference, Loaded, Neighbour, Table

#: Of each run.
SECONDS = 5.0


def run(bench: Bench) -> dict[str, Any]:
    """All runs of it, and what they say."""
    seconds = bench.asked.for_s or SECONDS
    names = {worker.address: worker.accelerator or worker.address for worker in bench.workers}
    if len(names) < 2:
        raise ValueError("interference needs two ordinals at least")
    bench.say(f"{len(names)} alone, all together and {len(names) * (len(names) - 1) // 2} pairs, {seconds:g} s each")
    alone = {a: bench.saturated(_named("alone", names[a]), [a], seconds) for a in bench.addresses}
    together = bench.saturated(TOGETHER, bench.addresses, seconds)
    neighbours = []
    for first, second in combinations(bench.addresses, 2):
        pair = together
        if len(names) > 2:
            pair = bench.saturated(_named("pair", names[first], names[second]), [first, second], seconds)
        for victim, other in ((first, second), (second, first)):
            before, later = ordinal_row(alone[victim], victim), ordinal_row(pair, victim)
            time = time_ratio(pair, alone[victim], victim)
            neighbours.append(
                Neighbour(
                    ordinal=names[victim],
                    neighbour=names[other],
                    p99=p99_ratio(later.latency_us, before.latency_us),
                    time=time,
                    rate=_lost(time),
                )
            )
    loaded = [_loaded(names[a], a, alone[a], together) for a in bench.addresses]
    loaded = _within_slo(bench, loaded, alone, together)
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
            f"At {hourly(hour, currency)} an hour 100,000 inferences then cost {money(cost, currency)}; the ordinals "
            f"alone would promise {money(promised, currency)}."
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


def _lost(time: Estimate) -> Estimate:
    """A load that waits for its answers: what takes 1 + x times as long comes 1 / (1 + x) times as often."""

    def turned(value: float | None) -> float | None:
        return None if value is None else 1 - 1 / (1 + value)

    return Estimate(value=turned(time.value), low=turned(time.low), high=turned(time.high))


def _loaded(name: str, address: str, alone: Run, together: Run) -> Loaded:
    time = time_ratio(together, alone, address)
    before, later = ordinal_row(alone, address), ordinal_row(together, address)

    def turned(value: float | None) -> float | None:
        return None if value is None else 1 / (1 + value)

    return Loaded(
        ordinal=name,
        alone_rps=before.throughput_rps,
        together_rps=later.throughput_rps,
        factor=Estimate(value=turned(time.value), low=turned(time.high), high=turned(time.low)),
        alone_p99_us=before.latency_us.p99,
        together_p99_us=later.latency_us.p99,
    )


def _within_slo(bench: Bench, loaded: list[Loaded], alone: dict[str, Run], together: Run) -> list[Loaded]:
    """The highest rate within the SLO of each ordinal by itself, from service times alone and with all loaded."""
    slo = bench.asked.slo
    if slo is None:
        return loaded
    found = []
    for (address, one), entry in zip(alone.items(), loaded, strict=True):
        rates = []
        for measured in (one, together):
            row = ordinal_row(measured, address)
            pool = next(r for r in measured.file.rows if (r.host, r.accelerator) == (row.host, row.accelerator))
            hardware = HardwareCombination(pool.host, pool.accelerator, pool.count, pool.hosts)
            try:
                profile = Profile.from_runs([measured], hardware, row.model)
                rates.append(highest_rate(Pool((profile,)), slo, requests=30_000).passing_rps)
            except ValueError as error:
                bench.say(f"no rate within {slo}: {error}")
                return loaded
        found.append(entry.model_copy(update={"at_slo_alone_rps": rates[0], "at_slo_together_rps": rates[1]}))
    return found


def _less(factor: Estimate) -> Estimate:
    """A factor as a share more or less than 1."""
    ends = [None if end is None else end - 1 for end in (factor.value, factor.low, factor.high)]
    return Estimate(value=ends[0], low=ends[1], high=ends[2])


def _answered(runs: list[Run]) -> Check:
    failed = sum(sum(row.errors.values()) + row.unsent for run in runs for row in run.file.rows)
    return Check(name="failed requests", value=failed, threshold="0", status="WARN" if failed else "PASS")


def _tables(found: Interference, names: list[str]) -> list[Table]:
    by_pair = {(one.ordinal, one.neighbour): one for one in found.neighbours}

    def matrix(title: str, of: str) -> Table:
        rows = [
            [victim, *("" if victim == other else share(getattr(by_pair[victim, other], of)) for other in names)]
            for victim in names
        ]
        return Table(title=title, columns=["beside", *names], rows=rows)

    at_slo = any(one.at_slo_alone_rps is not None for one in found.ordinals)
    rows = [
        [
            one.ordinal,
            f"{one.alone_rps:.4g}",
            f"{one.together_rps:.4g}",
            share(_less(one.factor)),
            ms(one.alone_p99_us),
            ms(one.together_p99_us),
            *([f"{one.at_slo_alone_rps or 0:.4g}", f"{one.at_slo_together_rps or 0:.4g}"] if at_slo else []),
        ]
        for one in found.ordinals
    ]
    columns = ["ordinal", "alone /s", "all loaded /s", "difference", "P99 alone, ms", "P99 all loaded, ms"]
    return [
        Table(
            title="Alone and with all loaded",
            columns=columns + (["within SLO alone /s", "within SLO all loaded /s"] if at_slo else []),
            rows=rows,
            note="Rates within the SLO are simulated from the measured service times." if at_slo else "",
        ),
        matrix("What a neighbour adds to the time between answers (95 % interval)", "time"),
        matrix("What a neighbour adds to P99 (95 % interval)", "p99"),
        matrix("What a neighbour takes of the throughput (95 % interval)", "rate"),
    ]
