"""The live page during a real run over two generators: its rows, its updates, and run.json's figures at the end."""

import json
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tools.processes import free_port, wait_for

pytestmark = pytest.mark.timeout(120)


def read_json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def up(url: str) -> bool:
    try:
        return bool(read_json(f"{url}/inferload/live.json"))
    except OSError:
        return False


def cell(page: Any, column: str) -> str:
    """What the first combination's sum says under a column."""
    return str(page.locator(f"section tr.sum td[data-name='{column}']").first.inner_text())


def test_the_page_follows_a_distributed_run_to_its_end(
    serve: Callable[..., Any], start_locust: Callable[..., Any], visit: Callable[..., Any], tmp_path: Path
) -> None:
    sim = ("--sim", "lognormal:8ms,0.2", "--sim-host", "c5.large", "--sim-type", "eia2.medium")
    workers = [serve("--accelerator", f"sim:{ordinal}", *sim) for ordinal in (0, 1)]
    port, web = free_port(), free_port()
    url = f"http://127.0.0.1:{web}"
    locust = start_locust(
        *("--processes", "2", "-u", "4", "--web-host", "127.0.0.1", "--web-port", str(web)),
        *("--master-bind-host", "127.0.0.1", "--master-bind-port", str(port), "--master-port", str(port)),
        *("--targets", ",".join(worker.address for worker in workers), "--run-dir", "run", "--slo", "p90=15ms"),
    )
    wait_for(lambda: up(url))
    opened = visit(f"{url}/inferload")
    page = opened.page
    page.get_by_text("No run yet. Start one").wait_for()
    form = "user_count=4&spawn_rate=4"
    wait_for(lambda: read_json(f"{url}/worker-count")["worker_count"] == 2)
    urllib.request.urlopen(f"{url}/swarm", data=form.encode(), timeout=30).close()

    page.get_by_role("heading", name="Measuring").wait_for()
    answered = cell(page, "Answered")
    page.wait_for_function(
        "before => document.querySelector('section tr.sum td[data-name=Answered]').textContent !== before", arg=answered
    )
    assert page.locator("section[data-hardware='c5.large + 2 × eia2.medium']").count() == 1
    assert page.locator("section tbody tr").count() == 3, "the pool and its two ordinals"
    page.wait_for_function("document.querySelector(\"section tr.sum td[data-name='P90, 10 s']\").textContent !== '–'")
    assert cell(page, "In flight") != "–"
    assert page.locator("section figure polyline").count() >= 3
    assert page.locator("#checks li").count() >= 1
    for width, scheme in ((400, "dark"), (1600, "light")):
        other = visit(f"{url}/inferload", width, scheme)
        other.page.locator("section tbody tr").first.wait_for()
        assert (other.errors, other.overflow) == ([], 0)

    tab = visit(f"{url}/?tab=inferload")
    tab.page.get_by_text("c5.large + 2 × eia2.medium").first.wait_for()
    assert tab.errors == []

    # Every check of run.json is on the page before the end, by the same name.
    page.get_by_text("independent samples").wait_for()
    checks = {check["name"] for check in read_json(f"{url}/inferload/live.json")["checks"]}

    urllib.request.urlopen(f"{url}/stop", data=b"", timeout=60).close()
    page.get_by_role("heading", name="Ended").wait_for()
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    assert checks == {check["name"] for check in document["checks"]}
    (row,) = document["rows"]
    (live,) = read_json(f"{url}/inferload/live.json")["rows"]
    assert (live["answered"], live["errors"], live["unsent"]) == (row["answered"], row["errors"], row["unsent"])
    figures = row["latency_us"]
    assert live["run"] == pytest.approx({name: figures[name] for name in live["run"]}, abs=1e-3)
    assert live["mean_us"] == pytest.approx(figures["mean"], abs=1e-3)
    assert live["cost"] == pytest.approx(row["cost_per_100k"]["sequential"], abs=1e-6)
    assert {target["name"]: target["answered"] for target in live["targets"]} == {
        target["target"]: target["answered"] for target in document["target_rows"]
    }
    page.get_by_role("link", name="report").click()
    page.get_by_role("heading", name="What run run measured").wait_for()
    assert opened.errors == []
    locust.send_signal(signal.SIGTERM)
    locust.communicate(timeout=60)
    telemetry = (tmp_path / "run" / "telemetry.csv").read_text().splitlines()
    devices = {line.split(",")[2] for line in telemetry[1:]}
    assert devices >= {"cpu", "generator", "worker"}
