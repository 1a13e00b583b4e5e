"""A target that is down gets no requests until it is back; with --retries a refused request is sent again."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.processes import served, wait_for

SIM = ("--sim", "fixed:5ms")


def counts_hold(document: dict[str, Any]) -> None:
    for row in document["rows"] + document["target_rows"]:
        assert row["due"] == row["requests"] + row["unsent"]
        assert row["requests"] == row["answered"] + sum(row["errors"].values())


def test_a_target_that_is_killed_is_routed_around_and_taken_back(
    serve: Callable[..., Any], start_locust: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    first, second = (serve("--accelerator", f"sim:{n}", *SIM) for n in range(2))
    load = start_locust(
        *("--headless", "-u", "10", "--user-rate", "10", "--arrivals", "constant", "--router", "least-outstanding"),
        *("--targets", f"{first.address},{second.address}", "--run-dir", "run"),
    )
    wait_for(lambda: served(first.address) > 30)

    first.process.kill()
    first.process.wait()
    there = served(second.address)
    again = serve("--accelerator", "sim:0", *SIM, "--port", first.address.rpartition(":")[2])
    wait_for(lambda: served(again.address) > 30)
    assert served(second.address) > there
    load.send_signal(signal.SIGTERM)
    load.communicate(timeout=30)

    document = json.loads((tmp_path / "run" / "run.json").read_text())
    counts_hold(document)
    (row,) = document["rows"]
    events = [(event["target"].rpartition(" @ ")[2], event["state"]) for event in document["events"]]
    assert [event for event in events if event[0] == first.address][:2] == [
        (first.address, "down"),
        (first.address, "up"),
    ]
    # Half of all requests for a second and more, had they gone on being sent there.
    assert sum(row["errors"].values()) < 20
    assert "Targets down and up" in (tmp_path / "run" / "report.html").read_text()


def test_a_refused_request_is_sent_once_more_where_that_is_asked_for_and_stays_one_request(
    serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path
) -> None:
    worker = serve("--accelerator", "sim:0", "--sim", "fixed:10ms", "--max-queue-size", "2")
    locust(
        *("--headless", "-u", "6", "--requests", "120", "--retries", "30", "--targets", worker.address),
        *("--run-dir", "run"),
    )

    document = json.loads((tmp_path / "run" / "run.json").read_text())
    counts_hold(document)
    (row,) = document["rows"]
    assert row["requests"] == 120
    assert row["retries"] > 0
    assert row["retries"] > sum(row["errors"].values())
    assert served(worker.address) == row["requests"] + row["warmup"]["requests"] + row["retries"]
    assert document["conditions"]["retries"].startswith("at most 30")


def test_only_the_transport_that_knows_what_was_run_can_send_it_once_more(locust: Callable[..., Any]) -> None:
    ended = locust(
        "--headless", "-u", "1", "-t", "1s", "--targets", "127.0.0.1:9", "--retries", "1", "--transport", "grpcio"
    )
    assert ended.code == 2
    assert [line for line in ended.err.splitlines() if "--retries: expected --transport wire" in line]
