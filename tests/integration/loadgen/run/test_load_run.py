"""`locust -f loadgen/` against real workers: what was sent is what is counted, whatever happens on the way."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from tools.processes import free_port, served, wait_for

from capacity.measures import OFFERED, UNSENT
from capacity.pricing import sequential_per_100k
from capacity.rundir import Run, parse_series_tag

SIM = ("--sim", "fixed:2ms", "--sim-host", "c5.large", "--sim-type", "eia2.medium")


def run_json(directory: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((directory / "run.json").read_text())
    return document


def assert_counts_hold(document: dict[str, Any]) -> None:
    for row in document["rows"] + document["target_rows"]:
        assert row["due"] == row["requests"] + row["unsent"]
        assert row["requests"] == row["answered"] + sum(row["errors"].values())
    for key in ("due", "requests", "answered", "unsent"):
        assert sum(row[key] for row in document["rows"]) == sum(row[key] for row in document["target_rows"])


def test_requests_are_split_over_targets_and_every_one_is_in_the_log(
    serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path
) -> None:
    first, second = serve("--accelerator", "sim:0", *SIM), serve("--accelerator", "sim:1", *SIM)

    ended = locust(
        *("--headless", "-u", "3", "--requests", "150", "--warmup", "200ms", "--slo", "p90=100ms"),
        *("--targets", f"{first.address},{second.address}", "--run-dir", "run"),
    )

    document = run_json(tmp_path / "run")
    assert_counts_hold(document)
    # A run on a busy machine may find itself not valid, and the exit code says so.
    assert ended.code == (0 if document["valid"] else 1), ended.err
    (row,) = document["rows"]
    assert row["hardware"] == "c5.large + 2 × eia2.medium"
    assert row["simulated"] is True
    assert (row["requests"], row["errors"], row["verdict"]) == (300, {}, "met")
    assert [ordinal["requests"] for ordinal in document["target_rows"]] == [150, 150]
    assert row["compute_us"]["p50"] == pytest.approx(2000, rel=0.2)
    # Warm-up and first requests are apart, and nothing was served that is not counted.
    assert row["warmup"]["requests"] >= 2
    assert served(first.address, second.address) == row["requests"] + row["warmup"]["requests"]
    for word in ("simulated", "c5.large + 2 × eia2.medium", "report.html"):
        assert word in ended.out
    assert (tmp_path / "run" / "report.html").stat().st_size > 1000

    # hdrhistogram's own reader finds the same counts.
    latencies = 0
    with closing(HistogramLogReader(str(tmp_path / "run" / "run.hlog"), HdrHistogram(1, 3_600_000_000, 3))) as reader:
        while (histogram := reader.get_next_interval_histogram()) is not None:
            if parse_series_tag(histogram.get_tag())[1] in ("latency", "latency-error"):
                latencies += histogram.get_total_count()
    assert latencies == row["requests"]


def test_the_log_and_the_summary_agree(serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path) -> None:
    worker = serve("--accelerator", "sim:0", "--sim", "lognormal:3ms,0.5")

    locust("--headless", "-u", "4", "--requests", "800", "--targets", worker.address, "--run-dir", "run")

    run = Run.load(tmp_path / "run")
    (row,) = run.file.rows
    histogram = run.histogram(row, "latency")
    assert histogram is not None
    assert histogram.count == row.answered == 800
    for name, percentile in (("p50", 50), ("p90", 90), ("p99", 99)):
        assert getattr(row.latency_us, name) == pytest.approx(histogram.percentile_us(percentile), rel=1e-3)
    assert row.latency_us.mean == pytest.approx(histogram.mean_us, rel=1e-6)


def test_the_articles_rows_are_reproduced_by_simulated_hardware(
    serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path
) -> None:
    """$0.06 and $0.08 per 100,000 at 10.03 and 8.77 ms, and c5.large + eia2.medium under P90 < 15 ms. The article timed
    the model call alone, so the worker's own clock is what reproduces its prices to the cent; what the generator felt
    has gRPC in it, and on a busy machine the neighbours."""
    medium = serve("--accelerator", "sim:0", "--sim", "fixed:10.03ms", *SIM[2:])
    large = serve(
        "--accelerator", "sim:1", "--sim", "fixed:8.77ms", "--sim-host", "c5.large", "--sim-type", "eia2.large"
    )

    ended = locust(
        *("--headless", "-u", "2", "--requests", "300", "--slo", "p90=15ms", "--run-dir", "run"),
        *("--targets", f"{medium.address},{large.address}"),
    )

    assert ended.code in (0, 1), ended.err
    rows = {row["hardware"]: row for row in run_json(tmp_path / "run")["rows"]}
    for hardware, article, cents in (("c5.large + eia2.medium", 0.0585, 0.06), ("c5.large + eia2.large", 0.0804, 0.08)):
        row = rows[hardware]
        assert row["simulated"] is True
        assert round(sequential_per_100k(row["price_per_hour"], row["compute_us"]["mean"]), 2) == cents
        felt = row["cost_per_100k"]["sequential"]
        assert felt == pytest.approx(sequential_per_100k(row["price_per_hour"], row["latency_us"]["mean"]))
        assert felt > article
    assert rows["c5.large + eia2.medium"]["latency_us"]["p50"] < 15_000
    assert ended.out.count("simulated") >= 2

    by_ordinal = subprocess.run(
        [sys.executable, "-m", "capacity", "report", str(tmp_path / "run"), "--by", "target"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    for worker in (medium, large):
        assert worker.address in by_ordinal.stdout


def test_a_target_that_is_down_counts_as_errors_and_the_run_goes_on(
    serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path
) -> None:
    up, down = serve("--accelerator", "sim:0", *SIM), f"127.0.0.1:{free_port()}"

    ended = locust("--headless", "-u", "2", "-t", "3s", "--targets", f"{up.address},{down}", "--run-dir", "run")

    assert ended.code == 1
    assert f"target {down} is down: UNAVAILABLE" in ended.err
    document = run_json(tmp_path / "run")
    assert_counts_hold(document)
    rows = {row["hardware"]: row for row in document["rows"]}
    assert rows["c5.large + eia2.medium"]["answered"] > 100
    assert rows["not described"]["answered"] == 0
    assert set(rows["not described"]["errors"]) == {"UNAVAILABLE"}


def test_a_worker_that_dies_in_the_run_is_counted_by_code(
    serve: Callable[..., Any], start_locust: Callable[..., Any], tmp_path: Path
) -> None:
    stays, dies = serve("--accelerator", "sim:0", *SIM), serve("--accelerator", "sim:1", *SIM)
    process = start_locust(
        *("--headless", "-u", "2", "-t", "5s", "--targets", f"{stays.address},{dies.address}", "--run-dir", "run")
    )
    wait_for(lambda: (tmp_path / "run" / "run.hlog").exists() and served(dies.address) > 50)

    dies.end(signal.SIGKILL)
    process.communicate(timeout=60)

    document = run_json(tmp_path / "run")
    assert_counts_hold(document)
    by_worker = {row["target"].split(" @ ")[1]: row for row in document["target_rows"]}
    assert by_worker[stays.address]["errors"] == {}
    assert by_worker[dies.address]["answered"] > 0
    assert set(by_worker[dies.address]["errors"]) == {"UNAVAILABLE"}
    # The other one went on until the end.
    assert by_worker[stays.address]["answered"] > by_worker[dies.address]["answered"]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_is_closed_like_any_other(
    serve: Callable[..., Any], start_locust: Callable[..., Any], tmp_path: Path, ending: signal.Signals
) -> None:
    worker = serve("--accelerator", "sim:0", *SIM)
    process = start_locust("--headless", "-u", "4", "--targets", worker.address, "--run-dir", "run")
    wait_for(lambda: (tmp_path / "run" / "run.hlog").exists() and served(worker.address) > 50)

    process.send_signal(ending)
    out, err = process.communicate(timeout=60)

    assert "Traceback" not in err
    assert "report.html" in out
    document = run_json(tmp_path / "run")
    assert_counts_hold(document)
    (row,) = document["rows"]
    # What was in flight was waited for: nothing is cut, and nothing is lost.
    assert row["errors"] == {}
    assert served(worker.address) == row["requests"] + row["warmup"]["requests"]


@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
def test_open_arrivals_offer_their_rate_whatever_the_target_does(
    serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path, arrivals: str
) -> None:
    worker = serve("--accelerator", "sim:0", *SIM)

    locust(
        *("--headless", "-u", "5", "--user-rate", "40", "--arrivals", arrivals, "-t", "5s", "--warmup", "500ms"),
        *("--targets", worker.address, "--run-dir", "run"),
    )

    document = run_json(tmp_path / "run")
    assert_counts_hold(document)
    (row,) = document["rows"]
    assert row["offered_rps"] == pytest.approx(200, rel=0.02 if arrivals == "constant" else 0.15)
    assert row["lateness_us"]["p50"] is not None
    assert served(worker.address) == row["requests"] + row["warmup"]["requests"]


def told_by(run: Run) -> str:
    """The only generator of a run."""
    (generator,) = run.file.generators
    return str(generator["client"])


def test_arrivals_beyond_the_bound_in_flight_are_unsent_and_counted(
    serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path
) -> None:
    worker = serve("--accelerator", "sim:0", "--sim", "fixed:50ms")

    locust(
        *("--headless", "-u", "1", "--user-rate", "100", "--arrivals", "constant", "-t", "4s", "--max-in-flight", "2"),
        *("--targets", worker.address, "--run-dir", "run"),
    )

    document = run_json(tmp_path / "run")
    assert_counts_hold(document)
    (row,) = document["rows"]
    assert row["unsent"] > row["answered"] > 20
    # The log says when that was: every second has its share of what was due, sent or not.
    run = Run.load(tmp_path / "run")
    due, unsent = (run.histogram(run.file.rows[0], measure) for measure in (OFFERED, UNSENT))
    assert due is not None
    assert unsent is not None
    assert (due.count, unsent.count) == (row["due"], row["unsent"])
    assert run.timeline is not None
    lines = run.timeline.statistics(run.members(run.file.rows[0]))
    assert lines.offered is not None
    assert (lines.unsent > 20).all()
    assert lines.offered == pytest.approx(lines.answered + lines.failed + lines.unsent, abs=8)
    # Meanwhile the worker told of its process, and one of them of their host.
    told = [one.reading[:3] for one in run.telemetry]
    assert told.count(("worker", "sim:0", "memory_bytes")) >= 2
    assert told.count(("cpu", "", "memory_bytes")) == told.count(("generator", told_by(run), "utilisation_percent"))
    assert row["offered_rps"] == pytest.approx(100, rel=0.03)


def test_two_processes_are_one_run(serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path) -> None:
    first, second = serve("--accelerator", "sim:0", *SIM), serve("--accelerator", "sim:1", *SIM)

    port = str(free_port())

    ended = locust(
        *("--headless", "--processes", "2", "-u", "4", "--requests", "201"),
        *("--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port),
        *("--targets", f"{first.address},{second.address}", "--run-dir", "run"),
    )

    document = run_json(tmp_path / "run")
    assert_counts_hold(document)
    # A run on a busy machine may find itself not valid, and the exit code says so.
    assert ended.code == (0 if document["valid"] else 1), ended.err
    assert [ordinal["requests"] for ordinal in document["target_rows"]] == [201, 201]
    assert [generator["complete"] for generator in document["generators"]] == [True, True]
    (row,) = document["rows"]
    assert served(first.address, second.address) == row["requests"] + row["warmup"]["requests"]


def test_the_web_ui_starts_and_stops_runs(
    serve: Callable[..., Any], start_locust: Callable[..., Any], tmp_path: Path
) -> None:
    worker, port = serve("--accelerator", "sim:0", *SIM), free_port()
    process = start_locust(
        *("--web-host", "127.0.0.1", "--web-port", str(port), "--targets", worker.address, "--run-dir", "run")
    )
    url = f"http://127.0.0.1:{port}"
    wait_for(lambda: answers(url))

    for number in (1, 2):
        directory = tmp_path / ("run" if number == 1 else "run-2")
        before = served(worker.address)
        started = requests.post(f"{url}/swarm", data={"user_count": "2", "spawn_rate": "2", "warmup": "0s"}, timeout=10)
        assert started.json()["success"] is True
        wait_for(lambda enough=before + 100: served(worker.address) > enough)
        assert requests.post(f"{url}/stop", timeout=30).ok
        wait_for((directory / "report.html").exists)

        (row,) = run_json(directory)["rows"]
        assert row["answered"] > 50
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--slo", "p90"), "--slo p90"),
        (("--requests", "none"), "--requests none: expected a whole number"),
        (("--targets", "nowhere"), "target nowhere: write HOST:PORT"),
        (("--targets", "@missing.json"), "targets file missing.json"),
        (("--targets", "127.0.0.1:1"), "no target answers: 127.0.0.1:1: UNAVAILABLE"),
        (("--catalogue", "missing.toml"), "no such file"),
    ],
)
def test_wrong_input_ends_in_one_line_and_exit_code_2(
    locust: Callable[..., Any], arguments: tuple[str, ...], sentence: str
) -> None:
    ended = locust("--headless", "-u", "1", "-t", "5s", "--loglevel", "WARNING", *arguments)

    assert ended.code == 2
    assert sentence in ended.err
    assert "Traceback" not in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_a_wrong_input_for_the_model_is_refused_before_any_load(
    serve: Callable[..., Any], locust: Callable[..., Any]
) -> None:
    worker = serve("--accelerator", "sim:0", *SIM)

    ended = locust(
        *("--headless", "-u", "1", "-t", "5s", "--targets", worker.address, "--input-shape", "nothing:1,7"),
        *("--loglevel", "WARNING"),
    )

    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "--input-shape nothing" in ended.err


def answers(url: str) -> bool:
    try:
        return bool(requests.get(url, timeout=1).ok)
    except requests.RequestException:
        return False


def test_without_any_target_a_fleet_is_started_and_ended(locust: Callable[..., Any], tmp_path: Path) -> None:
    ended = locust(
        *("--headless", "-t", "4s", "--run-dir", "run"),
        environment={"XDG_CACHE_HOME": str(tmp_path / "cache")},
        timeout=150,
    )

    assert "no targets given: starting an embedded fleet, ResNet-18 on every cpu ordinal" in ended.err
    document = run_json(tmp_path / "run")
    assert_counts_hold(document)
    (row,) = document["rows"]
    assert row["model"] == "resnet18"
    assert row["simulated"] is False
    assert row["answered"] > 0
    assert len(document["target_rows"]) == os.cpu_count()
    for worker in document["targets"]:
        host, port = worker["address"].split(":")
        with socket.socket() as one:
            assert one.connect_ex((host, int(port))) != 0, "a worker of the embedded fleet is still there"
