"""A searched run's row is one probe, each probe can be read again, and its prices follow from what was found."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from capacity.measures import HardwareCombination, Series, Tally
from capacity.merging import merge_runs
from capacity.pricing import Catalogue, labeled_rows
from capacity.reporting import print_table, write_report
from capacity.reporting.charts.search_curve import describe_search, search_chart
from capacity.rundir import (
    IntervalLogWriter,
    Probe,
    Run,
    Saturation,
    SearchResult,
    SloRate,
    build_run_file,
    series_tag,
    summarize_histogram,
)
from capacity.statistics import Slo

POOL = HardwareCombination("c5.large", "eia2.medium", 2)
MEMBERS = [Series(POOL, "m", f"sim:{number} @ a:{number}", True) for number in range(2)]
RATES = {1: (40.0, 12.0, "met"), 2: (160.0, 300.0, "missed"), 3: (70.0, 29.0, "inconclusive"), 4: (60.0, 20.0, "met")}
FOUND = SloRate(met_rps=60.0, missed_rps=160.0, estimate_rps=72.0, interval=(66.0, 80.0), confirmed=True)


def tallies(number: int) -> dict[Series, Tally]:
    """Both workers' requests of a probe: half the rate each, for ten seconds."""
    rate, p90_ms, _verdict = RATES[number]
    made = {}
    for one in MEMBERS:
        count = int(rate * 5)
        tally = Tally(count, count)
        tally.histograms["latency"].record_ns((np.linspace(0.5, 1.05, count) * p90_ms * 1e6).astype(np.int64))
        made[one] = tally
    return made


def probe(number: int) -> Probe:
    rate, _p90, verdict = RATES[number]
    latency = tallies(number)[MEMBERS[0]].histograms["latency"].copy()
    latency.add(latency)
    count = latency.count
    figures = summarize_histogram(latency)
    return Probe(
        number=number,
        phase="confirm" if number == 4 else "bracket",
        planned_rps=rate,
        offered_rps=rate,
        throughput_rps=min(rate, 100.0),
        seconds=10.0,
        from_s=10.0 * number,
        to_s=10.0 * number + 10,
        due=count,
        requests=count,
        answered=count,
        latency_us=figures,
        slo_us=figures.p90,
        slo_interval=figures.p90_interval,
        verdict=verdict,  # type: ignore[arg-type]
        saturated=rate > 100,
        in_row=number == 4,
    )


def curve(**changes: Any) -> SearchResult:
    defaults: dict[str, Any] = {
        "hardware": POOL.name,
        "model": "m",
        "simulated": True,
        "shape": "slo-search",
        "slo": "p90=30ms",
        "probes": [probe(number) for number in RATES],
        "slo_rate": FOUND,
        "saturation": Saturation(rps=100.0, interval=(98.0, 102.0)),
        "stop_reason": "confirmed",
    }
    return SearchResult(**(defaults | changes))


def searched(directory: Path, result: SearchResult | None = None) -> Run:
    """A run directory of a search whose log has all four probes."""
    file = build_run_file(
        started=datetime(2026, 11, 24, tzinfo=UTC),
        options={"arrivals": "poisson", "shape": "slo-search"},
        conditions={},
        targets=[],
        tallies=tallies(4),
        warmups={},
        first_requests_ns={},
        duration_s=10.0,
        slo=Slo.parse("p90=30ms"),
        catalogue=Catalogue.load(),
        checks=[],
        generators=[],
        searches=[result or curve()],
    )
    file.save(directory)
    with IntervalLogWriter(directory / "run.hlog", 0.0) as writer:
        for number in RATES:
            for series, tally in tallies(number).items():
                writer.write(10.0 * number, 10, series_tag(series, "latency"), tally.histograms["latency"])
    return Run.load(directory)


def test_a_row_is_the_probe_that_is_marked_and_every_probe_can_be_read_again(tmp_path: Path) -> None:
    run = searched(tmp_path / "a")

    (row,) = run.file.rows
    shown = run.histogram(row, "latency")
    assert shown is not None
    assert shown.count == row.answered == 600
    (result,) = run.file.searches
    read = run.probe_histograms(result)
    assert {number: measures["latency"].count for number, measures in read.items()} == {
        1: 400,
        2: 1600,
        3: 700,
        4: 600,
    }
    assert run.measured_from_s == 40.0
    assert run.timeline is None


