"""A generator's own log: generator.hlog, and progress.jsonl beside it, which says how many lines of it are complete.

The first line of progress.jsonl describes the run. Then comes one line a second, written when the log's lines of that
second are with the operating system: how many there are, and the counts so far. The last line says that the generator
ended as it should.
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

from capacity.errors import InputError
from capacity.measures import (
    Series,
    SparseTally,
    Tally,
    decode_counts,
    decode_tally,
    encode_counts,
    encode_tally,
    sum_tallies,
    tally_from_json,
    tally_to_json,
)
from capacity.rundir.interval_log import Interval, IntervalLogWriter, parse_series_tag, read_interval_log, series_tag
from capacity.rundir.run_file import TargetInfo
from capacity.statistics import Check

PROGRESS_NAME = "progress.jsonl"
LOG_NAME = "generator.hlog"


class EmptyLogError(InputError):
    """A log whose generator was killed before its first line was complete."""


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
    description: RunDescription


class GeneratorLogEntry(_Line):
    """One second, which ended `at_s` after the log began: `lines` of the log so far, and the counts so far by tag.

    `totals` are as encode_counts has them; `warmup`, where it changed, as encode_tally and tally_to_json have it.
    """

    sequence: int = Field(ge=1)
    at_s: float = Field(ge=0)
    lines: int = Field(ge=0)
    measured_s: float = Field(ge=0)
    totals: dict[str, dict[str, Any]]
    first_ns: dict[str, int] = {}
    warmup: dict[str, Any] | None = None


class GeneratorLogEnd(_Line):
    """The last line: the generator ended as it should, with its checks and autocorrelation times in samples by tag."""

    final: Literal[True] = True
    checks: list[Check] = []
    autocorrelation_times: dict[str, float] = {}
    offset_us: float | None = None
    round_trip_us: float | None = None


class GeneratorLogWriter:
    """Writes both files into a directory of their own, which must not exist yet."""

    def __init__(self, directory: Path, header: GeneratorLogHeader) -> None:
        directory.mkdir(parents=True, exist_ok=False)
        self._log = IntervalLogWriter(directory / LOG_NAME, header.began, [f"inferload generator {header.client}"])
        self._file = (directory / PROGRESS_NAME).open("w", encoding="utf-8", newline="\n")
        self._lines = 0
        self._warmup: dict[str, Any] = {}
        self._write_line(header)

    def write(
        self,
        sequence: int,
        start_s: float,
        length_s: float,
        interval: Mapping[Series, Tally],
        totals: Mapping[Series, Tally],
        warmups: Mapping[Series, Tally],
        first_ns: Mapping[Series, int],
        measured_s: float,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        """Appends one interval and the state after it.

        `pause` is called after each line of the log, which takes a third of a millisecond to write.
        """
        for series, tally in interval.items():
            for measure, histogram in tally.histograms.items():
                if histogram.count:
                    self._log.write(start_s, length_s, series_tag(series, measure), histogram)
                    self._lines += 1
                    pause()
        self._log.flush()
        warmup = {_tag(series): tally_to_json(encode_tally(tally)) for series, tally in warmups.items()}
        changed, self._warmup = warmup != self._warmup, warmup
        self._write_line(
            GeneratorLogEntry(
                sequence=sequence,
                at_s=start_s + length_s,
                lines=self._lines,
                measured_s=measured_s,
                totals={_tag(series): encode_counts(tally) for series, tally in totals.items()},
                first_ns={_tag(series): ns for series, ns in first_ns.items()},
                warmup=warmup if changed else None,
            )
        )

    def end(self, end: GeneratorLogEnd) -> None:
        """Appends the last line and closes both files."""
        self._write_line(end)
        self.close()

    def close(self) -> None:
        """Closes both files as they are."""
        self._log.close()
        self._file.close()

    def _write_line(self, line: _Line) -> None:
        data = line.model_dump(mode="json", by_alias=True, exclude_none=True)
        self._file.write(json.dumps(data, separators=(",", ":"), allow_nan=False) + "\n")
        self._file.flush()


@dataclass(frozen=True)
class GeneratorLog:
    """One generator's own log. `truncated`: its last line was cut off, and is left out."""

    directory: Path
    header: GeneratorLogHeader
    entries: tuple[GeneratorLogEntry, ...]
    warmups: dict[Series, Tally]
    end: GeneratorLogEnd | None
    truncated: bool

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Reads progress.jsonl; InputError in one sentence where it is none, or is damaged before its last line."""
        path = directory / PROGRESS_NAME
        try:
            complete, _, rest = path.read_bytes().rpartition(b"\n")
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from None
        if not complete:
            raise EmptyLogError(f"{path} has no complete line")
        entries: list[GeneratorLogEntry] = []
        header: GeneratorLogHeader | None = None
        end: GeneratorLogEnd | None = None
        warmup: dict[str, Any] = {}
        for number, text in enumerate(complete.split(b"\n"), 1):
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
                        raise ValueError(f"sequence {entry.sequence}, expected {len(entries) + 1}")
                    warmup = entry.warmup if entry.warmup is not None else warmup
                    entries.append(entry)
            except (ValueError, TypeError) as error:
                raise InputError(f"{path}, line {number}: not a line of {PROGRESS_NAME} ({_describe(error)})") from None
        assert header is not None
        warmups = {
            parse_series_tag(tag)[0]: sum_tallies([_decode(path, data, warmup=True)]) for tag, data in warmup.items()
        }
        return cls(directory, header, tuple(entries), warmups, end, bool(rest))

    @property
    def key(self) -> tuple[str, str]:
        """Run and client: two logs with the same key are copies of one."""
        return self.header.description.run, self.header.client

    @property
    def last(self) -> GeneratorLogEntry | None:
        """The state after the last complete second; None where there was none."""
        return self.entries[-1] if self.entries else None

    def intervals(self) -> Iterator[Interval]:
        """The log's intervals as far as progress.jsonl counts them; InputError where there are fewer."""
        expected = self.last.lines if self.last else 0
        number = 0
        for interval in islice(read_interval_log(self.directory / LOG_NAME), expected):
            number += 1
            yield interval
        if number < expected:
            raise InputError(f"{self.directory / LOG_NAME} has {number} lines, and its {PROGRESS_NAME} says {expected}")

    def tallies(self) -> dict[Series, Tally]:
        """Counts of progress.jsonl with the histograms of the log; InputError where the two disagree."""
        tallies: dict[Series, Tally] = {parse_series_tag(tag)[0]: Tally() for tag in self.header.description.tags}
        for interval in self.intervals():
            series, measure = parse_series_tag(interval.tag)
            histograms = tallies.setdefault(series, Tally()).histograms
            if measure not in histograms:
                raise InputError(f"{self.directory / LOG_NAME}: a generator does not record {measure}: {interval.tag}")
            histograms[measure].add(interval.histogram)
        for tag, data in (self.last.totals if self.last else {}).items():
            tally, counts = tallies.setdefault(parse_series_tag(tag)[0], Tally()), _decode(self.directory, data)
            tally.due, tally.answered, tally.unsent = counts.due, counts.answered, counts.unsent
            tally.bytes_in, tally.bytes_out, tally.retries = counts.bytes_in, counts.bytes_out, counts.retries
            tally.errors = dict(counts.errors)
        for series, tally in tallies.items():
            samples = tally.histograms["latency"].count
            if samples != tally.answered:
                raise InputError(
                    f"{self.directory} is not complete: of {series.target}, {LOG_NAME} holds {samples} answers "
                    f"and {PROGRESS_NAME} says {tally.answered}"
                )
        return tallies


def _tag(series: Series) -> str:
    return series_tag(series, "latency")


def _decode(place: Path, data: Mapping[str, Any], *, warmup: bool = False) -> SparseTally:
    try:
        return decode_tally(tally_from_json(data)) if warmup else decode_counts(data)
    except (KeyError, TypeError, AttributeError, OverflowError, ValueError) as error:
        raise InputError(f"{place}: not a tally of {PROGRESS_NAME}: {error}") from None


def _describe(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error)
