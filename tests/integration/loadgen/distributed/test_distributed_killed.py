"""Processes of a run that are killed: what is missing is named, and everything else is counted exactly."""

from __future__ import annotations

import signal

from tools.cluster import GENERATORS, Cluster, counted
from tools.processes import served, wait_for

from capacity.merging import find_generator_logs
from capacity.rundir import GeneratorLog


def generator_logs(cluster: Cluster) -> dict[str, GeneratorLog]:
    logs = [GeneratorLog.load(directory) for directory in find_generator_logs(cluster.folder / "runs")]
    return {log.header.client: log for log in logs}


def requests(log: GeneratorLog) -> int:
    return sum(tally.requests for tally in log.tallies().values())


def test_a_killed_generator_is_named_and_the_others_are_whole(cluster: Cluster) -> None:
    cluster.start("-t", "5s")
    cluster.wait_until_running()
    wait_for(lambda: all(log.entries for log in generator_logs(cluster).values()))
    cluster.generators[0].send_signal(signal.SIGKILL)
    assert cluster.wait() != 0

    document, logs = cluster.document(), generator_logs(cluster)
    lost = [generator for generator in document["generators"] if not generator["complete"]]
    assert document["incomplete"]
    assert not document["valid"]
    assert len(document["generators"]) == len(logs) == GENERATORS
    assert [generator["client"] for generator in lost] == [client for client, log in logs.items() if log.end is None]
    check = next(c for c in document["checks"] if c["name"] == "generators that reported their end")
    assert lost[0]["client"] in check["detail"]
    # Of each second its log has one entry and the master one snapshot; at most the last is in only one of them.
    own = logs[lost[0]["client"]].last
    assert own is not None
    assert own.sequence - 1 <= lost[0]["last_sequence"] <= own.sequence
    assert lost[0]["last_s"] > 0
    for generator in document["generators"]:
        if generator["complete"]:
            assert generator["requests"] == requests(logs[generator["client"]])
    assert sum(generator["requests"] for generator in document["generators"]) == sum(
        row["requests"] for row in document["rows"]
    )

    merged = cluster.merge()
    assert merged["incomplete"]
    assert [g["client"] for g in merged["generators"] if not g["complete"]] == [lost[0]["client"]]
    assert counted(document) <= counted(merged) <= served(*cluster.targets)


def test_the_logs_of_the_generators_replace_a_killed_master(cluster: Cluster) -> None:
    cluster.start()
    cluster.wait_until_running()
    assert cluster.master is not None
    cluster.master.send_signal(signal.SIGKILL)
    cluster.master.wait()
    # Generators go on for a minute, since the master may return; SIGTERM ends their part of the run in order.
    before = served(*cluster.targets)
    wait_for(lambda: served(*cluster.targets) > before + 200)
    for generator in cluster.generators:
        generator.terminate()
    for generator in cluster.generators:
        generator.wait(60)

    assert not (cluster.folder / "run" / "run.json").exists()
    merged = cluster.merge()
    assert counted(merged) == served(*cluster.targets)
    assert not merged["incomplete"]
    assert len(merged["generators"]) == GENERATORS
