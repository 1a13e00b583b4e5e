"""What a run looks like while it runs: fed once a second, asked by the live page. Knows neither Locust nor a clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capacity.measures import HardwareCombination, Series, Tally
from capacity.pricing import Catalogue, UnknownPrice, sequential_per_100k
from capacity.statistics import (
    BUCKET_COUNT,
    BUCKET_FLOORS_US,
    Check,
    Histogram,
    Slo,
    judge_slo,
    percentile_rank,
    samples_needed,
)
from loadgen.checks import check_lateness, check_unsent

#: What "the last seconds" are on the page, in ticks of one second.
WINDOW = 10
#: Points kept for the small charts; when they are full every second one goes, and the next ones stand for more.
POINTS = 240
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}

_Pool = tuple[HardwareCombination, str, bool]


@dataclass(frozen=True)
class _Tick:
    """What one second brought of one series: counts, and latency as its used buckets and their counts."""

    answered: int
    lost: int
    buckets: npt.NDArray[np.intp]
    counts: npt.NDArray[np.int64]
    greatest_us: float


class _Window:
    """The last seconds of one series, or of a pool of `members`, kept as sums so that a tick costs little."""

    def __init__(self, members: int = 1) -> None:
        self._kept: deque[_Tick] = deque()
        self._most = WINDOW * members
        self._members = members
        self.counts = np.zeros(BUCKET_COUNT, dtype=np.int64)
        self.answered = 0
        self.lost = 0

    @property
    def seconds(self) -> int:
        """How many it holds."""
        return len(self._kept) // self._members

    def add(self, tick: _Tick) -> None:
        self._kept.append(tick)
        self.counts[tick.buckets] += tick.counts
        self.answered += tick.answered
        self.lost += tick.lost
        if len(self._kept) > self._most:
            old = self._kept.popleft()
            self.counts[old.buckets] -= old.counts
            self.answered -= old.answered
            self.lost -= old.lost

    def percentiles_us(self) -> dict[str, float | None]:
        greatest_us = max((tick.greatest_us for tick in self._kept), default=0.0)
        return percentiles_us(self.counts, self.lost, 0.0, greatest_us)


@dataclass
class _Course:
    """One series: its last ticks, and its sums since measuring began. A Tally would hold six histograms each second."""

    window: _Window = field(default_factory=_Window)
    latency: Histogram = field(default_factory=Histogram)
    lateness: Histogram = field(default_factory=Histogram)
    service: Histogram = field(default_factory=Histogram)
    answered: int = 0
    unsent: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Failed and unsent: beyond every percentile."""
        return sum(self.errors.values()) + self.unsent

    def add(self, tally: Tally, closed: bool) -> _Tick:
        histograms = tally.histograms
        latency = histograms["latency"]
        if latency.count:
            self.latency.add(latency)
        # In a closed loop there is no lateness to judge.
        for mine, measure in () if closed else ((self.lateness, "lateness"), (self.service, "service")):
            if histograms[measure].count:
                mine.add(histograms[measure])
        self.answered += tally.answered
        self.unsent += tally.unsent
        for code, count in tally.errors.items():
            self.errors[code] = self.errors.get(code, 0) + count
        used = np.flatnonzero(latency.counts) if latency.count else np.empty(0, dtype=np.intp)
        lost, greatest_us = tally.failed + tally.unsent, latency.max_us or 0.0
        tick = _Tick(tally.answered, lost, used, latency.counts[used], greatest_us)
        self.window.add(tick)
        return tick


class _Points:
    """The course of one figure set over the whole run in at most POINTS points."""

    def __init__(self) -> None:
        self.kept: list[list[float | None]] = []
        self._stride = 1
        self._ticks = 0

    def add(self, point: list[float | None]) -> None:
        if self._ticks % self._stride == 0:
            self.kept.append(point)
            if len(self.kept) >= POINTS:
                self.kept = self.kept[::2]
                self._stride *= 2
        self._ticks += 1


