"""One run put together from its generators' own logs: after the master died, or the network did."""

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
    GeneratorLogEntry,
    Interval,
    IntervalLogWriter,
    RunFile,
    build_run_file,
    parse_series_tag,
)
from capacity.statistics import Check, Slo


def find_generator_logs(directory: Path) -> list[Path]:
    """The directories in and under this one that a generator wrote; empty where there is none."""
    return sorted(path.parent for path in directory.rglob(PROGRESS_NAME)) if directory.is_dir() else []


def recover_run(directories: Sequence[Path], out: Path, catalogue: Catalogue | None = None) -> RunFile:
    """Writes the run that these logs are of into a new directory, with the histograms that its master would have had.

    What only the master knew is not there: the workers' own clocks, and telemetry. InputError for logs of different
    runs or configurations, for logs that are damaged, and where `out` holds a run.
    """
    if (out / JSON_NAME).exists() or (out / HLOG_NAME).exists():
        raise InputError(f"{out} holds a run already")
    loaded, unbegun = _loaded(directories)
    journals, copies = _once(loaded)
    plan = journals[0].header.description
    for journal in journals[1:]:
        other = journal.header.description
        if other.run != plan.run:
            raise InputError(f"{journals[0].directory} and {journal.directory} are of different runs")
        if other != plan:
            raise InputError(f"{journals[0].directory} and {journal.directory} are of one run in two configurations")
    tallies: dict[Series, Tally] = {parse_series_tag(tag)[0]: Tally() for tag in plan.tags}
    warmups: dict[Series, Tally] = {series: Tally() for series in tallies}
    first_ns: dict[Series, int] = {}
    dependence: dict[Series, float] = {}
    generators: list[dict[str, Any]] = []
    for journal in journals:
        own = journal.tallies()
        for series, tally in own.items():
            tallies[series].add(tally)
        for series, tally in journal.warmups.items():
            warmups[series].add(tally)
        for tag, ns in (journal.last.first_ns if journal.last else {}).items():
            series = parse_series_tag(tag)[0]
            first_ns[series] = max(ns, first_ns.get(series, 0))
        for tag, samples in (journal.end.autocorrelation_times if journal.end else {}).items():
            series = parse_series_tag(tag)[0]
            dependence[series] = max(samples, dependence.get(series, 1.0))
        generators.append(_generator(journal, sum(tally.requests for tally in own.values())))
    there = {generator["client"] for generator in generators}
    generators += [_absent(client) for client in plan.clients if client not in there]
    generators.sort(key=lambda generator: str(generator["client"]))
    duration_s = max((journal.last.measured_s for journal in journals if journal.last), default=0.0)
    file = build_run_file(
        started=plan.started,
        options=plan.options,
        conditions={
            **plan.conditions,
            "measured": f"{duration_s:.3g} s",
            "generators": f"{len(generators)} on {', '.join(sorted({j.header.host for j in journals}))}",
            "put together": f"from the logs of {len(journals)} generators",
        },
        targets=plan.targets,
        tallies=tallies,
        warmups=warmups,
        first_requests_ns=first_ns,
        duration_s=duration_s,
        slo=Slo.parse(plan.slo) if plan.slo else None,
        catalogue=catalogue or Catalogue.load(None),
        checks=_checks(journals, generators, copies, unbegun),
        generators=generators,
        autocorrelation_times=dependence,
    )
    _write_log(journals, out)
    file.save(out)
    return file


def _loaded(directories: Sequence[Path]) -> tuple[list[GeneratorLog], list[Path]]:
    """The journals, and the directories of those that were never begun."""
    journals, unbegun = [], []
    for directory in directories:
        try:
            journals.append(GeneratorLog.load(directory))
        except EmptyLogError:
            unbegun.append(directory)
    if not journals:
        raise InputError(f"no generator's log has begun in {', '.join(str(directory) for directory in directories)}")
    return journals, unbegun


def _once(journals: Sequence[GeneratorLog]) -> tuple[list[GeneratorLog], int]:
    """Each client's longest log, and how many were copies. InputError where two of one client contradict each other."""
    kept: dict[tuple[str, str], GeneratorLog] = {}
    for journal in journals:
        other = kept.setdefault(journal.key, journal)
        if other is journal:
            continue
        longer, shorter = sorted((journal, other), key=_length, reverse=True)
        if longer.entries[: len(shorter.entries)] != shorter.entries or longer.header != shorter.header:
            raise InputError(f"{other.directory} and {journal.directory} are two logs of one generator that differ")
        kept[journal.key] = longer
    return list(kept.values()), len(journals) - len(kept)


def _length(journal: GeneratorLog) -> tuple[int, bool]:
    return len(journal.entries), journal.end is not None


def _generator(journal: GeneratorLog, requests: int) -> dict[str, Any]:
    last: GeneratorLogEntry | None = journal.last
    began = journal.header.began - journal.header.description.started.timestamp()
    return {
        "client": journal.header.client,
        "host": journal.header.host,
        "requests": requests,
        "last_sequence": last.sequence if last else 0,
        "complete": journal.end is not None,
        "last_s": round(began + last.at_s, 3) if last else None,
        "offset_us": journal.end.offset_us if journal.end else None,
        "round_trip_us": journal.end.round_trip_us if journal.end else None,
        "truncated": journal.truncated,
    }


def _absent(client: str) -> dict[str, Any]:
    return {"client": client, "host": "", "requests": 0, "last_sequence": 0, "complete": False, "last_s": None}


def _checks(
    journals: Sequence[GeneratorLog], generators: Sequence[dict[str, Any]], copies: int, unbegun: Sequence[Path]
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
    if torn := [journal.header.client for journal in journals if journal.truncated]:
        said = f"a last line was cut off and left out: {', '.join(torn)}"
        checks.append(Check(name="torn logs", value=len(torn), threshold="0", status="WARN", detail=said))
    if unbegun:
        said = f"killed before the first line, nothing in them: {', '.join(path.name for path in unbegun)}"
        checks.append(Check(name="logs not begun", value=len(unbegun), threshold="0", status="WARN", detail=said))
    if copies:
        said = "copies of logs of the same generator, counted once"
        checks.append(Check(name="copied logs", value=copies, threshold="0", status="WARN", detail=said))
    if journals[0].header.description.options.get("shape"):
        said = "only its master knew which requests were of which probe: a row mixes all rates"
        checks.append(Check(name="search", value="without its master", threshold="whole", status="FAIL", detail=said))
    for journal in journals:
        for check in journal.end.checks if journal.end else []:
            checks.append(check.model_copy(update={"name": f"{journal.header.client}: {check.name}"}))
    return checks


def _write_log(journals: Sequence[GeneratorLog], out: Path) -> None:
    """All intervals in the order of time. Each host's clock says when its generator began."""
    started = journals[0].header.description.started.timestamp()
    out.mkdir(parents=True, exist_ok=True)
    comments = [f"from the log of {journal.header.client}" for journal in journals]
    with IntervalLogWriter(out / HLOG_NAME, started, comments) as log:
        for start_s, interval in heapq.merge(*(_shifted(j, started) for j in journals), key=lambda line: line[0]):
            log.write(start_s, interval.length_s, interval.tag, interval.histogram)


def _shifted(journal: GeneratorLog, started: float) -> Iterator[tuple[float, Interval]]:
    for interval in journal.intervals():
        yield max(0.0, interval.start_s + journal.header.began - started), interval
