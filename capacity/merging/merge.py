"""Merging complete runs into one: histograms and counts are added, and every check is included.

Runs of one combination at different times add samples to its row. Runs of it at the same time, with different targets,
were one larger pool.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from capacity.errors import InputError
from capacity.measures import HardwareCombination, Series, Tally
from capacity.pricing import Catalogue
from capacity.rundir import (
    HLOG_NAME,
    JSON_NAME,
    Interval,
    IntervalLogWriter,
    Row,
    Run,
    RunFile,
    TargetInfo,
    build_run_file,
    parse_series_tag,
    read_interval_log,
    series_tag,
)
from capacity.statistics import Histogram, Slo

_Pool = tuple[HardwareCombination, str, bool]


def merge_runs(runs: Sequence[Run], directory: Path, catalogue: Catalogue | None = None) -> RunFile:
    """Writes the merged run into a new directory, with the prices of the runs, or those of `catalogue`.

    InputError for runs that do not belong together or are incomplete, and where the directory holds a run already.
    """
    _check_mergeable(runs, directory)
    pools = _pools(runs)
    merged_pools = {
        pool: _merged_hardware(pool, [(runs[index], row) for index, row in rows.items()])
        for pool, rows in pools.items()
    }
    started = min(run.file.started for run in runs)
    slo = runs[0].file.slo
    common: dict[str, Any] = {
        "started": started,
        "options": {"arrivals": runs[0].file.arrivals, "merged": [run.name for run in runs]},
        "conditions": _conditions(runs),
        "targets": _targets(runs),
        "slo": Slo.parse(slo) if slo else None,
        "catalogue": catalogue or _prices_of(runs),
        "checks": [
            check.model_copy(update={"name": f"{run.name}: {check.name}"}) for run in runs for check in run.file.checks
        ],
        "generators": [generator for run in runs for generator in run.file.generators],
    }
    parts = []
    for pool, rows in pools.items():
        members = [runs[index] for index in rows]
        # The rates of a row are over the time of its own runs, so each pool is summed up by itself.
        figures = _figures(members, pool, merged_pools[pool])
        parts.append(build_run_file(**figures, duration_s=_covered_s(members), **common))
    frame = build_run_file(tallies={}, warmups={}, first_requests_ns={}, duration_s=_covered_s(runs), **common)
    merged = frame.model_copy(
        update={
            "valid": all(run.file.valid for run in runs),
            "rows": sorted((row for part in parts for row in part.rows), key=_order),
            "target_rows": sorted((row for part in parts for row in part.target_rows), key=_order),
        }
    )
    directory.mkdir(parents=True, exist_ok=True)
    comments = [f"merged from {run.name}" for run in runs]
    with IntervalLogWriter(directory / HLOG_NAME, started.timestamp(), comments) as log:
        intervals = [_shift_intervals(run, merged_pools, (run.file.started - started).total_seconds()) for run in runs]
        for start_s, interval, tag in heapq.merge(*intervals, key=lambda line: line[0]):
            log.write(start_s, interval.length_s, tag, interval.histogram)
    merged.save(directory)
    return merged


def _check_mergeable(runs: Sequence[Run], directory: Path) -> None:
    if len(runs) < 2:
        raise InputError("a merge needs at least two runs")
    if (directory / JSON_NAME).exists() or (directory / HLOG_NAME).exists():
        raise InputError(f"{directory} holds a run already: choose a new directory")
    same_place = len({run.directory.resolve() for run in runs}) < len(runs)
    if same_place or len({(run.file.started, run.file.duration_s) for run in runs}) < len(runs):
        raise InputError("one run is named twice: its samples would count twice")
    for run in runs:
        if run.file.searches:
            raise InputError(
                f"{run.directory} is a search: its row is one probe, at a rate of its own, and cannot be merged"
            )
        if not (run.directory / HLOG_NAME).is_file():
            raise InputError(f"{run.directory} has no {HLOG_NAME}: its samples cannot be merged")
    for name, values in (
        ("SLOs", {run.file.slo or "none" for run in runs}),
        ("arrivals", {run.file.arrivals for run in runs}),
    ):
        if len(values) > 1:
            raise InputError(f"runs of different {name} cannot be merged: {' and '.join(sorted(values))}")
    hashes: dict[str, str] = {}
    for info in (info for run in runs for info in run.file.targets if info.model_sha256):
        if hashes.setdefault(info.model, info.model_sha256) != info.model_sha256:
            raise InputError(f"the runs served different files as the model {info.model}: they cannot be merged")


def _pools(runs: Sequence[Run]) -> dict[_Pool, dict[int, Row]]:
    """The rows of each combination, model and origin, by the index of their run."""
    pools: dict[_Pool, dict[int, Row]] = defaultdict(dict)
    for index, run in enumerate(runs):
        counts = Counter((row.host, row.accelerator, row.model, row.simulated) for row in run.file.rows)
        if any(count > 1 for count in counts.values()):
            raise InputError(f"{run.directory} has two pools of the same hosts and accelerators: it cannot be merged")
        for row in run.file.rows:
            hardware = HardwareCombination(row.host, row.accelerator, row.count, row.hosts)
            pools[hardware, row.model, row.simulated][index] = row
    return pools


def _merged_hardware(pool: _Pool, rows: Sequence[tuple[Run, Row]]) -> HardwareCombination:
    """The pool that the runs loaded: the same one, or a larger one where runs with different targets overlapped."""
    hardware = pool[0]
    spans = sorted(_span(run) for run, _row in rows)
    if all(first[1] <= second[0] for first, second in pairwise(spans)):
        return hardware
    targets = [{entry.target or "" for entry in run.file.target_rows if _is_of(entry, pool)} for run, _row in rows]
    union = set[str]().union(*targets)
    infos = [info for run, _row in rows for info in run.file.targets if info.label in union]
    if len({(info.label, info.instance_id) for info in infos}) > len({info.label for info in infos}):
        raise InputError(f"runs of {hardware} overlap in time, and two processes had the same address in them")
    if all(labels == targets[0] for labels in targets):
        return hardware
    if sum(map(len, targets)) > len(union):
        raise InputError(f"runs of {hardware} overlap in time and share some of their targets, but not all")
    hosts = {info.host_name for info in infos if info.host_name}
    return replace(hardware, count=hardware.count * len(rows), hosts=len(hosts) or hardware.hosts * len(rows))


def _is_of(row: Row, pool: _Pool) -> bool:
    """Whether the row of one target, which names one accelerator, is part of the pool."""
    hardware, model, simulated = pool
    key = (row.host, row.accelerator, row.model, row.simulated)
    return key == (hardware.host, hardware.accelerator, model, simulated)


def _figures(members: Sequence[Run], pool: _Pool, hardware: HardwareCombination) -> dict[str, Any]:
    """The tallies of one pool: counts from run.json, samples from run.hlog. InputError where the two disagree."""
    tallies: dict[Series, Tally] = defaultdict(Tally)
    warmups: dict[Series, Tally] = defaultdict(Tally)
    first_ns: dict[Series, int] = {}
    autocorrelation_times: dict[Series, float] = {}
    for run in members:
        for row in (entry for entry in run.file.target_rows if _is_of(entry, pool)):
            series = Series(hardware, pool[1], row.target or "", pool[2])
            tallies[series].add(_tally(run, row, replace(series, hardware=pool[0])))
            warmups[series].add(_warmup(row))
            if row.first_request_us is not None:
                first_ns[series] = max(first_ns.get(series, 0), round(row.first_request_us * 1000))
            samples = max(autocorrelation_times.get(series, 1.0), row.autocorrelation_time)
            autocorrelation_times[series] = samples
    return {
        "tallies": tallies,
        "warmups": warmups,
        "first_requests_ns": first_ns,
        "autocorrelation_times": autocorrelation_times,
    }


def _tally(run: Run, row: Row, series: Series) -> Tally:
    tally = Tally(row.due, row.answered, row.unsent, dict(row.errors), retries=row.retries)
    for (owner, measure), histogram in run.histograms.items():
        if owner == series:
            tally.histograms.setdefault(measure, Histogram()).add(histogram)
    samples = tally.histograms["latency"].count
    if samples != row.answered:
        raise InputError(
            f"{run.directory} is not complete: of {series.target}, {HLOG_NAME} holds {samples} answers "
            f"and {JSON_NAME} says {row.answered}"
        )
    tally.bytes_out = (row.memory.input_bytes or 0) * row.requests
    return tally


def _warmup(row: Row) -> Tally:
    """The warm-up of a row: its requests, each with their mean latency."""
    warmup = row.warmup
    answered = warmup.requests - warmup.errors
    tally = Tally(warmup.requests, answered, 0, {"UNKNOWN": warmup.errors} if warmup.errors else {})
    if warmup.mean_us is not None:
        tally.histograms["latency"].record_ns([round(warmup.mean_us * 1000)] * answered)
    return tally


def _shift_intervals(
    run: Run, merged_pools: Mapping[_Pool, HardwareCombination], delay_s: float
) -> Iterator[tuple[float, Interval, str]]:
    """A run's intervals with their start and their tag in the merged run."""
    for interval in read_interval_log(run.directory / HLOG_NAME):
        series, measure = parse_series_tag(interval.tag)
        hardware = merged_pools.get((series.hardware, series.model, series.simulated), series.hardware)
        yield interval.start_s + delay_s, interval, series_tag(replace(series, hardware=hardware), measure)


