"""A search is a loop over run_probe: it knows neither Locust nor ticks, and its outcome has all that was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from capacity.measures import HardwareCombination, Series, Tally
from capacity.statistics import Slo
from loadgen.generator import CumulativeTallies, ProbeOrder, ProbeProgress, ProbeResult, StopCondition
from loadgen.measure import GeneratorHealth, RunTotals
from loadgen.search import RateSearch

SERIES = Series(HardwareCombination("host", "cpu-1c"), "m", "cpu:0 @ a:1", False)
OTHER = Series(HardwareCombination("host", "gpu"), "m", "cuda:0 @ b:1", False)
CAPACITY_RPS = 100.0


def options(shape: str = "slo-search") -> Any:
    return SimpleNamespace(
        shape=shape,
        slo=Slo.parse("p90=10ms") if shape == "slo-search" else None,
        router="pinned",
        warmup_ns=0,
        arrivals="poisson",
        is_open=True,
    )


class FakeProber:
    """Stands for generators in front of hardware that serves CAPACITY_RPS, in 5 ms below it and in 50 ms above."""

    def __init__(self, sources: list[int], on_probe: Callable[[ProbeOrder], None] = lambda order: None) -> None:
        self.orders: list[ProbeOrder] = []
        self._sources = sources
        self._on_probe = on_probe

    def source_counts(self) -> list[int]:
        return self._sources

    def run_probe(self, order: ProbeOrder, stop_when: StopCondition | None = None) -> ProbeResult:
        self.orders.append(order)
        series = (SERIES, OTHER)[order.pool]
        seconds = (order.length_ns - order.settle_ns) / 1e9
        rate = order.rate * self._sources[order.pool]
        count = int(min(rate or CAPACITY_RPS, CAPACITY_RPS) * seconds)
        latency_ms = 5 if rate < CAPACITY_RPS else 50
        tally = Tally(due=int(rate * seconds) or count, answered=count)
        tally.unsent = tally.due - count
        for measure in ("latency", "service"):
            tally.histograms[measure].record_ns(np.full(count, latency_ms * 1_000_000))
        health = GeneratorHealth()
        health.window_s = seconds
        folds = int(seconds * 20)
        health.completions = [np.full(folds, count // folds)]
        self._on_probe(order)
        if stop_when is not None:
            before = CumulativeTallies({series: Tally()}, {series: Tally()})
            stop_when(ProbeProgress(before, CumulativeTallies({series: tally}, {series: Tally()}), dict))
        generators = [{"client": "me", "complete": True}]
        if order.rate == 0:
            return ProbeResult({series: Tally()}, {series: tally}, health, generators)
        return ProbeResult({series: tally}, {series: Tally()}, health, generators)


class FakeLog:
    """Stands for the run directory."""

    position_s = 0.0

    def begin_measuring(self) -> None:
        pass

    def add_target_measures(self, tallies: Mapping[Series, Tally], from_s: float = 0.0) -> None:
        pass


def search(prober: FakeProber, *series: Series, shape: str = "slo-search") -> tuple[RateSearch, list[str]]:
    lines: list[str] = []
    rate_search = RateSearch(
        prober,
        FakeLog(),
        options(shape),
        series or (SERIES,),
        flush=lambda: None,
        users=4,
        run_time_s=None,
        print_line=lines.append,
    )
    return rate_search, lines


def totals(*series: Series) -> RunTotals:
    tallies = {one: Tally() for one in series or (SERIES,)}
    return RunTotals(tallies, tallies, {}, 1.0, [{"client": "me", "complete": True}], GeneratorHealth())


def test_a_search_brackets_the_capacity_and_confirms_a_rate_below_it() -> None:
    prober = FakeProber([4])
    rate_search, lines = search(prober)
    rate_search.run()
    outcome = rate_search.outcome(totals())
    (result,) = outcome.results
    assert result.slo_rate.confirmed
    assert result.slo_rate.met_rps is not None
    assert result.slo_rate.missed_rps is not None
    assert result.slo_rate.met_rps < CAPACITY_RPS <= result.slo_rate.missed_rps
    (shown,) = [probe for probe in result.probes if probe.in_row]
    assert outcome.totals.totals[SERIES].answered == shown.answered
    assert prober.orders[0].rate == 0, "the closed loop comes first"
    assert [order.number for order in prober.orders] == list(range(1, len(prober.orders) + 1))
    assert lines[1].startswith("probe 1, bracketing: ")
    assert lines[-1].startswith(f"probe {len(result.probes)}: met")


def test_steps_end_beyond_saturation_without_a_verdict() -> None:
    rate_search, _ = search(FakeProber([4]), shape="steps")
    rate_search.run()
    (result,) = rate_search.outcome(totals()).results
    assert result.saturation.rps is not None
    assert all(probe.verdict is None for probe in result.probes)
    assert any(probe.saturated for probe in result.probes)


def test_a_run_that_ends_cuts_off_the_probe_and_orders_no_more() -> None:
    def stop_at_second_probe(order: ProbeOrder) -> None:
        if order.number == 3:
            rate_search.stop()

    prober = FakeProber([4], stop_at_second_probe)
    rate_search, _ = search(prober)
    rate_search.run()
    (result,) = rate_search.outcome(totals()).results
    assert len(prober.orders) == 3
    assert result.stop_reason == "the run ended"
    assert [probe.verdict for probe in result.probes] == [result.probes[0].verdict, "inconclusive"]
    assert result.probes[0].verdict != "inconclusive"
    assert "cut off" in result.probes[-1].verdict_reasons[0]


def test_a_pool_without_sources_is_not_probed() -> None:
    prober = FakeProber([4, 0])
    rate_search, lines = search(prober, SERIES, OTHER)
    rate_search.run()
    first, second = rate_search.outcome(totals(SERIES, OTHER)).results
    assert first.probes
    assert (second.probes, second.stop_reason) == ([], "no user sends to it")
    assert any(line.startswith("search 2 of 2") for line in lines)


def test_uneven_users_of_a_pinned_router_are_warned_of() -> None:
    peer = Series(SERIES.hardware, "m", "cpu:1 @ a:2", False)
    rate_search, lines = search(FakeProber([5]), SERIES, peer)
    rate_search.stop()
    rate_search.run()
    assert any("5 users on 2 targets" in line for line in lines)
