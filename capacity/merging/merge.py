"""Whole runs put together as one: histograms and counts are added, every check is kept.

Repeats of one combination at different times add samples to its row. Runs of it at the same time, with workers of
their own, were one larger pool.
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
    """Writes the merged run into a new directory, priced as the runs were unless a catalogue is given.

    InputError for runs that do not belong together, that are not whole, or where the directory holds a run.
    """
    _refuse(runs, directory)
    pools = _pools(runs)
    names = {pool: _together(pool, [(runs[index], row) for index, row in rows.items()]) for pool, rows in pools.items()}
    started = min(run.file.started for run in runs)
    text = runs[0].file.slo
    common: dict[str, Any] = {
        "started": started,
        "options": {"arrivals": runs[0].file.arrivals, "merged": [run.name for run in runs]},
        "conditions": _conditions(runs),
        "targets": _targets(runs),
        "slo": Slo.parse(text) if text else None,
        "catalogue": catalogue or _prices_of(runs),
        "checks": [
            check.model_copy(update={"name": f"{run.name}: {check.name}"}) for run in runs for check in run.file.checks
        ],
        "generators": [generator for run in runs for generator in run.file.generators],
    }
    parts = []
    for pool, rows in pools.items():
        members = [runs[index] for index in rows]
        # A row's rates are over the time in which its own runs ran, so each pool is summed up by itself.
        parts.append(build_run_file(**_counted(members, pool, names[pool]), duration_s=_covered(members), **common))
    whole = build_run_file(tallies={}, warmups={}, first_requests_ns={}, duration_s=_covered(runs), **common)
    merged = whole.model_copy(
        update={
            "valid": all(run.file.valid for run in runs),
            "rows": sorted((row for part in parts for row in part.rows), key=_order),
            "target_rows": sorted((row for part in parts for row in part.target_rows), key=_order),
        }
    )
    directory.mkdir(parents=True, exist_ok=True)
    with IntervalLogWriter(
        directory / HLOG_NAME, started.timestamp(), [f"merged from {run.name}" for run in runs]
    ) as log:
        shifted = [_shifted(run, names, (run.file.started - started).total_seconds()) for run in runs]
        for start_s, interval, tag in heapq.merge(*shifted, key=lambda line: line[0]):
            log.write(start_s, interval.length_s, tag, interval.histogram)
    merged.save(directory)
    return merged


def _refuse(runs: Sequence[Run], directory: Path) -> None:
    if len(runs) < 2:
        raise InputError("it takes two runs to merge")
    if (directory / JSON_NAME).exists() or (directory / HLOG_NAME).exists():
        raise InputError(f"{directory} holds a run already")
    same_place = len({run.directory.resolve() for run in runs}) < len(runs)
    if same_place or len({(run.file.started, run.file.duration_s) for run in runs}) < len(runs):
        raise InputError("one run is given twice: its samples would count twice")
    for run in runs:
        if run.file.searches:
            raise InputError(
                f"{run.directory} is a search: its row is one probe, at a rate of its own, and does not merge"
            )
        if not (run.directory / HLOG_NAME).is_file():
            raise InputError(f"{run.directory} has no {HLOG_NAME}: its samples cannot be merged")
    for what, found in (
        ("SLOs", {run.file.slo or "none" for run in runs}),
        ("arrivals", {run.file.arrivals for run in runs}),
    ):
        if len(found) > 1:
            raise InputError(f"runs of different {what} do not merge: {' and '.join(sorted(found))}")

    shas: dict[str, str] = {}
    for info in (info for run in runs for info in run.file.targets if info.model_sha256):
        if shas.setdefault(info.model, info.model_sha256) != info.model_sha256:
            raise InputError(f"the runs served different files as the model {info.model}: they do not merge")


def _pools(runs: Sequence[Run]) -> dict[_Pool, dict[int, Row]]:
    """The rows of each combination, model and origin, by the number of their run."""
    pools: dict[_Pool, dict[int, Row]] = defaultdict(dict)
    for index, run in enumerate(runs):
        found = Counter((row.host, row.accelerator, row.model, row.simulated) for row in run.file.rows)
        if any(count > 1 for count in found.values()):
            raise InputError(f"{run.directory} has two pools of the same hosts and accelerators: it does not merge")
        for row in run.file.rows:
            hardware = HardwareCombination(row.host, row.accelerator, row.count, row.hosts)
            pools[hardware, row.model, row.simulated][index] = row
    return pools


def _together(pool: _Pool, rows: Sequence[tuple[Run, Row]]) -> HardwareCombination:
    """What the runs loaded: the pool, or several of it at once where runs with different workers overlapped."""
    hardware = pool[0]
    spans = sorted(_span(run) for run, _row in rows)
    if all(first[1] <= second[0] for first, second in pairwise(spans)):
        return hardware
    workers = [{entry.target or "" for entry in run.file.target_rows if _is_of(entry, pool)} for run, _row in rows]
    together = set[str]().union(*workers)
    infos = [info for run, _row in rows for info in run.file.targets if info.label in together]
    if len({(info.label, info.instance_id) for info in infos}) > len({info.label for info in infos}):
        raise InputError(f"runs of {hardware} overlap in time, and one address in them was of two processes")
    if all(found == workers[0] for found in workers):
        return hardware
    if sum(map(len, workers)) > len(together):
        raise InputError(f"runs of {hardware} overlap in time and share some of their workers, but not all")
    hosts = {info.host_name for info in infos if info.host_name}
    return replace(hardware, count=hardware.count * len(rows), hosts=len(hosts) or hardware.hosts * len(rows))


def _is_of(row: Row, pool: _Pool) -> bool:
    """Whether this row of one worker, which names one accelerator, is part of the pool."""
    hardware, model, simulated = pool
    found = (row.host, row.accelerator, row.model, row.simulated)
    return found == (hardware.host, hardware.accelerator, model, simulated)


def _counted(members: Sequence[Run], pool: _Pool, hardware: HardwareCombination) -> dict[str, Any]:
    """The tallies of one pool: counts from run.json, samples from run.hlog. InputError where the two disagree."""
    tallies: dict[Series, Tally] = defaultdict(Tally)
    warmups: dict[Series, Tally] = defaultdict(Tally)
    first_ns: dict[Series, int] = {}
    remembered: dict[Series, float] = {}
    for run in members:
        for ordinal in (entry for entry in run.file.target_rows if _is_of(entry, pool)):
            series = Series(hardware, pool[1], ordinal.target or "", pool[2])
            tallies[series].add(_tally(run, ordinal, replace(series, hardware=pool[0])))
            warmups[series].add(_warmup(ordinal))
            if ordinal.first_request_us is not None:
                first_ns[series] = max(first_ns.get(series, 0), round(ordinal.first_request_us * 1000))
            remembered[series] = max(remembered.get(series, 1.0), ordinal.autocorrelation_time)
    return {"tallies": tallies, "warmups": warmups, "first_requests_ns": first_ns, "autocorrelation_times": remembered}


def _tally(run: Run, ordinal: Row, series: Series) -> Tally:
    tally = Tally(ordinal.due, ordinal.answered, ordinal.unsent, dict(ordinal.errors), retries=ordinal.retries)
    for (of, name), histogram in run.histograms.items():
        if of == series:
            tally.histograms.setdefault(name, Histogram()).add(histogram)
    held = tally.histograms["latency"].count
    if held != ordinal.answered:
        raise InputError(
            f"{run.directory} is not whole: of {series.target}, {HLOG_NAME} holds {held} answers "
            f"and {JSON_NAME} says {ordinal.answered}"
        )
    tally.bytes_out = (ordinal.memory.input_bytes or 0) * ordinal.requests
    return tally


def _warmup(ordinal: Row) -> Tally:
    """The warm-up that a row tells of: its requests, each at their mean."""
    warmup = ordinal.warmup
    answered = warmup.requests - warmup.errors
    tally = Tally(warmup.requests, answered, 0, {"UNKNOWN": warmup.errors} if warmup.errors else {})
    if warmup.mean_us is not None:
        tally.histograms["latency"].record_ns([round(warmup.mean_us * 1000)] * answered)
    return tally


def _shifted(
    run: Run, names: Mapping[_Pool, HardwareCombination], later_s: float
) -> Iterator[tuple[float, Interval, str]]:
    """A run's intervals with their start in the merged run, and their tag there."""
    for interval in read_interval_log(run.directory / HLOG_NAME):
        series, measure = parse_series_tag(interval.tag)
        hardware = names.get((series.hardware, series.model, series.simulated), series.hardware)
        yield interval.start_s + later_s, interval, series_tag(replace(series, hardware=hardware), measure)