def test_prices_follow_from_the_rates_that_were_found(tmp_path: Path) -> None:
    (row,) = searched(tmp_path / "a").file.rows

    assert row.price_per_hour is not None
    second = row.price_per_hour / 3600
    cost = row.cost_per_100k
    assert cost.saturated == pytest.approx(second / 100 * 1e5, abs=1e-8)
    assert cost.saturated_interval == pytest.approx((second / 102 * 1e5, second / 98 * 1e5), abs=1e-8)
    assert cost.at_slo == pytest.approx(second / 60 * 1e5, abs=1e-8)
    # The rate that passed is one of those that the SLO may allow, wherever the fit crosses.
    assert cost.at_slo_interval == pytest.approx((second / 80 * 1e5, second / 60 * 1e5), abs=1e-8)
    assert cost.reasons == {}


def test_a_price_that_no_search_gave_says_what_would(tmp_path: Path) -> None:
    none = curve(slo_rate=SloRate(missed_rps=5.0), saturation=Saturation())
    (row,) = searched(tmp_path / "a", none).file.rows

    assert row.cost_per_100k.at_slo is None
    assert row.cost_per_100k.saturated is None
    assert "the lowest that missed it: 5 requests a second" in row.cost_per_100k.reasons["at_slo"]
    assert "--shape steps" in row.cost_per_100k.reasons["saturated"]

    near = curve(slo_rate=SloRate(missed_rps=5.0, estimate_rps=3.0, interval=(2.0, 4.0)))
    (row,) = searched(tmp_path / "b", near).file.rows
    assert "5 requests a second missed it, about 3 may meet it" in row.cost_per_100k.reasons["at_slo"]


def test_another_slo_than_the_searched_one_has_no_rate(tmp_path: Path) -> None:
    run = searched(tmp_path / "a")

    (entry,) = labeled_rows([run], slo=Slo.parse("p90=25ms"))

    assert entry.row.slo_rate == SloRate()
    assert entry.row.cost_per_100k.at_slo is None
    assert entry.row.cost_per_100k.reasons["at_slo"] == "the search was for p90=30ms"
    assert entry.row.cost_per_100k.saturated is not None


def test_searches_do_not_merge(tmp_path: Path) -> None:
    first, second = searched(tmp_path / "a"), searched(tmp_path / "b")
    other = second.file.model_copy(update={"started": datetime(2026, 11, 25, tzinfo=UTC)})

    with pytest.raises(ValueError, match="is a search"):
        merge_runs([first, Run(second.directory, other)], tmp_path / "both")


def test_the_sentence_says_each_rate_once_and_what_is_missing() -> None:
    output = describe_search(curve())
    assert output.startswith("60.0/s meets p90=30ms (confirmed by a fresh probe); 160.0/s does not; ")
    assert "72.0/s (95 % interval 66.0/s to 80.0/s)" in output
    assert output.endswith("saturated at 100.0/s (98.0/s to 102.0/s)")

    nothing = curve(slo_rate=SloRate(missed_rps=5.0), saturation=Saturation(), stop_reason="no time left")
    assert describe_search(nothing) == "no tested rate met p90=30ms; 5.00/s does not; stopped: no time left"


@pytest.mark.parametrize("width", [1176, 720, 364])
def test_the_picture_marks_every_probe_and_stays_in_its_frame(width: int) -> None:
    picture = search_chart(curve(), width)

    assert picture is not None
    root = ET.fromstring(picture.svg("curve", style=True))
    name = "{http://www.w3.org/2000/svg}"
    circles = root.findall(f"{name}circle")
    paths = [path.get("class") for path in root.findall(f"{name}path")]
    assert [circle.get("class") for circle in circles] == ["dot", "dot"]
    # Not told is a cross; 160/s is far overload, beyond the right edge or above the upper one.
    assert "cross" in paths
    assert all(0 <= float(circle.get("cx", "-1")) <= width for circle in circles)
    assert len(root.findall(f"{name}rect[@class='band']")) == 1
    assert search_chart(curve(probes=[probe(1)]), width) is None


def test_report_and_terminal_say_what_was_found(tmp_path: Path) -> None:
    run = searched(tmp_path / "a")
    console = Console(width=200, file=io.StringIO(), record=True)

    print_table([run], console)
    page = write_report([run], tmp_path / "a").read_text(encoding="utf-8")

    output = console.export_text()
    assert "60.0/s meets p90=30ms" in output
    assert "saturated" in output
    assert "at SLO" in output
    assert "<h2>Searches</h2>" in page
    assert page.count("in the table") == 1
    assert "72.0/s" in page
