"""The state of the live page: values are pushed once a second, and the page asks for all of it. No Locust, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from capacity.measures import HardwareCombination, Series, Tally
from capacity.pricing import Catalogue, UnknownPrice, sequential_per_100k
from capacity.statistics import Check, Histogram, Slo, judge_slo, samples_needed
from loadgen.checks import check_lateness, check_unsent
from loadgen.web._history import (
    PERCENTILES,
    ChartPoints,
    RecentWindow,
    SeriesHistory,
    add_histograms,
    percentiles_us,
)

#: Hardware, model, and whether it is simulated: one row of the page.
_Pool = tuple[HardwareCombination, str, bool]


class LiveView:
    """The page's data of the run that goes on, or of the last one: `begin`, then a `tick` each second, then `end`.

    `directory` is the run directory of a run that has ended, else None.
    """

    def __init__(self) -> None:
        self.directory: Path | None = None
        self._phase = "no run yet"
        self._reset([], Catalogue(), None, "closed")

    def _reset(self, series: Iterable[Series], catalogue: Catalogue, slo: Slo | None, arrivals: str) -> None:
        self._slo = slo
        self._arrivals = arrivals
        self._catalogue = catalogue
        self._histories = {one: SeriesHistory() for one in series}
        self._pools: dict[_Pool, list[Series]] = {}
        for one in self._histories:
            self._pools.setdefault((one.hardware, one.model, one.simulated), []).append(one)
        self._windows = {pool: RecentWindow(len(members)) for pool, members in self._pools.items()}
        self._charts = {pool: ChartPoints() for pool in self._pools}
        self._in_flight: dict[Series, int] = {}
        self._run_checks: list[Check] = []
        self._valid: bool | None = None
        self._seconds = 0.0
        self._state: dict[str, Any] | None = None

    def begin(self, series: Iterable[Series], catalogue: Catalogue, slo: Slo | None, arrivals: str) -> None:
        """Begins a run against these series. `arrivals` is the value of --arrivals."""
        self.directory = None
        self._reset(series, catalogue, slo, arrivals)
        self._phase = "ramp-up and warm-up"

    def tick(
        self,
        interval: Mapping[Series, Tally],
        in_flight: Mapping[Series, int] | None = None,
        checks: Sequence[Check] = (),
        seconds: float = 1.0,
    ) -> None:
        """Takes what was measured in the last `seconds`, and the checks of the run so far.

        Nothing is measured before the warm-up is over: such ticks do not count.
        """
        self._state = None
        self._in_flight = dict(in_flight or {})
        self._run_checks = list(checks)
        if self._phase != "measuring":
            if not any(tally.due for tally in interval.values()):
                return
            self._phase = "measuring"
        self._seconds += seconds
        # Made once: an empty tally is six histograms of 23,552 buckets.
        closed, empty = self._arrivals == "closed", Tally()
        for pool, members in self._pools.items():
            ticks = [self._histories[series].add(interval.get(series, empty), closed) for series in members]
            window = self._windows[pool]
            for tick in ticks:
                window.add(tick)
            percentiles = window.percentiles_us()
            throughput = round(sum(tick.answered for tick in ticks) / seconds, 2)
            failed = sum(tick.failed for tick in ticks) / seconds
            latencies = [percentiles["p50"], percentiles["p90"], percentiles["p99"]]
            self._charts[pool].add([round(self._seconds, 1), throughput, *latencies, failed])

    def end(self, directory: Path, checks: Sequence[Check], valid: bool) -> None:
        """Ends the run: its files are in `directory`, and `checks` and `valid` are those of its run.json."""
        self._state = None
        self.directory = directory
        self._phase = "ended"
        self._in_flight = {}
        self._run_checks = list(checks)
        self._valid = valid

    def state(self) -> dict[str, Any]:
        """The page's data: plain JSON types, times in µs. Made once a tick, and only where somebody asks."""
        if self._state is None:
            self._state = {
                "phase": self._phase,
                "seconds": round(self._seconds, 1),
                "arrivals": self._arrivals,
                "slo": str(self._slo) if self._slo else None,
                "bounds": [[f"p{p:g}".replace(".", ""), ns / 1000] for p, ns in self._slo.bounds] if self._slo else [],
                "valid": self._valid,
                "report": self.directory is not None,
                "samples_needed": {name: samples_needed(p) for name, p in PERCENTILES.items()},
                "checks": [check.model_dump() for check in self._checks()],
                "rows": [self._row(pool, members) for pool, members in sorted(self._pools.items(), key=_row_order)],
            }
        return self._state

    def _checks(self) -> list[Check]:
        """The checks of the run; while it goes on, with those that the page can compute each second."""
        if self._phase != "measuring" or self._arrivals == "closed":
            return self._run_checks
        histories = self._histories.values()
        lateness, service = Histogram(), Histogram()
        for history in histories:
            lateness.add(history.lateness)
            service.add(history.service)
        unsent = sum(history.unsent for history in histories)
        due = sum(history.answered + history.failed for history in histories)
        return merge_checks(self._run_checks, [check_lateness(lateness, service, self._slo), check_unsent(unsent, due)])

    def _row(self, pool: _Pool, members: list[Series]) -> dict[str, Any]:
        hardware, model, simulated = pool
        figures = self._figures(members, self._windows[pool])
        price = self._catalogue.price(hardware)
        mean_us = figures["mean_us"]
        if isinstance(price, UnknownPrice):
            cost, currency, note = None, "", price.reason
        else:
            cost = None if mean_us is None else sequential_per_100k(price.per_hour, mean_us, hardware.count)
            currency, note = price.currency, price.note
        return {
            "name": hardware.name,
            "model": model,
            "simulated": simulated,
            **figures,
            "cost": cost,
            "currency": currency,
            "cost_note": note,
            "verdict": self._verdict(members),
            "points": self._charts[pool].points,
            "targets": [
                {"name": series.target, **self._figures([series], self._histories[series].recent)}
                for series in sorted(members, key=lambda series: series.target)
            ],
        }

    def _verdict(self, members: Sequence[Series]) -> str | None:
        """met, missed or inconclusive; None without an SLO or results."""
        failed = sum(self._histories[series].failed for series in members)
        latency = add_histograms([self._histories[series].latency for series in members])
        if self._slo is None or not latency.count + failed:
            return None
        return judge_slo(self._slo, latency, failed).status

    def _figures(self, members: Sequence[Series], recent: RecentWindow) -> dict[str, Any]:
        histories = [self._histories[series] for series in members]
        latency = add_histograms([history.latency for history in histories])
        lateness = add_histograms([history.lateness for history in histories])
        failed = sum(history.failed for history in histories)
        errors: dict[str, int] = {}
        for history in histories:
            for code, count in history.errors.items():
                errors[code] = errors.get(code, 0) + count
        in_flight = [self._in_flight[series] for series in members if series in self._in_flight]
        return {
            "throughput": round(recent.answered / recent.seconds, 2) if recent.seconds else None,
            "in_flight": sum(in_flight) if in_flight else None,
            "answered": sum(history.answered for history in histories),
            "errors": errors,
            "unsent": sum(history.unsent for history in histories),
            "mean_us": latency.mean_us,
            "recent": recent.percentiles_us(),
            "recent_samples": recent.answered + recent.failed,
            "run": percentiles_us(latency.counts, failed, latency.min_us or 0.0, latency.max_us or 0.0),
            "run_samples": latency.count + failed,
            "lateness_us": lateness.percentile_us(99),
        }


def merge_checks(checks: Sequence[Check], newer: Sequence[Check]) -> list[Check]:
    """The checks, with newer ones of the same name in their places and the other newer ones after them."""
    by_name = {check.name: check for check in newer}
    replaced = [by_name.pop(check.name, check) for check in checks]
    return [*replaced, *by_name.values()]


def _row_order(item: tuple[_Pool, list[Series]]) -> tuple[str, str]:
    return item[0][1], item[0][0].name