def _span(run: Run) -> tuple[float, float]:
    start = run.file.started.timestamp()
    return start, start + run.file.duration_s


def _covered(runs: Iterable[Run]) -> float:
    """Seconds in which at least one of the runs ran."""
    covered, until = 0.0, float("-inf")
    for start, end in sorted(_span(run) for run in runs):
        covered += max(end - max(start, until), 0.0)
        until = max(until, end)
    return covered


def _order(row: Row) -> tuple[str, str, str]:
    return row.model, row.hardware, row.target or ""


def _conditions(runs: Sequence[Run]) -> dict[str, str]:
    """Each condition once, or with every run's own where they differ."""
    found: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        for name, value in run.file.conditions.items():
            if value not in found[name]:
                found[name].append(value)
    return {name: " / ".join(values) for name, values in found.items()}


def _targets(runs: Sequence[Run]) -> list[TargetInfo]:
    """Every worker once; the last run's description, whose peaks are the highest, for a process that served several."""
    found = {(info.label, info.instance_id): info for run in runs for info in run.file.targets}
    return list(found.values())


def _prices_of(runs: Sequence[Run]) -> Catalogue:
    """The catalogue here, with what the runs' own rows cost in place. InputError if one combination has two prices."""
    combinations: dict[str, dict[str, Any]] = {}
    for row in (row for run in runs for row in run.file.rows):
        if row.price_per_hour is not None:
            price = {"price": row.price_per_hour, "currency": row.currency, "note": row.price_note}
            known = combinations.setdefault(row.hardware, price)
            if (known["price"], known["currency"]) != (row.price_per_hour, row.currency):
                raise InputError(f"the runs price {row.hardware} differently: say which prices count with --catalogue")
    own = {"region": runs[0].file.region, "date": runs[0].file.prices_as_of, "combinations": combinations}
    return Catalogue.load().overlaid(Catalogue.model_validate(own))
