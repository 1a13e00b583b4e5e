"""Generators in other processes, as the master sees them: orders to all of them, and the sums of their snapshots."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gevent
from gevent.event import Event

from capacity.measures import Series, Tally
from loadgen._errors import SendError
from loadgen._options import Options
from loadgen.distributed._latest_snapshots import LatestSnapshots, SnapshotRefused
from loadgen.distributed._links import DRAIN, EXHAUSTED, PROBE, SNAPSHOT, START, MasterLink
from loadgen.distributed._validator import SIZE_LIMIT, MessageValidator
from loadgen.generator import (
    DRAIN_GRACE_S,
    CumulativeTallies,
    LoadSession,
    Pool,
    ProbeOrder,
    ProbeProgress,
    ProbeResult,
    StopCondition,
    pools_of,
    request_shapes,
)
from loadgen.measure import GeneratorHealth, RunTotals, tally_difference
from loadgen.run import Interval, RunCallbacks, RunControl, print_line
from loadgen.targets import Target

#: What the master adds to the deadline before it gives a generator up at the end of a run. A generator whose heartbeats
#: are missing has this time alone.
DRAIN_TIMEOUT_S = 5.0
#: How far ahead schedules and measuring begin: longer than a message takes.
AHEAD_NS = 200_000_000
#: The size limit of messages grows by this for each series of the run.
_SERIES_BYTES = 256 << 10
#: What generators may take beyond the deadline to report the end of a probe.
_PROBE_END_S = 8.0
_POLL_S = 0.02


class RemoteGenerators:
    """Implements Generators with Locust's workers. The last snapshot of each generator is what a run is made of."""

    session: LoadSession | None = None

    def __init__(self, control: RunControl, link: MasterLink, validator: MessageValidator) -> None:
        self._control = control
        self._link = link
        self._validator = validator
        self._snapshots = LatestSnapshots("", ())
        self._options: Options | None = None
        self._targets: Sequence[Target] = ()
        self._callbacks: RunCallbacks | None = None
        self._clients: list[str] = []
        self._exhausted: set[str] = set()
        self._collected: Mapping[Series, Tally] = {}
        self._open = False
        self._snapshot_arrived = Event()
        self._prober: RemoteProber | None = None
        link.receive(SNAPSHOT, self._handle_snapshot)
        link.receive(EXHAUSTED, self._handle_exhausted)

    @property
    def prober(self) -> RemoteProber:
        """Runs probes on all generators."""
        assert self._prober is not None
        return self._prober

    # -- course of the run ------------------------------------------------------------------------------------------

    def prepare(self, options: Options, targets: Sequence[Target], callbacks: RunCallbacks) -> dict[str, str]:
        """Checks what the generators will send, and notes which generators take part."""
        self._options, self._targets, self._callbacks = options, targets, callbacks
        shapes = request_shapes(options, targets)
        series = [target.series for target in targets]
        self._snapshots = LatestSnapshots(uuid.uuid4().hex, series)
        self._clients = sorted(self._link.clients())
        self._exhausted = set()
        self._collected = {}
        self._validator.size_limit = SIZE_LIMIT + _SERIES_BYTES * len(self._snapshots.tags)
        self._prober = RemoteProber(self._link, self._snapshots, options, pools_of(series), self._statuses, callbacks)
        return shapes

    def begin(self, description: dict[str, Any]) -> None:
        """Publishes the plan: generators begin when Locust spawns their users."""
        run, clients = self._snapshots.run, self._clients
        self._open = True
        self._link.publish_plan(
            {
                "run": run,
                "clients": clients,
                "begins_ns": time.monotonic_ns() + AHEAD_NS,
                "shown": self._control.has_page,
                "targets": [target.to_wire() for target in self._targets],
                "plan": {**description, "run": run, "clients": clients, "tags": list(self._snapshots.tags)},
            }
        )

    def start_measuring(self) -> float:
        """Agrees with the generators on when measuring begins."""
        assert self._options is not None
        ahead_ns = AHEAD_NS + self._options.warmup_ns
        at_ns = time.monotonic_ns() + ahead_ns
        self._link.send(START, {"run": self._snapshots.run, "measuring_ns": at_ns, "ahead_ns": ahead_ns})
        return ahead_ns / 1e9

    def collect(self) -> Interval:
        """Ends an interval, of what snapshots brought since the last one."""
        totals = self._snapshots.tallies().totals
        tallies = {
            series: tally_difference(tally, self._collected.get(series, Tally())) for series, tally in totals.items()
        }
        self._collected = totals
        self._report_if_exhausted()
        return Interval(tallies, self._snapshots.in_flight())

    def tallies(self) -> CumulativeTallies:
        """The sums of the last snapshots."""
        return self._snapshots.tallies()

    def autocorrelation(self) -> Mapping[Series, float]:
        """The longest of all generators."""
        return self._snapshots.autocorrelation()

    def drain(self) -> None:
        """Has all generators drain, and blocks until each has sent its last snapshot or is given up."""
        assert self._options is not None
        for client in self._link.clients():
            try:
                self._link.send(DRAIN, {"run": self._snapshots.run}, client)
            except SendError as error:
                # Locust's own "stop" follows and drains it too; what it does not report is marked in run.json.
                print_line(f"warning: generator {client} could not be told to drain: {error}")
        now = time.monotonic()
        limit_of_missing = now + DRAIN_TIMEOUT_S
        limit = limit_of_missing + self._options.deadline_ns / 1e9 + DRAIN_GRACE_S
        while (now := time.monotonic()) < limit and self._awaited(with_missing=now < limit_of_missing):
            self._snapshot_arrived.clear()
            self._snapshot_arrived.wait(min(limit - now, 1.0))
        self.prober.interrupt()

    def _awaited(self, *, with_missing: bool) -> bool:
        """Whether a generator has yet to send its last snapshot; with or without those whose heartbeats are missing."""
        clients = {client for client, present in self._link.clients().items() if with_missing or present}
        return any(client in clients and not self._snapshots.is_final(client) for client in self._clients)

    def close(self) -> None:
        """Does nothing: generators end by themselves."""

    def totals(self) -> RunTotals:
        """The sums of the last snapshots. What arrives later is of no run."""
        self._open = False
        clients = sorted({*self._clients, *self._snapshots.clients()})
        totals = self._totals(self._snapshots.final_health(), [self._snapshots.row(client) for client in clients])
        # What is refused between two runs is reported with the next one.
        self._validator.refused.clear()
        return totals

    def current_totals(self) -> RunTotals | None:
        """The state of the run that goes on; None before the measured part."""
        health = self._snapshots.current_health()
        return None if health is None else self._totals(health, self._statuses())

    def _totals(self, health: GeneratorHealth, generators: Sequence[Mapping[str, Any]]) -> RunTotals:
        snapshots = self._snapshots
        return RunTotals(
            self._collected,
            snapshots.tallies().warmups,
            snapshots.first_requests_ns(),
            snapshots.measured_s(),
            generators,
            health,
            dict(self._validator.refused),
        )

    def _statuses(self) -> list[dict[str, Any]]:
        """Which generators take part, and whether each is present."""
        present = self._link.clients()
        return [{"client": client, "complete": present.get(client, False)} for client in self._clients]

    # -- messages ---------------------------------------------------------------------------------------------------

    def _handle_snapshot(self, client: str, data: Any) -> None:
        if not self._open:
            return
        assert self._callbacks is not None
        try:
            snapshot = self._snapshots.accept(client, data)
        except SnapshotRefused as refusal:
            self._validator.refused[str(refusal)] += 1
            return
        self._callbacks.record_readings(client, snapshot.host, snapshot.readings)
        self._snapshot_arrived.set()

    def _handle_exhausted(self, client: str, data: Any) -> None:
        if data == {"run": self._snapshots.run}:
            self._exhausted.add(client)
            self._report_if_exhausted()

    def _report_if_exhausted(self) -> None:
        """Reports when every generator has sent its share; one that is missing sends nothing any more."""
        present = {client for client, is_present in self._link.clients().items() if is_present}
        if self._exhausted and self._exhausted >= present.intersection(self._clients):
            assert self._callbacks is not None
            self._exhausted = set()
            self._callbacks.on_exhausted()


