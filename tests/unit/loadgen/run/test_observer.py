"""What generators tell of their hosts: into telemetry.csv once for each host, and onto the page as a light."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from capacity.measures import HardwareCombination, Series, Tally
from capacity.pricing import Catalogue
from capacity.rundir.telemetry import read_telemetry
from capacity.statistics import Slo
from loadgen.run._observer import Onlooker

SERIES = Series(HardwareCombination("c5.large", ""), "gpt", "cpu:0 @ h:1", False)
OPTIONS: Any = SimpleNamespace(slo=Slo.parse("p90=15ms"), arrivals="closed")


def begun(directory: Path, shown: bool = True) -> Onlooker:
    onlooker = Onlooker(shown=shown)
    onlooker.begin(directory, [SERIES], Catalogue.load(), OPTIONS)
    return onlooker


def readings(busy: float) -> list[list[Any]]:
    """As they come from the network."""
    return [["generator", "me", "utilisation_percent", busy], ["cpu", "", "utilisation_percent", 40.0]]


def ended(onlooker: Onlooker, directory: Path) -> None:
    file: Any = SimpleNamespace(checks=[], valid=True)
    onlooker.end(directory, file)


def test_generators_of_one_host_tell_of_it_once(tmp_path: Path) -> None:
    onlooker = begun(tmp_path)
    for _ in range(2):
        for client, host in (("a_1", "a"), ("a_2", "a"), ("b_1", "b")):
            onlooker.hear(client, host, readings(95.0 if client == "a_2" else 10.0))
    tally = Tally(1, 1)
    tally.histograms["latency"].record_ns([1_000_000])
    onlooker.tick({SERIES: tally}, {SERIES: 1})
    (light,) = onlooker.live.state()["checks"]
    assert (light["name"], light["value"], light["status"]) == ("generator processor", "95 %", "FAIL")
    ended(onlooker, tmp_path)
    told = [(sample.host, sample.reading.device) for sample in read_telemetry(tmp_path)]
    assert sorted(told) == 2 * [("a", "cpu")] + 4 * [("a", "generator")] + 2 * [("b", "cpu")] + 2 * [("b", "generator")]
    onlooker.hear("a_1", "a", readings(10.0))
    assert len(read_telemetry(tmp_path)) == len(told), "what comes after the end is left out"


@pytest.mark.parametrize(
    "wrong", [[1], [["cpu", "", "x"]], [["cpu", 7, "x", 1.0]], [["cpu", "", "x" * 300, 1.0]], ["abcd"]]
)
def test_malformed_readings_are_refused(tmp_path: Path, wrong: list[Any]) -> None:
    onlooker = begun(tmp_path)
    with pytest.raises(ValueError, match=r"telemetry came malformed|could not convert"):
        onlooker.hear("a", "a", wrong)
    ended(onlooker, tmp_path)
    assert read_telemetry(tmp_path) == []


def test_without_a_page_nothing_is_kept_for_it(tmp_path: Path) -> None:
    onlooker = begun(tmp_path, shown=False)
    tally = Tally(1, 1)
    tally.histograms["latency"].record_ns([1_000_000])
    onlooker.tick({SERIES: tally}, {})
    assert onlooker.live.state()["rows"][0]["answered"] == 0
    ended(onlooker, tmp_path)
