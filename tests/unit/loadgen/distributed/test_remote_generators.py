"""The master adds up the last snapshot of each generator, waits for all of them, and counts what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from capacity.measures import HardwareCombination, Series, Tally
from loadgen._errors import SendError
from loadgen.distributed._latest_snapshots import CONTRADICTING, MALFORMED, STALE, LatestSnapshots, SnapshotRefused
from loadgen.distributed._links import DRAIN, EXHAUSTED, PROBE, SNAPSHOT
from loadgen.distributed._remote_generators import RemoteGenerators, RemoteProber
from loadgen.distributed._snapshot import pack
from loadgen.generator import ProbeOrder, pools_of
from loadgen.measure import GeneratorHealth
from loadgen.run import RunCallbacks

ONE = Series(HardwareCombination.parse("box + cpu-1c"), "gpt", "cpu:0 @ a:1", False)


def tally_of(count: int) -> Tally:
    tally = Tally(count, count)
    for name in ("latency", "service", "lateness"):
        tally.histograms[name].record_ns([1_000_000] * count)
    return tally


def packed(count: int = 1, **changed: Any) -> bytes:
    fields: dict[str, Any] = {
        "totals": {ONE: tally_of(count)},
        "warmups": {ONE: Tally()},
        "first_ns": {ONE: 7},
        "autocorrelation_times": {ONE: 1.5},
        "in_flight": {ONE: 2},
        "health": None,
        "run": "r",
        "sequence": 1,
        "final": False,
        "host": "h",
        "measured_s": 2.5,
        "readings": [],
        "offset_us": -1.5,
        "round_trip_us": 4.0,
        "probe": 0,
        "sources": [2],
    }
    return pack(**{**fields, **changed})


class FakeLink:
    """Stands for the master's connection to two generators, a and b."""

    def __init__(self) -> None:
        self.present = {"a": True, "b": True}
        self.sent: list[tuple[str, Any]] = []
        self.handlers: dict[str, Callable[[str, Any], None]] = {}
        self.unreachable: set[str] = set()

    def clients(self) -> dict[str, bool]:
        return dict(self.present)

    def send(self, message: str, data: Any, client: str | None = None) -> None:
        if client in self.unreachable:
            raise SendError("the socket is closed")
        self.sent.append((message, data))

    def receive(self, message: str, handler: Callable[[str, Any], None]) -> None:
        self.handlers[message] = handler

    def publish_plan(self, plan: Mapping[str, Any] | None) -> None:
        pass


def callbacks(flushed: list[str], on_exhausted: Callable[[], None] = lambda: None) -> RunCallbacks:
    return RunCallbacks(lambda: flushed.append("flush"), lambda client, host, readings: None, on_exhausted)


def test_the_last_snapshots_of_all_generators_add_up() -> None:
    snapshots = LatestSnapshots("r", [ONE])
    snapshots.accept("a", packed(3))
    snapshots.accept("a", packed(5, sequence=2, measured_s=3.0))
    snapshots.accept("b", packed(4, autocorrelation_times={ONE: 7.0}, first_ns={ONE: 9}))
    assert snapshots.tallies().totals[ONE].answered == 9
    assert snapshots.in_flight() == {ONE: 4}
    assert snapshots.autocorrelation() == {ONE: 7.0}
    assert snapshots.first_requests_ns() == {ONE: 9}
    assert snapshots.measured_s() == 3.0
    assert [snapshots.row(client)["requests"] for client in ("a", "b", "c")] == [5, 4, 0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"nothing", MALFORMED),
        (packed(5, run="another", sequence=9), STALE),
        (packed(5, sequence=1), STALE),
        (packed(2, sequence=2), CONTRADICTING),
    ],
)
def test_what_cannot_follow_is_refused_and_changes_nothing(data: bytes, reason: str) -> None:
    snapshots = LatestSnapshots("r", [ONE])
    snapshots.accept("a", packed(3))
    with pytest.raises(SnapshotRefused, match=reason):
        snapshots.accept("a", data)
    assert snapshots.tallies().totals[ONE].answered == 3
    assert snapshots.version == 1


def remote(link: FakeLink, on_exhausted: Callable[[], None] = lambda: None) -> tuple[RemoteGenerators, Any]:
    validator: Any = SimpleNamespace(refused={MALFORMED: 0}, size_limit=0)
    control: Any = SimpleNamespace(has_page=False)
    generators = RemoteGenerators(control, link, validator)
    generators._snapshots = LatestSnapshots("r", [ONE])
    generators._clients = ["a", "b"]
    generators._options = SimpleNamespace(deadline_ns=0)  # type: ignore[assignment]
    generators._callbacks = callbacks([], on_exhausted)
    generators._prober = SimpleNamespace(interrupt=lambda: None)  # type: ignore[assignment]
    generators.begin({})
    return generators, validator


