"""Many generators, one run: whatever ends it, what the targets served is what run.json counts."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from tools.cluster import GENERATORS, Cluster, counted
from tools.processes import served, wait_for

from capacity.rundir import Run

GENERATOR_MEASURES = ("latency", "service", "lateness", "latency-error")

#: A locustfile whose results take two seconds to be written, so that a signal can arrive meanwhile.
SLOW_WRITER = """
from pathlib import Path

import gevent

from loadgen import InferenceUser
from loadgen.run._writer import RunWriter


class Mine(InferenceUser):
    pass


def slow(*arguments, **options):
    Path("closing").touch()
    gevent.sleep(2)
    return close(*arguments, **options)


close, RunWriter.close = RunWriter.close, slow
"""

#: INFERLOAD_REPETITIONS=20 repeats the tests that depend on timing.
repeated = pytest.mark.parametrize("repetition", range(int(os.environ.get("INFERLOAD_REPETITIONS", "1"))))


def end_by_run_time(cluster: Cluster) -> None:
    cluster.start("-t", "3s")


def end_by_run_time_of_forks(cluster: Cluster) -> None:
    cluster.start_forking("-t", "3s")


def end_the_forks_by_ctrl_c(cluster: Cluster) -> None:
    """As at a terminal, where all processes of the command get the signal."""
    cluster.start_forking()
    cluster.wait_until_running()
    assert cluster.master is not None
    os.killpg(cluster.master.pid, signal.SIGINT)


def end_by_ctrl_c(cluster: Cluster) -> None:
    cluster.start()
    cluster.wait_until_running()
    assert cluster.master is not None
    cluster.master.send_signal(signal.SIGINT)


def end_by_sigterm_to_the_master(cluster: Cluster) -> None:
    cluster.start()
    cluster.wait_until_running()
    assert cluster.master is not None
    cluster.master.terminate()


def end_one_by_sigterm(cluster: Cluster) -> None:
    cluster.start("-t", "4s")
    cluster.wait_until_running()
    cluster.generators[0].terminate()


ENDINGS = [
    end_by_run_time,
    end_by_run_time_of_forks,
    end_the_forks_by_ctrl_c,
    end_by_ctrl_c,
    end_by_sigterm_to_the_master,
    end_one_by_sigterm,
]


@pytest.mark.parametrize("end", ENDINGS)
@repeated
def test_every_ending_counts_what_the_targets_served(
    cluster: Cluster, end: Callable[[Cluster], None], repetition: int
) -> None:
    end(cluster)
    cluster.wait()

    document = cluster.document()
    assert counted(document) == served(*cluster.targets)
    assert not document["incomplete"]
    assert [generator["complete"] for generator in document["generators"]] == [True] * GENERATORS
    assert sum(generator["requests"] for generator in document["generators"]) == sum(
        row["requests"] for row in document["rows"]
    )
    assert all(row["errors"] == {} for row in document["rows"])
    for generator in document["generators"]:
        # On one host all read the same clock, so an offset is all error, which half the way there and back bounds.
        assert abs(generator["offset_us"]) <= generator["round_trip_us"] / 2 + 0.001
    assert_same_run(cluster, document)


def assert_same_run(cluster: Cluster, document: dict[str, Any]) -> None:
    """The generators' own logs make the master's run: the same counts, and the same histograms bit for bit."""
    merged = cluster.merge()
    from_logs, from_master = (Run.load(cluster.folder / name).histograms for name in ("merged", "run"))
    assert {key for key in from_logs if key[1] in GENERATOR_MEASURES} == {
        key for key in from_master if key[1] in GENERATOR_MEASURES
    }
    assert from_logs
    for key, histogram in from_logs.items():
        assert histogram == from_master[key], key
    for target, expected in zip(merged["target_rows"], document["target_rows"], strict=True):
        for name in ("target", "due", "answered", "errors", "unsent", "warmup", "latency_us", "service_us"):
            assert target[name] == expected[name], name
    fields = ("client", "host", "requests", "last_sequence", "complete")
    assert [[g[name] for name in fields] for g in merged["generators"]] == [
        [g[name] for name in fields] for g in document["generators"]
    ]


@repeated
def test_the_page_ends_one_run_and_begins_another(cluster: Cluster, repetition: int) -> None:
    cluster.start_with_page()
    cluster.wait_until_running()
    cluster.page("/stop")
    wait_for(lambda: (cluster.folder / "run" / "run.json").exists())
    first = cluster.document()
    assert counted(first) == served(*cluster.targets)

    cluster.page("/swarm", b"user_count=8&spawn_rate=8")
    wait_for(lambda: served(*cluster.targets) > counted(first) + 200)
    cluster.page("/stop")
    wait_for(lambda: (cluster.folder / "run-2" / "run.json").exists())
    assert cluster.master is not None
    cluster.master.terminate()
    cluster.wait()

    second = cluster.document("run-2")
    assert counted(first) + counted(second) == served(*cluster.targets)
    assert not first["incomplete"]
    assert not second["incomplete"]
    assert {generator["client"] for generator in first["generators"]} == {
        generator["client"] for generator in second["generators"]
    }


def test_ctrl_c_while_the_last_generator_is_leaving_loses_nothing(cluster: Cluster) -> None:
    """Locust itself ends the run then; the interrupt must wait until the results are written."""
    cluster.locustfile = cluster.folder / "slow.py"
    cluster.locustfile.write_text(SLOW_WRITER)
    cluster.start(generators=1)
    cluster.wait_until_running()
    cluster.generators[0].terminate()
    wait_for((cluster.folder / "closing").exists, 60)
    assert cluster.master is not None
    cluster.master.send_signal(signal.SIGINT)
    cluster.wait()

    assert counted(cluster.document()) == served(*cluster.targets)
    assert (cluster.folder / "run" / "report.html").exists()
