"""A search drives real workers probe by probe: it counts every request, keeps each probe's histograms apart, and finds
what simulated hardware is known to be able to do.

INFERLOAD_SEARCH=full runs the whole searches against theory as well: minutes on a quiet machine.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tools.processes import served, wait_for

from capacity.measures import HISTOGRAMS
from capacity.rundir import Run, SearchResult

MEDIUM = ("--sim-host", "c5.large", "--sim-type", "eia2.medium")
LARGE = ("--sim-host", "c5.large", "--sim-type", "eia2.large")
HEADLESS = ("--headless", "--run-dir", "run")


def warm(run: Run) -> int:
    return sum(row.warmup.requests for row in run.file.rows)


def probed(curve: SearchResult) -> int:
    return sum(probe.requests for probe in curve.probes)


def check_identities(run: Run, *addresses: str) -> None:
    """Every request that the workers took in is in a probe or in the warm-up, and run.hlog has each probe's own."""
    assert sum(probed(curve) for curve in run.file.searches) + warm(run) == served(*addresses)
    for curve in run.file.searches:
        histograms = run.probe_histograms(curve)
        for probe in curve.probes:
            assert probe.due == probe.requests + probe.unsent
            assert probe.requests == probe.answered + sum(probe.errors.values())
            kept = histograms[probe.number]
            assert sum(kept[name].count for name in ("latency", "latency-error") if name in kept) == probe.requests
            assert set(kept) & set(HISTOGRAMS) >= ({"latency", "service", "compute"} if probe.answered else set())


def test_each_combination_is_searched_and_its_row_is_the_probe_at_the_passing_rate(
    serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path
) -> None:
    slow = serve("--accelerator", "sim:0", "--sim", "fixed:8ms", *MEDIUM)
    fast = serve("--accelerator", "sim:1", "--sim", "fixed:4ms", *LARGE)

    ended = locust(
        *(*HEADLESS, "--targets", f"{slow.address},{fast.address}", "-t", "20s"),
        *("--shape", "slo-search", "--slo", "p90=60ms"),
    )

    assert "search 1 of 2" in ended.err
    assert "probe 1, bracketing: " in ended.err
    run = Run.load(tmp_path / "run")
    check_identities(run, slow.address, fast.address)
    by_name = {curve.hardware: curve for curve in run.file.searches}
    assert set(by_name) == {"c5.large + eia2.medium", "c5.large + eia2.large"}
    for row in run.file.rows:
        curve = by_name[row.hardware]
        (shown,) = [probe for probe in curve.probes if probe.in_row]
        assert (row.due, row.answered, row.latency_us.mean) == (shown.due, shown.answered, shown.latency_us.mean)
        latency = run.histogram(row, "latency")
        assert latency is not None
        assert latency.count == row.answered
        assert row.slo_rate == curve.slo_rate
        # No queue gets through more than one request in each service time.
        most = 1000 / (8 if "medium" in row.hardware else 4)
        assert 0 < (curve.slo_rate.met_rps or 0) < most
        if curve.saturation.rps is not None and curve.saturation.interval is not None:
            assert curve.saturation.interval[0] <= most
            assert row.cost_per_100k.saturated == pytest.approx(
                (row.price_per_hour or 0) / 3600 / curve.saturation.rps * 1e5, abs=1e-8
            )
        assert row.cost_per_100k.at_slo is not None
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "<h2>Searches</h2>" in report
    assert report.count("offered requests a second") >= 2


def test_steps_of_several_generators_are_even_and_reach_saturation(
    serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path
) -> None:
    pool = [serve("--accelerator", f"sim:{number}", "--sim", "fixed:8ms", *MEDIUM) for number in range(2)]
    addresses = [worker.address for worker in pool]

    locust(*HEADLESS, "--targets", ",".join(addresses), "-t", "18s", "--processes", "2", "--shape", "steps")

    run = Run.load(tmp_path / "run")
    check_identities(run, *addresses)
    (curve,) = run.file.searches
    assert curve.saturation.rps is not None
    # Two queues of 8 ms each; a completion at either end of the window is chance.
    assert curve.saturation.rps < 250 * 1.1
    rates = np.array([probe.planned_rps for probe in curve.probes if probe.phase == "step"])
    assert rates.size >= 2
    assert np.diff(rates) == pytest.approx(rates[0], rel=1e-3)
    assert all(probe.verdict is None for probe in curve.probes)
    assert len(run.file.generators) == 2


