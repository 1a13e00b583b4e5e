"""Processes of a run that are killed: what is missing is named, and everything else is counted exactly."""

from __future__ import annotations

import signal

from tools.cluster import GENERATORS, Cluster, counted
from tools.processes import served, wait_for

from capacity.merging import find_generator_logs
from capacity.rundir import GeneratorLog


def journals(cluster: Cluster) -> dict[str, GeneratorLog]:
    found = [GeneratorLog.load(directory) for directory in find_generator_logs(cluster.folder / "runs")]
    return {journal.header.client: journal for journal in found}


def requests(journal: GeneratorLog) -> int:
    return sum(tally.requests for tally in journal.tallies().values())


def test_a_killed_generator_is_named_and_the_others_are_whole(cluster: Cluster) -> None:
    cluster.start("-t", "5s")
    cluster.under_way()
    wait_for(lambda: all(journal.entries for journal in journals(cluster).values()))
    cluster.generators[0].send_signal(signal.SIGKILL)
    assert cluster.wait() != 0

    document, logs = cluster.document(), journals(cluster)
    lost = [generator for generator in document["generators"] if not generator["complete"]]
    assert document["incomplete"]
    assert not document["valid"]
    assert len(document["generators"]) == len(logs) == GENERATORS
    assert [generator["client"] for generator in lost] == [c for c, log in logs.items() if log.end is None]
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

    gathered = cluster.gather()
    assert gathered["incomplete"]
    assert [g["client"] for g in gathered["generators"] if not g["complete"]] == [lost[0]["client"]]
    assert counted(document) <= counted(gathered) <= served(*cluster.targets)


def test_what_a_killed_master_knew_is_in_the_generators_own_logs(cluster: Cluster) -> None:
    cluster.start()
    cluster.under_way()
    assert cluster.master is not None
    cluster.master.send_signal(signal.SIGKILL)
    cluster.master.wait()
    # They go on for a minute, in case it comes back; and go through their own end when told to.
    before = served(*cluster.targets)
    wait_for(lambda: served(*cluster.targets) > before + 200)
    for generator in cluster.generators:
        generator.terminate()
    for generator in cluster.generators:
        generator.wait(60)

    assert not (cluster.folder / "run" / "run.json").exists()
    gathered = cluster.gather()
    assert counted(gathered) == served(*cluster.targets)
    assert not gathered["incomplete"]
    assert len(gathered["generators"]) == GENERATORS