def _span(run: Run) -> tuple[float, float]:
    start = run.file.started.timestamp()
    return start, start + run.file.duration_s


def _covered_s(runs: Iterable[Run]) -> float:
    """Seconds in which at least one of the runs was active."""
    covered, until = 0.0, float("-inf")
    for start, end in sorted(_span(run) for run in runs):
        covered += max(end - max(start, until), 0.0)
        until = max(until, end)
    return covered


def _order(row: Row) -> tuple[str, str, str]:
    return row.model, row.hardware, row.target or ""


def _conditions(runs: Sequence[Run]) -> dict[str, str]:
    """Each condition once, or with the values of all runs where they differ."""
    conditions: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        for name, value in run.file.conditions.items():
            if value not in conditions[name]:
                conditions[name].append(value)
    return {name: " / ".join(values) for name, values in conditions.items()}


def _targets(runs: Sequence[Run]) -> list[TargetInfo]:
    """Every target once, by the last run that describes its process: the peaks of that run are the highest."""
    infos = {(info.label, info.instance_id): info for run in runs for info in run.file.targets}
    return list(infos.values())


def _prices_of(runs: Sequence[Run]) -> Catalogue:
    """The present catalogue overlaid by the prices of the runs' rows. InputError if one combination has two prices."""
    combinations: dict[str, dict[str, Any]] = {}
    for row in (row for run in runs for row in run.file.rows):
        if row.price_per_hour is not None:
            price = {"price": row.price_per_hour, "currency": row.currency, "note": row.price_note}
            first = combinations.setdefault(row.hardware, price)
            if (first["price"], first["currency"]) != (row.price_per_hour, row.currency):
                raise InputError(f"the runs have different prices of {row.hardware}: choose prices with --catalogue")
    own = {"region": runs[0].file.region, "date": runs[0].file.prices_as_of, "combinations": combinations}
    return Catalogue.load().overlay(Catalogue.model_validate(own))