def test_a_search_that_is_interrupted_keeps_what_it_found(
    serve: Callable[..., Any], start_locust: Callable[..., Any], tmp_path: Path
) -> None:
    worker = serve("--accelerator", "sim:0", "--sim", "fixed:5ms", *MEDIUM)
    process = start_locust(
        *(*HEADLESS, "--targets", worker.address, "--shape", "slo-search", "--slo", "p90=50ms", "--loglevel", "ERROR")
    )
    # The closed loop at the beginning gets through at most 300: what comes after it is the first probe's.
    wait_for(lambda: (tmp_path / "run" / "run.hlog").exists() and served(worker.address) > 450, 60)

    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)

    run = Run.load(tmp_path / "run")
    check_identities(run, worker.address)
    (curve,) = run.file.searches
    assert curve.stop_reason == "the run ended"
    assert curve.probes[-1].verdict == "inconclusive"
    assert "cut off" in curve.probes[-1].verdict_reasons[0]
    assert curve.slo_rate.confirmed is False


# -- the whole searches, by hand --------------------------------------------------------------------------------------


full = pytest.mark.skipif(os.environ.get("INFERLOAD_SEARCH") != "full", reason="minutes: INFERLOAD_SEARCH=full")


def lindley_rate(service_s: np.ndarray[Any, Any], over_s: float, bound_s: float, p: float) -> float:
    """The Poisson rate at which the p-th percentile of the sojourn in one queue is the bound, by simulation.

    Lindley's recursion: the wait of the next is max(0, wait + service - gap). The same uniforms at every rate.
    """
    gaps = np.random.default_rng(7).exponential(1.0, service_s.size)

    def beyond(rate: float) -> float:
        steps = np.concatenate([[0.0], np.cumsum(service_s[:-1] - gaps[1:] / rate)])
        waits = steps - np.minimum.accumulate(steps)
        return float(np.quantile(waits + service_s + over_s, p)) - bound_s

    low, high = 0.01 / service_s.mean(), 0.98 / service_s.mean()
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) > 0 else (middle, high)
    return float(low)


@full
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("how", "bound_ms"), [("fixed:10ms", 30), ("lognormal:10ms,0.5", 40)])
def test_two_searches_find_the_known_rate_within_five_percent_and_their_intervals_overlap(
    how: str, bound_ms: int, serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path
) -> None:
    worker = serve("--accelerator", "sim:0", "--sim", how, *MEDIUM)
    found = []
    # Other arrivals each time: with one seed the second search would see the first one's luck.
    for seed, name in enumerate(("a", "b")):
        locust(
            *("--headless", "--run-dir", name, "--targets", worker.address, "--seed", str(seed)),
            *("--shape", "slo-search", "--slo", f"p90={bound_ms}ms"),
            timeout=240,
        )
        (curve,) = Run.load(tmp_path / name).file.searches
        found.append(curve)
        (shown,) = [probe for probe in curve.probes if probe.in_row]
        # What a request takes of the worker is told by its throughput when it is full; what it takes beside that
        # by what is left of the mean latency.
        assert curve.saturation.rps is not None
        each_s = 1 / curve.saturation.rps
        compute, queue, latency = shown.compute_us.mean, shown.queue_us.mean, shown.latency_us.mean
        assert compute is not None
        assert queue is not None
        assert latency is not None
        over_s = max(latency / 1e6 - queue / 1e6 - each_s, 0.0)
        draws = np.random.default_rng(5)
        services = np.full(400_000, each_s)
        if how.startswith("lognormal"):
            sigma = np.sqrt(np.log(1 + 0.5**2))
            services = draws.lognormal(-(sigma**2) / 2, sigma, services.size) * 0.010 + each_s - 0.010
        known = lindley_rate(services, over_s, bound_ms / 1000, 0.9)
        print(name, how, "known", known, "found", curve.slo_rate, "each", each_s, "over", over_s)
        assert curve.slo_rate.estimate_rps == pytest.approx(known, rel=0.05)
    a, b = (curve.slo_rate.interval for curve in found)
    assert a is not None
    assert b is not None
    assert max(a[0], b[0]) <= min(a[1], b[1])
