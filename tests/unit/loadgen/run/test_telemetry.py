"""Readings of generators: into telemetry.csv once for each host, and onto the live page as a check."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from capacity.measures import HardwareCombination, Series, Tally
from capacity.pricing import Catalogue
from capacity.rundir.telemetry import read_telemetry
from capacity.statistics import Slo
from loadgen.run import Interval
from loadgen.run._live_feed import LiveFeed
from loadgen.run._telemetry import TelemetryRecorder
from loadgen.web import LiveView

SERIES = Series(HardwareCombination("c5.large", ""), "gpt", "cpu:0 @ h:1", False)
OPTIONS: Any = SimpleNamespace(slo=Slo.parse("p90=15ms"), arrivals="closed", shape="")


def readings(busy: float) -> list[list[Any]]:
    """As they come from the network."""
    return [["generator", "me", "utilisation_percent", busy], ["cpu", "", "utilisation_percent", 40.0]]


def interval() -> Interval:
    tally = Tally(1, 1)
    tally.histograms["latency"].record_ns([1_000_000])
    return Interval({SERIES: tally}, {SERIES: 1})


def test_of_one_host_the_readings_of_one_generator_are_written(tmp_path: Path) -> None:
    recorder = TelemetryRecorder(tmp_path)
    for _ in range(2):
        for client, host in (("a_1", "a"), ("a_2", "a"), ("b_1", "b")):
            recorder.record(client, host, readings(95.0 if client == "a_2" else 10.0))
    assert recorder.busiest_share == 0.95
    recorder.close()
    rows = [(sample.host, sample.reading.device) for sample in read_telemetry(tmp_path)]
    assert sorted(rows) == 2 * [("a", "cpu")] + 4 * [("a", "generator")] + 2 * [("b", "cpu")] + 2 * [("b", "generator")]
    recorder.record("a_1", "a", readings(10.0))
    assert len(read_telemetry(tmp_path)) == len(rows), "what comes after the end is left out"


@pytest.mark.parametrize(
    "wrong", [[1], [["cpu", "", "x"]], [["cpu", 7, "x", 1.0]], [["cpu", "", "x" * 300, 1.0]], ["abcd"]]
)
def test_malformed_readings_are_refused(tmp_path: Path, wrong: list[Any]) -> None:
    recorder = TelemetryRecorder(tmp_path)
    with pytest.raises(ValueError, match=r"malformed telemetry|could not convert"):
        recorder.record("a", "a", wrong)
    recorder.close()
    assert read_telemetry(tmp_path) == []


def test_the_page_shows_the_busiest_generator() -> None:
    live = LiveView()
    live.begin([SERIES], Catalogue.load(), OPTIONS.slo, OPTIONS.arrivals)
    feed = LiveFeed(live, OPTIONS, lambda: None)
    feed.push(interval(), 0.95)
    (check,) = live.state()["checks"]
    assert (check["name"], check["value"], check["status"]) == ("generator processor", "95 %", "FAIL")
    assert live.state()["rows"][0]["answered"] == 1


def test_without_a_reading_there_is_no_check_of_the_processor() -> None:
    live = LiveView()
    live.begin([SERIES], Catalogue.load(), OPTIONS.slo, OPTIONS.arrivals)
    LiveFeed(live, OPTIONS, lambda: None).push(interval(), None)
    assert live.state()["checks"] == []
