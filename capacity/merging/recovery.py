"""One run from the logs of its generators: after the coordinator died, or the network failed."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from capacity.errors import InputError
from capacity.measures import Series, Tally
from capacity.pricing import Catalogue
from capacity.rundir import (
    HLOG_NAME,
    JSON_NAME,
    PROGRESS_NAME,
    EmptyLogError,
    GeneratorLog,
    Interval,
    IntervalLogWriter,
    RunFile,
    build_run_file,
    parse_series_tag,
)
from capacity.statistics import Check, Slo
from worker.wire import display_duration


def find_generator_logs(directory: Path) -> list[Path]:
    """The directories in and below this one that hold a generator's log, sorted; empty where there is none."""
    return sorted(path.parent for path in directory.rglob(PROGRESS_NAME)) if directory.is_dir() else []


def recover_run(directories: Sequence[Path], out: Path, catalogue: Catalogue | None = None) -> RunFile:
    """Writes the run of these generators' logs into a new directory, with the histograms of a complete run.

    What only the coordinator had is missing: the targets' own clocks, and telemetry. InputError for logs of different
    runs or configurations, for damaged logs, and where `out` holds a run already.
    """
    if (out / JSON_NAME).exists() or (out / HLOG_NAME).exists():
        raise InputError(f"{out} holds a run already: choose a new directory")
    all_logs, empty = _load_logs(directories)
    logs, copies = _drop_copies(all_logs)
    description = logs[0].header.description
    for log in logs[1:]:
        other = log.header.description
        if other.run != description.run:
            raise InputError(f"{logs[0].directory} and {log.directory} are of different runs")
        if other != description:
            raise InputError(f"{logs[0].directory} and {log.directory} are of one run in two configurations")
    tallies: dict[Series, Tally] = {parse_series_tag(tag)[0]: Tally() for tag in description.tags}
    warmups: dict[Series, Tally] = {series: Tally() for series in tallies}
    first_ns: dict[Series, int] = {}
    autocorrelation_times: dict[Series, float] = {}
    generators: list[dict[str, Any]] = []
    for log in logs:
        own = log.tallies()
        for series, tally in own.items():
            tallies.setdefault(series, Tally()).add(tally)
        for series, tally in log.warmups.items():
            warmups.setdefault(series, Tally()).add(tally)
        for tag, ns in (log.last.first_ns if log.last else {}).items():
            series = parse_series_tag(tag)[0]
            first_ns[series] = max(ns, first_ns.get(series, 0))
        for tag, samples in (log.end.autocorrelation_times if log.end else {}).items():
            series = parse_series_tag(tag)[0]
            autocorrelation_times[series] = max(samples, autocorrelation_times.get(series, 1.0))
        generators.append(_generator(log, sum(tally.requests for tally in own.values())))
    present = {generator["client"] for generator in generators}
    generators += [_missing_generator(client) for client in description.clients if client not in present]
    generators.sort(key=lambda generator: str(generator["client"]))
    duration_s = max((log.last.measured_s for log in logs if log.last), default=0.0)
    file = build_run_file(
        started=description.started,
        options=description.options,
        conditions={
            **description.conditions,
            "measured": display_duration(duration_s),
            "generators": f"{len(generators)} on {', '.join(sorted({log.header.host for log in logs}))}",
            "recovered": f"from the logs of {len(logs)} generators",
        },
        targets=description.targets,
        tallies=tallies,
        warmups=warmups,
        first_requests_ns=first_ns,
        duration_s=duration_s,
        slo=Slo.parse(description.slo) if description.slo else None,
        catalogue=catalogue or Catalogue.load(None),
        checks=_checks(logs, generators, copies, empty),
        generators=generators,
        autocorrelation_times=autocorrelation_times,
    )
    _write_log(logs, out)
    file.save(out)
    return file


def _load_logs(directories: Sequence[Path]) -> tuple[list[GeneratorLog], list[Path]]:
    """The logs, and the directories of those that are empty."""
    logs, empty = [], []
    for directory in directories:
        try:
            logs.append(GeneratorLog.load(directory))
        except EmptyLogError:
            empty.append(directory)
    if not logs:
        raise InputError(f"every generator's log is empty: {', '.join(str(directory) for directory in directories)}")
    return logs, empty


