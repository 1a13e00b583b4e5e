"""The last snapshot of each generator, and their sums. Snapshots are cumulative, so only the last one counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from capacity.measures import Series, Tally, sum_tallies
from capacity.rundir import series_tag
from loadgen.distributed._snapshot import Snapshot
from loadgen.generator import CumulativeTallies
from loadgen.measure import GeneratorHealth

MALFORMED = "malformed snapshots"
CONTRADICTING = "snapshots with less than the one before"
STALE = "snapshots of another run, or older than the last"


class SnapshotRefused(Exception):
    """A snapshot is not used; the text is the reason under which it is counted."""


class LatestSnapshots:
    """The snapshots of one run; `run` is its identifier and `series` are those of its targets."""

    def __init__(self, run: str, series: Iterable[Series]) -> None:
        self.run = run
        self.tags = {series_tag(one, "latency"): one for one in series}
        #: Increases with every snapshot.
        self.version = 0
        self._began = time.monotonic()
        self._snapshots: dict[str, Snapshot] = {}
        self._arrivals_s: dict[str, float] = {}
        self._health: dict[str, GeneratorHealth] = {}

    def accept(self, client: str, packed: object) -> Snapshot:
        """Takes a generator's snapshot from the network. Raises SnapshotRefused."""
        try:
            snapshot = Snapshot.unpack(packed, self.tags)
        except ValueError:
            raise SnapshotRefused(MALFORMED) from None
        before = self._snapshots.get(client)
        if snapshot.run != self.run or (before is not None and snapshot.sequence <= before.sequence):
            raise SnapshotRefused(STALE)
        if before is not None and not snapshot.follows(before):
            raise SnapshotRefused(CONTRADICTING)
        self.version += 1
        self._snapshots[client] = snapshot
        self._arrivals_s[client] = time.monotonic() - self._began
        if snapshot.health is not None:
            self._health[client] = snapshot.health
        return snapshot

    def clients(self) -> set[str]:
        """Generators of which there is a snapshot."""
        return set(self._snapshots)

    def of(self, clients: Iterable[str]) -> list[Snapshot]:
        """The snapshots of these generators, where there are any."""
        return [self._snapshots[client] for client in clients if client in self._snapshots]

    def is_final(self, client: str) -> bool:
        """Whether the generator has reported its end."""
        return client in self._snapshots and self._snapshots[client].final

    # -- sums -------------------------------------------------------------------------------------------------------

    def tallies(self) -> CumulativeTallies:
        """What all generators measured."""
        return CumulativeTallies(
            self._sum(lambda snapshot: snapshot.totals), self._sum(lambda snapshot: snapshot.warmups)
        )

    def _sum(self, part: Callable[[Snapshot], Mapping[Series, Any]]) -> dict[Series, Tally]:
        by_series: dict[Series, list[Any]] = {series: [] for series in self.tags.values()}
        for snapshot in self._snapshots.values():
            for series, tally in part(snapshot).items():
                by_series[series].append(tally)
        return {series: sum_tallies(tallies) for series, tallies in by_series.items()}

    def in_flight(self) -> dict[Series, int]:
        """Requests in flight now, by series."""
        numbers = dict.fromkeys(self.tags.values(), 0)
        for snapshot in self._snapshots.values():
            for series, number in snapshot.in_flight.items():
                numbers[series] += number
        return numbers

    def autocorrelation(self) -> dict[Series, float]:
        """The longest autocorrelation time of each series' latencies, in samples."""
        longest: dict[Series, float] = {}
        for snapshot in self._snapshots.values():
            for series, time_ in snapshot.autocorrelation_times.items():
                longest[series] = max(time_, longest.get(series, 1.0))
        return longest

    def first_requests_ns(self) -> dict[Series, int]:
        """The longest latency of a generator's first request, by series, in ns."""
        longest: dict[Series, int] = {}
        for snapshot in self._snapshots.values():
            for series, ns in snapshot.first_ns.items():
                longest[series] = max(ns, longest.get(series, 0))
        return longest

    def measured_s(self) -> float:
        """The longest measured part, in seconds."""
        return max((snapshot.measured_s for snapshot in self._snapshots.values()), default=0.0)

    def current_health(self) -> GeneratorHealth | None:
        """The sum of each generator's last record of its health while the run goes on; None where there is none."""
        return _added_health(self._health.values()) if self._health else None

    def final_health(self) -> GeneratorHealth:
        """The sum of the records in the last snapshots."""
        return _added_health(one.health for one in self._snapshots.values() if one.health is not None)

    def probe_health(self, number: int, clients: Iterable[str]) -> GeneratorHealth | None:
        """The sum of the records of one probe; None until all of these generators have ended it."""
        snapshots = self.of(clients)
        if not snapshots or any(snapshot.probe < number for snapshot in snapshots):
            return None
        return _added_health(one.health for one in snapshots if one.health is not None and one.probe == number)

    def row(self, client: str) -> dict[str, Any]:
        """What run.json says of a generator."""
        snapshot = self._snapshots.get(client)
        arrival_s = self._arrivals_s.get(client)
        return {
            "client": client,
            "host": snapshot.host if snapshot else "",
            "requests": sum(tally.requests for tally in snapshot.totals.values()) if snapshot else 0,
            "last_sequence": snapshot.sequence if snapshot else 0,
            "complete": bool(snapshot and snapshot.final),
            "last_s": None if arrival_s is None else round(arrival_s, 3),
            "offset_us": snapshot.offset_us if snapshot else None,
            "round_trip_us": snapshot.round_trip_us if snapshot else None,
        }


def _added_health(records: Iterable[GeneratorHealth]) -> GeneratorHealth:
    total = GeneratorHealth()
    for record in records:
        total.add(record)
    return total
