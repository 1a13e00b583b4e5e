"""A generator's own log of its run: generator.hlog, and journal.jsonl beside it, which says how far that is whole.

The journal's first line says of which run; then one line a second, written when the log's lines of that second are
with the operating system: how many there are, and the counts so far. A last line says that the generator ended.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from capacity.measures import Series, Tally
from capacity.rundir.interval_log import Interval, IntervalLogWriter, parse_series_tag, read_interval_log, series_tag
from capacity.rundir.run_file import TargetInfo
from capacity.statistics import Check

PROGRESS_NAME = "progress.jsonl"
LOG_NAME = "generator.hlog"


class EmptyLogError(ValueError):
    """A log whose generator was killed before its first line was whole."""


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class RunDescription(_Line):
    """What a run is, the same for all its generators. `tags` are its series, as tags of their latency."""

    run: str
    started: datetime
    clients: list[str]
    tags: list[str]
    targets: list[TargetInfo] = []
    options: dict[str, Any] = {}
    conditions: dict[str, str] = {}
    slo: str | None = None


class GeneratorLogHeader(_Line):
    """The first line: whose log this is, and when it began (seconds since the epoch, by that host's clock)."""

    version: Literal[2] = Field(default=2, alias="schema")
    client: str
    host: str
    began: float
    plan: RunDescription


class GeneratorLogEntry(_Line):
    """One second, ended `at_s` after the log began: `lines` of the log so far, and by tag the counts so far. `warmup`
    is there where it changed.

    Counts are [due, answered, unsent, bytes_in, bytes_out]; a tally of the warm-up is as Tally.to_wire has it.
    """

    sequence: int = Field(ge=1)
    at_s: float = Field(ge=0)
    lines: int = Field(ge=0)
    measured_s: float = Field(ge=0)
    counts: dict[str, tuple[int, int, int, int, int]]
    errors: dict[str, dict[str, int]] = {}
    retries: dict[str, int] = {}
    first_ns: dict[str, int] = {}
    warmup: dict[str, Any] | None = None


class GeneratorLogEnd(_Line):
    """The last line: the generator ended as it should; what it found of itself."""

    final: Literal[True] = True
    checks: list[Check] = []
    autocorrelation_times: dict[str, float] = {}
    offset_us: float | None = None
    round_trip_us: float | None = None


class GeneratorLogWriter:
    """Writes both files, in a directory of their own."""

    def __init__(self, directory: Path, header: GeneratorLogHeader) -> None:
        directory.mkdir(parents=True, exist_ok=False)
        self._log = IntervalLogWriter(directory / LOG_NAME, header.began, [f"inferload generator {header.client}"])
        self._file = (directory / PROGRESS_NAME).open("w", encoding="utf-8", newline="\n")
        self._lines = 0
        self._warmup: dict[str, Any] = {}
        self._say(header)

    def tick(
        self,
        sequence: int,
        start_s: float,
        length_s: float,
        gained: Mapping[Series, Tally],
        totals: Mapping[Series, Tally],
        warmups: Mapping[Series, Tally],
        first_ns: Mapping[Series, int],
        measured_s: float,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        """One interval and the state after it; `pause` is called between lines, which take a third of a millisecond."""
        for series, tally in gained.items():
            for measure, histogram in tally.histograms.items():
                if histogram.count:
                    self._log.write(start_s, length_s, series_tag(series, measure), histogram)
                    self._lines += 1
                    pause()
        self._log.flush()
        warmup = {_tag(series): _plain(tally) for series, tally in warmups.items()}
        changed, self._warmup = warmup != self._warmup, warmup
        self._say(
            GeneratorLogEntry(
                sequence=sequence,
                at_s=start_s + length_s,
                lines=self._lines,
                measured_s=measured_s,
                counts={
                    _tag(series): (one.due, one.answered, one.unsent, one.bytes_in, one.bytes_out)
                    for series, one in totals.items()
                },
                errors={_tag(series): dict(one.errors) for series, one in totals.items() if one.errors},
                retries={_tag(series): one.retries for series, one in totals.items() if one.retries},
                first_ns={_tag(series): ns for series, ns in first_ns.items()},
                warmup=warmup if changed else None,
            )
        )

    def end(self, end: GeneratorLogEnd) -> None:
        """The last line; closes both files."""
        self._say(end)
        self.close()

    def close(self) -> None:
        """Closes both files as they are."""
        self._log.close()
        self._file.close()

    def _say(self, line: _Line) -> None:
        data = line.model_dump(mode="json", by_alias=True, exclude_none=True)
        self._file.write(json.dumps(data, separators=(",", ":"), allow_nan=False) + "\n")
        self._file.flush()


@dataclass(frozen=True)
class GeneratorLog:
    """What one generator's own log holds. `torn`: its last line was cut off, and does not count."""

    directory: Path
    header: GeneratorLogHeader
    entries: tuple[GeneratorLogEntry, ...]
    warmups: dict[Series, Tally]
    end: GeneratorLogEnd | None
    torn: bool

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Reads a journal; ValueError in one sentence where it is not one, or is damaged before its last line."""
        path = directory / PROGRESS_NAME
        try:
            whole, _, rest = path.read_bytes().rpartition(b"\n")
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        if not whole:
            raise EmptyLogError(f"{path} holds no whole line")
        entries: list[GeneratorLogEntry] = []
        header: GeneratorLogHeader | None = None
        end: GeneratorLogEnd | None = None
        warmup: dict[str, Any] = {}
        for number, text in enumerate(whole.split(b"\n"), 1):
            try:
                line = json.loads(text)
                if header is None:
                    header = GeneratorLogHeader.model_validate(line)
                elif end is not None:
                    raise ValueError("a line after the last")
                elif "final" in line:
                    end = GeneratorLogEnd.model_validate(line)
                else:
                    entry = GeneratorLogEntry.model_validate(line)
                    if entry.sequence != len(entries) + 1:
                        raise ValueError(f"sequence {entry.sequence} where {len(entries) + 1} belongs")
                    warmup = entry.warmup if entry.warmup is not None else warmup
                    entries.append(entry)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: not a line of a journal ({_short(error)})") from None
        assert header is not None
        warmups = {parse_series_tag(tag)[0]: Tally.from_wire(_bytes(wire)) for tag, wire in warmup.items()}
        return cls(directory, header, tuple(entries), warmups, end, bool(rest))

    @property
    def name(self) -> tuple[str, str]:
        """Run and client: two logs of the same are one, copied."""
        return self.header.plan.run, self.header.client

    @property
    def last(self) -> GeneratorLogEntry | None:
        """The state after the last whole second; None where there was none."""
        return self.entries[-1] if self.entries else None

    def intervals(self) -> Iterator[Interval]:
        """The log's lines as far as the journal vouches for them; ValueError where they are fewer."""
        wanted = self.last.lines if self.last else 0
        found = 0
        for interval in islice(read_interval_log(self.directory / LOG_NAME), wanted):
            found += 1
            yield interval
        if found < wanted:
            raise ValueError(f"{self.directory / LOG_NAME} has {found} lines, and its journal says {wanted}")

    def tallies(self) -> dict[Series, Tally]:
        """Counts of the journal with the histograms of the log; ValueError where the two disagree."""
        tallies: dict[Series, Tally] = {parse_series_tag(tag)[0]: Tally() for tag in self.header.plan.tags}
        for interval in self.intervals():
            series, measure = parse_series_tag(interval.tag)
            tallies.setdefault(series, Tally()).histograms[measure].add(interval.histogram)
        for tag, counts in (self.last.counts if self.last else {}).items():
            tally = tallies.setdefault(parse_series_tag(tag)[0], Tally())
            tally.due, tally.answered, tally.unsent, tally.bytes_in, tally.bytes_out = counts
        for tag, errors in (self.last.errors if self.last else {}).items():
            tallies[parse_series_tag(tag)[0]].errors = dict(errors)
        for tag, retries in (self.last.retries if self.last else {}).items():
            tallies[parse_series_tag(tag)[0]].retries = retries
        for series, tally in tallies.items():
            held = tally.histograms["latency"].count
            if held != tally.answered:
                raise ValueError(
                    f"{self.directory} is not whole: of {series.target}, {LOG_NAME} holds {held} answers "
                    f"and {PROGRESS_NAME} says {tally.answered}"
                )
        return tallies


def _tag(series: Series) -> str:
    return series_tag(series, "latency")


def _plain(tally: Tally) -> dict[str, Any]:
    wire = tally.to_wire()
    wire["histograms"] = {name: [one[0].decode("ascii"), *one[1:]] for name, one in wire["histograms"].items()}
    return wire


def _bytes(wire: Mapping[str, Any]) -> dict[str, Any]:
    parts = {name: [one[0].encode("ascii"), *one[1:]] for name, one in wire["histograms"].items()}
    return {**wire, "histograms": parts}


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error)