class LiveView:
    """The page's data of the run that goes on, or of the last one. `begin`, then a `tick` a second, then `end`."""

    def __init__(self) -> None:
        self.directory: Path | None = None
        self._phase = "no run yet"
        self._reset([], Catalogue(), None, "closed")

    def _reset(self, series: Iterable[Series], catalogue: Catalogue, slo: Slo | None, arrivals: str) -> None:
        self._slo = slo
        self._arrivals = arrivals
        self._catalogue = catalogue
        self._courses = {one: _Course() for one in series}
        self._pools: dict[_Pool, list[Series]] = {}
        for one in self._courses:
            self._pools.setdefault((one.hardware, one.model, one.simulated), []).append(one)
        self._windows = {pool: _Window(len(members)) for pool, members in self._pools.items()}
        self._points = {pool: _Points() for pool in self._pools}
        self._in_flight: dict[Series, int] = {}
        self._told: list[Check] = []
        self._valid: bool | None = None
        self._seconds = 0.0
        self._answer: dict[str, Any] | None = None

    def begin(self, series: Iterable[Series], catalogue: Catalogue, slo: Slo | None, arrivals: str) -> None:
        """A run begins against these; `arrivals` as in --arrivals."""
        self.directory = None
        self._reset(series, catalogue, slo, arrivals)
        self._phase = "ramp-up and warm-up"

    def tick(
        self,
        gained: Mapping[Series, Tally],
        in_flight: Mapping[Series, int] | None = None,
        checks: Sequence[Check] = (),
        seconds: float = 1.0,
    ) -> None:
        """What the last `seconds` brought. `checks` are lights beside the page's own of lateness and unsent requests.

        Before measuring begins nothing is gained, and such ticks count for nothing.
        """
        self._answer = None
        self._in_flight = dict(in_flight or {})
        self._told = list(checks)
        if self._phase != "measuring":
            if not any(tally.due for tally in gained.values()):
                return
            self._phase = "measuring"
        self._seconds += seconds
        # Once: an empty tally is six histograms of 23,552 buckets.
        closed, nothing = self._arrivals == "closed", Tally()
        for pool, members in self._pools.items():
            ticks = [self._courses[series].add(gained.get(series, nothing), closed) for series in members]
            window = self._windows[pool]
            for tick in ticks:
                window.add(tick)
            figures = window.percentiles_us()
            rate = sum(tick.answered for tick in ticks) / seconds
            lost = sum(tick.lost for tick in ticks) / seconds
            point = [round(self._seconds, 1), round(rate, 2), figures["p50"], figures["p90"], figures["p99"], lost]
            self._points[pool].add(point)

    def end(self, directory: Path, checks: Sequence[Check], valid: bool) -> None:
        """The run is over, and its files are in `directory`."""
        self._answer = None
        self.directory = directory
        self._phase = "ended"
        self._in_flight = {}
        self._told = list(checks)
        self._valid = valid

    def state(self) -> dict[str, Any]:
        """The page's data: plain JSON types, times in µs. Made once a tick, and only where somebody asks."""
        if self._answer is None:
            self._answer = {
                "phase": self._phase,
                "seconds": round(self._seconds, 1),
                "arrivals": self._arrivals,
                "slo": str(self._slo) if self._slo else None,
                "bounds": [[f"p{p:g}".replace(".", ""), ns / 1000] for p, ns in self._slo.bounds] if self._slo else [],
                "valid": self._valid,
                "report": self.directory is not None,
                "needed": {name: samples_needed(p) for name, p in PERCENTILES.items()},
                "checks": [check.model_dump() for check in self._checks()],
                "rows": [self._row(pool, members) for pool, members in sorted(self._pools.items(), key=_order)],
            }
        return self._answer

    def _checks(self) -> list[Check]:
        """What was told; while the run goes on, also what the page can see for itself."""
        found = list(self._told)
        if self._phase != "measuring" or self._arrivals == "closed":
            return found
        lateness, service = Histogram(), Histogram()
        for course in self._courses.values():
            lateness.add(course.lateness)
            service.add(course.service)
        unsent = sum(course.unsent for course in self._courses.values())
        due = sum(course.answered + course.lost for course in self._courses.values())
        return merged(found, [check_lateness(lateness, service, self._slo), check_unsent(unsent, due)])

    def _row(self, pool: _Pool, members: list[Series]) -> dict[str, Any]:
        hardware, model, simulated = pool
        row = self._figures(members, self._windows[pool])
        price = self._catalogue.price(hardware)
        mean = row["mean_us"]
        known = None if isinstance(price, UnknownPrice) else price
        return {
            "name": hardware.name,
            "model": model,
            "simulated": simulated,
            **row,
            "cost": sequential_per_100k(known.per_hour, mean, hardware.count) if known and mean is not None else None,
            "currency": known.currency if known else "",
            "cost_note": price.reason if isinstance(price, UnknownPrice) else price.note,
            "meets": self._meets(members),
            "points": self._points[pool].kept,
            "ordinals": [
                {"name": series.target, **self._figures([series], self._courses[series].window)}
                for series in sorted(members, key=_worker)
            ],
        }

    def _meets(self, members: Sequence[Series]) -> bool | None:
        lost = sum(self._courses[series].lost for series in members)
        total = _sum([self._courses[series].latency for series in members])
        if not self._slo or not total.count + lost:
            return None
        return {"met": True, "missed": False}.get(judge_slo(self._slo, total, lost).status)

    def _figures(self, members: Sequence[Series], window: _Window) -> dict[str, Any]:
        courses = [self._courses[series] for series in members]
        total = _sum([course.latency for course in courses])
        late = _sum([course.lateness for course in courses])
        lost = sum(course.lost for course in courses)
        errors: dict[str, int] = {}
        for course in courses:
            for code, count in course.errors.items():
                errors[code] = errors.get(code, 0) + count
        flying = [self._in_flight[series] for series in members if series in self._in_flight]
        return {
            "rate": round(window.answered / window.seconds, 2) if window.seconds else None,
            "in_flight": sum(flying) if flying else None,
            "answered": sum(course.answered for course in courses),
            "errors": errors,
            "unsent": sum(course.unsent for course in courses),
            "mean_us": total.mean_us,
            "last": window.percentiles_us(),
            "last_samples": window.answered + window.lost,
            "run": percentiles_us(total.counts, lost, total.min_us or 0.0, total.max_us or 0.0),
            "run_samples": total.count + lost,
            "lateness_us": late.percentile_us(99),
        }


