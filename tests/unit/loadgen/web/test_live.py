"""The data of the live page: figures of the last ten seconds and of the run, by combination and by target."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from capacity.measures import HardwareCombination, Series, Tally
from capacity.pricing import Catalogue
from capacity.rundir import summarize_histogram
from capacity.statistics import Check, Slo
from loadgen.web._history import POINTS, WINDOW, percentiles_us
from loadgen.web._live_view import LiveView

HARDWARE = HardwareCombination("c5.large", "eia2.medium", 2)
FIRST, SECOND = (Series(HARDWARE, "gpt", f"sim:{n} @ 127.0.0.1:{n}", True) for n in (0, 1))
UNPRICED = Series(HardwareCombination("nowhere", "x1"), "gpt", "x:0 @ h:1", False)


def tally(values_ms: Sequence[float], errors: int = 0, unsent: int = 0, late_ms: float = 0.0) -> Tally:
    result = Tally(len(values_ms) + errors + unsent, len(values_ms), unsent, {"UNAVAILABLE": errors} if errors else {})
    ns = (np.asarray(values_ms) * 1e6).astype(np.int64)
    result.histograms["latency"].record_ns(ns)
    result.histograms["service"].record_ns(ns)
    result.histograms["lateness"].record_ns([int(late_ms * 1e6)] * len(values_ms))
    return result


def live_view(*series: Series, slo: str | None = "p90=15ms", arrivals: str = "poisson") -> LiveView:
    live = LiveView()
    live.begin(series, Catalogue.load(), Slo.parse(slo) if slo else None, arrivals)
    return live


def test_the_last_seconds_and_the_run_have_their_own_figures() -> None:
    live = live_view(FIRST)
    for _ in range(WINDOW):
        live.tick({FIRST: tally([10.0] * 40)})
    for _ in range(WINDOW):
        live.tick({FIRST: tally([20.0] * 10)})
    (row,) = live.state()["rows"]
    assert row["recent"]["p50"] == pytest.approx(20_000, rel=1e-3)
    assert row["run"]["p50"] == pytest.approx(10_000, rel=1e-3)
    assert (row["throughput"], row["recent_samples"], row["run_samples"], row["answered"]) == (10.0, 100, 500, 500)
    assert row["recent"]["p99"] is None, "100 samples carry no P99"
    assert row["run"]["p99"] == pytest.approx(20_000, rel=1e-3)
    assert live.state()["seconds"] == 2 * WINDOW


def test_at_the_end_the_page_says_what_run_json_says() -> None:
    generator = np.random.default_rng(1)
    live, total = live_view(FIRST, SECOND), Tally()
    for _ in range(30):
        parts = {series: tally(generator.lognormal(2, 0.3, 100), errors=1, unsent=1) for series in (FIRST, SECOND)}
        live.tick(parts)
        for part in parts.values():
            total.add(part)
    (row,) = live.state()["rows"]
    figures = summarize_histogram(total.histograms["latency"], total.failed + total.unsent)
    assert row["run"] == pytest.approx({name: getattr(figures, name) for name in row["run"]}, abs=1e-3)
    assert row["mean_us"] == pytest.approx(figures.mean)
    assert (row["answered"], row["errors"], row["unsent"]) == (6000, {"UNAVAILABLE": 60}, 60)
    assert [target["name"] for target in row["targets"]] == [FIRST.target, SECOND.target]
    assert [target["answered"] for target in row["targets"]] == [3000, 3000]
    # $0.205 for a host and an accelerator, here a second one at $0.12: price/3600 × mean / 2 × 100,000.
    assert row["cost"] == pytest.approx(0.325 / 3600 * figures.mean / 1e6 / 2 * 100_000)


def test_errors_are_beyond_every_percentile() -> None:
    live = live_view(FIRST)
    live.tick({FIRST: tally([10.0] * 80, errors=20)})
    (row,) = live.state()["rows"]
    assert row["recent"]["p50"] == pytest.approx(10_000, rel=1e-3)
    assert row["recent"]["p90"] is None
    assert row["run"]["p90"] is None
    assert row["verdict"] == "missed"


def test_ticks_before_measuring_count_for_nothing() -> None:
    live = live_view(FIRST, slo=None)
    assert live.state()["phase"] == "ramp-up and warm-up"
    for _ in range(5):
        live.tick({FIRST: Tally()}, in_flight={FIRST: 3})
    assert (live.state()["phase"], live.state()["seconds"]) == ("ramp-up and warm-up", 0.0)
    assert live.state()["rows"][0]["in_flight"] == 3
    live.tick({FIRST: tally([10.0] * 100)})
    assert (live.state()["phase"], live.state()["rows"][0]["throughput"]) == ("measuring", 100.0)


def test_checks_while_the_run_goes_on_and_those_of_run_json_at_its_end(tmp_path: Path) -> None:
    live = live_view(FIRST)
    check = Check(name="generator processor", value="99 %", threshold="75 %", status="FAIL")
    live.tick({FIRST: tally([10.0] * 100, unsent=50, late_ms=9.0)}, checks=[check])
    statuses = {check["name"]: check["status"] for check in live.state()["checks"]}
    assert statuses == {"generator processor": "FAIL", "lateness P99": "FAIL", "unsent requests": "FAIL"}
    live.end(tmp_path, [check], valid=False)
    state = live.state()
    assert [check["name"] for check in state["checks"]] == ["generator processor"]
    assert (state["phase"], state["valid"], state["report"]) == ("ended", False, True)
    live.begin([FIRST], Catalogue.load(), None, "closed")
    assert (live.state()["report"], live.state()["rows"][0]["answered"]) == (False, 0)


def test_a_combination_without_a_price_says_why() -> None:
    live = live_view(UNPRICED)
    live.tick({UNPRICED: tally([10.0] * 100)})
    (row,) = live.state()["rows"]
    assert row["cost"] is None
    assert "no price for the host 'nowhere'" in row["cost_note"]


def test_a_long_run_keeps_so_many_points_and_is_plain_json() -> None:
    live = live_view(FIRST)
    for _ in range(3 * POINTS):
        live.tick({FIRST: tally([10.0] * 30)})
    (row,) = live.state()["rows"]
    assert POINTS / 2 <= len(row["points"]) < POINTS
    assert row["points"][-1][0] > 2.9 * POINTS
    assert [point[1] for point in row["points"]] == [30.0] * len(row["points"])
    json.dumps(live.state(), allow_nan=False)
    json.dumps(LiveView().state(), allow_nan=False)


def test_the_pages_percentiles_are_the_histograms() -> None:
    sample = tally(np.random.default_rng(2).lognormal(1, 1, 5000))
    histogram = sample.histograms["latency"]
    percentiles = percentiles_us(histogram.counts, 100, histogram.min_us or 0.0, histogram.max_us or 0.0)
    for name, p in (("p50", 50), ("p90", 90), ("p99", 99), ("p999", 99.9)):
        assert percentiles[name] == (None if name in ("p99", "p999") else histogram.percentile_us(p, 100))