def test_draining_waits_for_the_last_snapshot_of_each_generator() -> None:
    link = FakeLink()
    generators, _ = remote(link)
    drained = gevent.spawn(generators.drain)
    gevent.sleep(0.01)
    link.handlers[SNAPSHOT]("a", packed(3, final=True, health=GeneratorHealth()))
    gevent.sleep(0.01)
    assert not drained.ready()
    link.handlers[SNAPSHOT]("b", packed(4, final=True, health=GeneratorHealth()))
    drained.join(5)
    assert drained.ready()
    assert generators.collect().tallies[ONE].answered == 7
    totals = generators.totals()
    assert [generator["complete"] for generator in totals.generators] == [True, True]
    link.handlers[SNAPSHOT]("a", packed(9, sequence=2))
    assert generators.collect().tallies[ONE].answered == 0, "what arrives later is of no run"


def test_a_generator_that_cannot_be_reached_does_not_end_the_draining(capsys: pytest.CaptureFixture[str]) -> None:
    link = FakeLink()
    link.unreachable = {"a"}
    generators, _ = remote(link)
    drained = gevent.spawn(generators.drain)
    gevent.sleep(0.01)
    assert link.sent == [(DRAIN, {"run": "r"})], "b is told"
    for client in ("a", "b"):
        link.handlers[SNAPSHOT](client, packed(3, final=True, health=GeneratorHealth()))
    drained.get(timeout=5)
    assert "generator a could not be told to drain: the socket is closed" in capsys.readouterr().err


def test_refused_snapshots_are_counted_by_reason() -> None:
    link = FakeLink()
    generators, validator = remote(link)
    link.handlers[SNAPSHOT]("a", b"nothing")
    assert validator.refused[MALFORMED] == 1
    assert generators.totals().refused == {MALFORMED: 1}
    assert validator.refused == {}


def test_the_run_is_exhausted_when_every_present_generator_is() -> None:
    link, ends = FakeLink(), []
    generators, _ = remote(link, lambda: ends.append("end"))
    link.handlers[EXHAUSTED]("a", {"run": "another"})
    link.handlers[EXHAUSTED]("a", {"run": "r"})
    generators.collect()
    assert ends == []
    link.present["b"] = False
    generators.collect()
    assert ends == ["end"]


def test_a_probe_ends_when_all_generators_have_ended_it() -> None:
    link, flushed = FakeLink(), []
    snapshots = LatestSnapshots("r", [ONE])
    options: Any = SimpleNamespace(deadline_ns=0)
    prober = RemoteProber(link, snapshots, options, pools_of([ONE]), list, callbacks(flushed))
    snapshots.accept("a", packed(1))
    snapshots.accept("b", packed(1))
    assert prober.source_counts() == [4]
    looks: list[int] = []

    def stop_when(progress: Any) -> bool:
        looks.append(progress.due)
        return True

    running = gevent.spawn(prober.run_probe, ProbeOrder(1, 0, 5.0, 60_000_000_000), stop_when)
    gevent.sleep(0.05)
    snapshots.accept("a", packed(4, sequence=2, probe=1, health=GeneratorHealth()))
    gevent.sleep(0.05)
    assert looks == [3]
    assert [data.get("stop") for message, data in link.sent if message == PROBE] == [None, 1]
    assert not running.ready()
    snapshots.accept("b", packed(3, sequence=2, probe=1, health=GeneratorHealth()))
    result = running.get(timeout=5)
    assert result.complete
    assert result.tallies[ONE].answered == 5
    assert flushed == ["flush"]


def test_the_end_of_the_run_ends_a_probe_that_nobody_reported() -> None:
    link = FakeLink()
    snapshots = LatestSnapshots("r", [ONE])
    options: Any = SimpleNamespace(deadline_ns=0)
    prober = RemoteProber(link, snapshots, options, pools_of([ONE]), list, callbacks([]))
    snapshots.accept("a", packed(1))
    running = gevent.spawn(prober.run_probe, ProbeOrder(1, 0, 5.0, 60_000_000_000))
    gevent.sleep(0.05)
    prober.interrupt()
    assert running.get(timeout=5).complete is False