def merged(checks: Sequence[Check], fresh: Sequence[Check]) -> list[Check]:
    """The checks with fresher ones of the same name in their places, and the others of those after them."""
    newer = {check.name: check for check in fresh}
    known = [newer.pop(check.name, check) for check in checks]
    return [*known, *newer.values()]


def _sum(histograms: Sequence[Histogram]) -> Histogram:
    if len(histograms) == 1:
        return histograms[0]
    total = Histogram()
    for histogram in histograms:
        total.add(histogram)
    return total


def percentiles_us(
    counts: npt.NDArray[np.int64], lost: int, least_us: float, greatest_us: float
) -> dict[str, float | None]:
    """The page's percentiles of bucket counts with `lost` above them, by buckets' upper edges within the extremes.

    None where the sample is too small for one, or where its rank is among the lost.
    """
    used = np.flatnonzero(counts)
    cumulative = np.cumsum(counts[used])
    total = int(cumulative[-1]) + lost if used.size else lost
    found: dict[str, float | None] = {}
    for name, p in PERCENTILES.items():
        rank = percentile_rank(p, total)
        enough = total >= samples_needed(p) and used.size > 0 and rank <= cumulative[-1]
        edge = float(BUCKET_FLOORS_US[used[np.searchsorted(cumulative, rank)] + 1] - 1) if enough else None
        found[name] = None if edge is None else min(max(edge, least_us), greatest_us)
    return found


def _order(item: tuple[_Pool, list[Series]]) -> tuple[str, str]:
    return item[0][1], item[0][0].name


def _worker(series: Series) -> str:
    return series.target