class RemoteProber:
    """Implements Prober: orders a probe from all generators, and adds up their results."""

    def __init__(
        self,
        link: MasterLink,
        snapshots: LatestSnapshots,
        options: Options,
        pools: Sequence[Pool],
        statuses: Callable[[], list[dict[str, Any]]],
        callbacks: RunCallbacks,
    ) -> None:
        self._link = link
        self._snapshots = snapshots
        self._deadline_s = options.deadline_ns / 1e9
        self._pools = list(pools)
        self._statuses = statuses
        self._callbacks = callbacks
        self._interrupted = False

    def source_counts(self) -> list[int]:
        """The sums over all generators, by pool."""
        counts = [snapshot.sources for snapshot in self._snapshots.of(self._snapshots.clients())]
        return [sum(of_pool) for of_pool in zip(*counts, strict=True)] if counts and all(counts) else []

    def run_probe(self, order: ProbeOrder, stop_when: StopCondition | None = None) -> ProbeResult:
        """Runs one probe, as described in Prober."""
        before = self._snapshots.tallies().of_pool(self._pools[order.pool])
        begins_ns = time.monotonic_ns() + AHEAD_NS
        wire = {**vars(order), "begins_ns": begins_ns}
        self._link.send(PROBE, {"run": self._snapshots.run, "order": wire, "ahead_ns": AHEAD_NS})
        health = self._await_end(order, before, stop_when)
        self._callbacks.flush()
        progress = ProbeProgress(before, self._snapshots.tallies(), dict)
        return ProbeResult(
            progress.tallies(), progress.warmups(), health or GeneratorHealth(), self._statuses(), health is not None
        )

    def _await_end(
        self, order: ProbeOrder, before: CumulativeTallies, stop_when: StopCondition | None
    ) -> GeneratorHealth | None:
        """Blocks until all generators have ended the probe. Returns the sum of their records, None if they did not."""
        version = self._snapshots.version
        limit = time.monotonic() + order.length_ns / 1e9 + self._deadline_s + _PROBE_END_S
        while True:
            health = self._snapshots.probe_health(order.number, self._present())
            if health is not None or self._interrupted or time.monotonic() >= limit:
                return health
            gevent.sleep(_POLL_S)
            if stop_when is None or self._snapshots.version == version:
                continue
            version = self._snapshots.version
            if stop_when(ProbeProgress(before, self._snapshots.tallies(), self._snapshots.autocorrelation)):
                self._link.send(PROBE, {"run": self._snapshots.run, "stop": order.number})
                stop_when = None

    def _present(self) -> list[str]:
        return [client for client, present in self._link.clients().items() if present]

    def interrupt(self) -> None:
        """Waits no longer for a probe that goes on: the run has ended."""
        self._interrupted = True
