"""What a run looks like while it runs: fed once a second, asked by the live page. Knows neither Locust nor a clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capacity import validity
from capacity.confidence import Check, judge, samples_needed
from capacity.cost import sequential_per_100k
from capacity.hardware import Catalogue, HardwareCombination, Unknown
from capacity.histogram import Histogram, rank_of
from capacity.payload import FLOOR_US, LENGTH
from capacity.slo import Slo
from capacity.tally import Series, Tally

#: What "the last seconds" are on the page, in ticks of one second.
WINDOW = 10
#: Points kept for the small charts; when they are full every second one goes, and the next ones stand for more.
POINTS = 240
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}

_Pool = tuple[HardwareCombination, str, bool]


@dataclass
class _Tick:
    """What one second brought of one series: counts, and latency as its used buckets and their counts."""

    answered: int
    lost: int
    buckets: npt.NDArray[np.intp]
    counts: npt.NDArray[np.int64]
    greatest_us: float


@dataclass
class _Course:
    """One series: its last ticks, and its sums since measuring began. A Tally would hold six histograms each second."""

    last: deque[_Tick] = field(default_factory=lambda: deque(maxlen=WINDOW))
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

    def add(self, tally: Tally) -> None:
        histograms = tally.histograms
        for mine, measure in ((self.latency, "latency"), (self.lateness, "lateness"), (self.service, "service")):
            if histograms[measure].count:
                mine.add(histograms[measure])
        self.answered += tally.answered
        self.unsent += tally.unsent
        for code, count in tally.errors.items():
            self.errors[code] = self.errors.get(code, 0) + count
        latency = histograms["latency"]
        used = np.flatnonzero(latency.counts) if latency.count else np.empty(0, dtype=np.intp)
        self.last.append(
            _Tick(tally.answered, tally.failed + tally.unsent, used, latency.counts[used], latency.max_us or 0.0)
        )


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


class Live:
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
        self._points: dict[_Pool, _Points] = {}
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
        for series, course in self._courses.items():
            course.add(gained.get(series, Tally()))
        for pool, members in self._pools().items():
            courses = [self._courses[series] for series in members]
            last = _last(courses)
            figures = percentiles_us(last.latency, last.lost, last.greatest_us)
            rate = sum(course.last[-1].answered for course in courses) / seconds
            lost = sum(course.last[-1].lost for course in courses) / seconds
            points = self._points.setdefault(pool, _Points())
            points.add([round(self._seconds, 1), round(rate, 2), figures["p50"], figures["p90"], figures["p99"], lost])

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
                "rows": [self._row(pool, members) for pool, members in sorted(self._pools().items(), key=_order)],
            }
        return self._answer

    def _pools(self) -> dict[_Pool, list[Series]]:
        pools: dict[_Pool, list[Series]] = {}
        for series in self._courses:
            pools.setdefault((series.hardware, series.model, series.simulated), []).append(series)
        return pools

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
        return [*found, validity.lateness(lateness, service, self._slo), validity.unsent(unsent, due)]

    def _row(self, pool: _Pool, members: list[Series]) -> dict[str, Any]:
        hardware, model, simulated = pool
        row = self._figures(members)
        price = self._catalogue.price(hardware)
        mean = row["mean_us"]
        known = None if isinstance(price, Unknown) else price
        points = self._points.get(pool)
        return {
            "name": hardware.name,
            "model": model,
            "simulated": simulated,
            **row,
            "cost": sequential_per_100k(known.per_hour, mean, hardware.count) if known and mean is not None else None,
            "currency": known.currency if known else "",
            "cost_note": price.reason if isinstance(price, Unknown) else price.note,
            "points": points.kept if points else [],
            "ordinals": [{"name": series.worker, **self._figures([series])} for series in sorted(members, key=_worker)],
        }

    def _figures(self, members: Sequence[Series]) -> dict[str, Any]:
        courses = [self._courses[series] for series in members]
        last = _last(courses)
        total = Histogram()
        late = Histogram()
        for course in courses:
            total.add(course.latency)
            late.add(course.lateness)
        lost = sum(course.lost for course in courses)
        errors: dict[str, int] = {}
        for course in courses:
            for code, count in course.errors.items():
                errors[code] = errors.get(code, 0) + count
        flying = [self._in_flight[series] for series in members if series in self._in_flight]
        window = max((len(course.last) for course in courses), default=0)
        counted = total.count + lost
        return {
            "rate": round(last.answered / window, 2) if window else None,
            "in_flight": sum(flying) if flying else None,
            "answered": sum(course.answered for course in courses),
            "errors": errors,
            "unsent": sum(course.unsent for course in courses),
            "mean_us": total.mean_us,
            "last": percentiles_us(last.latency, last.lost, last.greatest_us),
            "last_samples": last.answered + last.lost,
            "run": {
                name: total.percentile_us(p, lost) if counted >= samples_needed(p) else None
                for name, p in PERCENTILES.items()
            },
            "run_samples": counted,
            "lateness_us": late.percentile_us(99),
            "meets": judge(self._slo, total, lost).meets if self._slo and counted else None,
        }


@dataclass
class _Last:
    """The last seconds of some series together."""

    latency: npt.NDArray[np.int64]
    answered: int
    lost: int
    greatest_us: float


def _last(courses: Sequence[_Course]) -> _Last:
    ticks = [tick for course in courses for tick in course.last]
    counts = np.zeros(LENGTH, dtype=np.int64)
    for tick in ticks:
        counts[tick.buckets] += tick.counts
    return _Last(
        counts,
        sum(tick.answered for tick in ticks),
        sum(tick.lost for tick in ticks),
        max((t.greatest_us for t in ticks), default=0.0),
    )


def percentiles_us(counts: npt.NDArray[np.int64], lost: int, greatest_us: float) -> dict[str, float | None]:
    """The page's percentiles of bucket counts with `lost` above them, by buckets' upper edges or the greatest value.

    None where the sample is too small for one, or where its rank is among the lost.
    """
    used = np.flatnonzero(counts)
    cumulative = np.cumsum(counts[used])
    total = int(cumulative[-1]) + lost if used.size else lost
    found: dict[str, float | None] = {}
    for name, p in PERCENTILES.items():
        rank = rank_of(p, total)
        enough = total >= samples_needed(p) and used.size > 0 and rank <= cumulative[-1]
        edge = float(FLOOR_US[used[np.searchsorted(cumulative, rank)] + 1] - 1) if enough else None
        found[name] = None if edge is None else min(edge, greatest_us)
    return found


def _order(item: tuple[_Pool, list[Series]]) -> tuple[str, str]:
    return item[0][1], item[0][0].name


def _worker(series: Series) -> str:
    return series.worker
