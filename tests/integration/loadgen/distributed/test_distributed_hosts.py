"""A run over several hosts with two networks: a lost connection is reported, and no request counts twice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.cluster import SIM, Cluster, counted
from tools.hosts import Forbidden, Hosts, hosts
from tools.processes import wait_for

from capacity.rundir import Run

#: Longer than the three seconds after which Locust misses a worker. INFERLOAD_CUT_S=10 is the long version.
CUT_S = float(os.environ.get("INFERLOAD_CUT_S", "4"))
CONTROL, LOAD = "control", "load"
TARGET = "10.77.2.9"
NETWORKS = {
    CONTROL: {"master": "10.77.1.1", "left": "10.77.1.2", "right": "10.77.1.3"},
    LOAD: {"master": "10.77.2.1", "left": "10.77.2.2", "right": "10.77.2.3", "target": TARGET},
}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[Cluster, Hosts]]:
    try:
        with hosts(NETWORKS) as network:
            serve = [sys.executable, "-m", "worker", "serve", "--accelerator", "sim:0", *SIM, "--host", TARGET]
            worker = subprocess.Popen([*network.inside("target"), *serve], stdout=subprocess.PIPE, text=True)
            assert worker.stdout is not None
            cluster = Cluster(tmp_path, (), host=NETWORKS[CONTROL]["master"], inside=network.inside("master"))
            try:
                cluster.targets = (worker.stdout.readline().split()[1],)
                yield cluster, network
            finally:
                cluster.kill()
                worker.kill()
                worker.communicate()
    except Forbidden as error:
        pytest.skip(f"network namespaces cannot be made here: {error}")


def start(cluster: Cluster, network: Hosts) -> None:
    cluster.start_master("--headless", "-u", "4", "--expect-workers", "2", "--deadline", "1s")
    for name in ("left", "right"):
        cluster.add(network.inside(name))
    cluster.wait_until_running()


def has_logged(cluster: Cluster, text: str) -> bool:
    return text in (cluster.folder / "master.log").read_text()


def test_a_host_that_was_away_from_the_master_and_came_back_is_counted_once_and_whole(
    cluster: tuple[Cluster, Hosts],
) -> None:
    run, network = cluster
    start(run, network)
    network.cut("right", CONTROL)
    cut = time.monotonic()
    wait_for(lambda: has_logged(run, "setting state to missing") and time.monotonic() - cut >= CUT_S)
    network.mend("right", CONTROL)
    wait_for(lambda: has_logged(run, "self-healed"))
    assert run.master is not None
    run.master.terminate()
    run.wait()

    document = run.document()
    assert counted(document) == run.served()
    assert not document["incomplete"]
    assert [generator["complete"] for generator in document["generators"]] == [True, True]
    run.merge()
    from_logs, from_master = (Run.load(run.folder / name).histograms for name in ("merged", "run"))
    for key, histogram in from_logs.items():
        assert histogram == from_master[key], key


def test_a_host_that_is_cut_off_for_good_is_named_and_its_own_log_has_the_rest(cluster: tuple[Cluster, Hosts]) -> None:
    run, network = cluster
    start(run, network)
    for cable in (CONTROL, LOAD):
        network.cut("right", cable)
    wait_for(lambda: has_logged(run, "setting state to missing"))
    assert run.master is not None
    run.master.terminate()
    assert run.master.wait(60) != 0

    document = run.document()
    (lost,) = [generator for generator in document["generators"] if not generator["complete"]]
    assert document["incomplete"]
    assert not document["valid"]
    check = next(check for check in document["checks"] if check["name"] == "generators that reported their end")
    assert check["detail"] == f"missing: {lost['client']}"
    assert sum(generator["requests"] for generator in document["generators"]) == sum(
        row["requests"] for row in document["rows"]
    )

    # The host itself is well, and ends its part of the run when told to; its log has been on its own disk all the time.
    run.generators[1].terminate()
    for generator in run.generators:
        generator.wait(60)
    merged = run.merge()
    assert not merged["incomplete"]
    from_log = next(generator for generator in merged["generators"] if generator["client"] == lost["client"])
    assert from_log["last_sequence"] > lost["last_sequence"]
    # Of what was under way when the cable was cut, the target served some and nobody heard: a request, and no answer.
    answered = sum(row["answered"] + row["warmup"]["requests"] - row["warmup"]["errors"] for row in merged["rows"])
    assert answered <= run.served() <= counted(merged)
    assert sum(sum(row["errors"].values()) for row in merged["rows"]) > 0