def _drop_copies(logs: Sequence[GeneratorLog]) -> tuple[list[GeneratorLog], int]:
    """The longest log of each client, and the number of copies. InputError where two of one client differ."""
    longest: dict[tuple[str, str], GeneratorLog] = {}
    for log in logs:
        other = longest.setdefault(log.key, log)
        if other is log:
            continue
        longer, shorter = sorted((log, other), key=_length, reverse=True)
        if longer.entries[: len(shorter.entries)] != shorter.entries or longer.header != shorter.header:
            raise InputError(f"{other.directory} and {log.directory} are two logs of one generator that differ")
        longest[log.key] = longer
    return list(longest.values()), len(logs) - len(longest)


def _length(log: GeneratorLog) -> tuple[int, bool]:
    return len(log.entries), log.end is not None


def _generator(log: GeneratorLog, requests: int) -> dict[str, Any]:
    """A generator as run.json lists it."""
    last = log.last
    start_s = log.header.began - log.header.description.started.timestamp()
    return {
        "client": log.header.client,
        "host": log.header.host,
        "requests": requests,
        "last_sequence": last.sequence if last else 0,
        "complete": log.end is not None,
        "last_s": round(start_s + last.at_s, 3) if last else None,
        "offset_us": log.end.offset_us if log.end else None,
        "round_trip_us": log.end.round_trip_us if log.end else None,
        "truncated": log.truncated,
    }


def _missing_generator(client: str) -> dict[str, Any]:
    return {"client": client, "host": "", "requests": 0, "last_sequence": 0, "complete": False, "last_s": None}


def _checks(
    logs: Sequence[GeneratorLog], generators: Sequence[dict[str, Any]], copies: int, empty: Sequence[Path]
) -> list[Check]:
    missing = [str(generator["client"]) for generator in generators if not generator["complete"]]
    checks = [
        Check(
            name="generators that reported their end",
            value=len(generators) - len(missing),
            threshold=f"{len(generators)} of {len(generators)}",
            status="FAIL" if missing else "PASS",
            detail=f"missing: {', '.join(missing)}" if missing else "",
        )
    ]
    if truncated := [log.header.client for log in logs if log.truncated]:
        detail = f"a last line was cut off and left out: {', '.join(truncated)}"
        checks.append(Check(name="truncated logs", value=len(truncated), threshold="0", status="WARN", detail=detail))
    if empty:
        detail = f"the generator was killed before its first line: {', '.join(path.name for path in empty)}"
        checks.append(Check(name="empty logs", value=len(empty), threshold="0", status="WARN", detail=detail))
    if copies:
        detail = "copies of a log of the same generator, counted once"
        checks.append(Check(name="copied logs", value=copies, threshold="0", status="WARN", detail=detail))
    if logs[0].header.description.options.get("shape"):
        detail = "only the coordinator knew which requests were of which probe: a row mixes all rates"
        checks.append(
            Check(name="search", value="without its coordinator", threshold="complete", status="FAIL", detail=detail)
        )
    for log in logs:
        for check in log.end.checks if log.end else []:
            checks.append(check.model_copy(update={"name": f"{log.header.client}: {check.name}"}))
    return checks


def _write_log(logs: Sequence[GeneratorLog], out: Path) -> None:
    """Writes all intervals in order of time, with the start of each log by the clock of its host."""
    started = logs[0].header.description.started.timestamp()
    out.mkdir(parents=True, exist_ok=True)
    comments = [f"from the log of {log.header.client}" for log in logs]
    with IntervalLogWriter(out / HLOG_NAME, started, comments) as writer:
        for start_s, interval in heapq.merge(
            *(_shift_intervals(log, started) for log in logs), key=lambda line: line[0]
        ):
            writer.write(start_s, interval.length_s, interval.tag, interval.histogram)


def _shift_intervals(log: GeneratorLog, started: float) -> Iterator[tuple[float, Interval]]:
    for interval in log.intervals():
        yield max(0.0, interval.start_s + log.header.began - started), interval
