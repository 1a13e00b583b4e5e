"""Tagged HdrHistogram interval logs: a run's histograms, one line for each interval, series and measure.

The format is HdrHistogram's log version 1.3, so any of its tools reads it. A comment before each line, which those
tools skip, has the exact count, sum, minimum and maximum.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, unquote

from capacity.errors import InputError
from capacity.measures import HardwareCombination, Series, is_measure
from capacity.statistics import Histogram

_LEGEND = '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"'
_LINE = re.compile(r"(?:Tag=([^,\s]+),)?(\d+(?:\.\d+)?),(\d+(?:\.\d+)?),\d+(?:\.\d+)?,([A-Za-z0-9+/=]+)")
_EXACT = re.compile(r"#\[Exact: count=(\d+) sum_ns=(\d+) min_ns=(\d+) max_ns=(\d+) above=(\d+)\]")
_ORIGIN = {False: "measured", True: "simulated"}


def series_tag(series: Series, measure: str) -> str:
    """`hardware/model/target/measured|simulated/measure`, each percent-encoded: no comma, no whitespace."""
    parts = (series.hardware.name, series.model, series.target, _ORIGIN[series.simulated], measure)
    return "/".join(quote(part, safe=":@+()") for part in parts)


def parse_series_tag(tag: str) -> tuple[Series, str]:
    """The series and measure of a tag; InputError on one that `series_tag` did not make."""
    parts = [unquote(part) for part in tag.split("/")]
    if len(parts) != 5 or parts[3] not in _ORIGIN.values() or not is_measure(parts[4]):
        raise InputError(f"'{tag}' is not a tag HARDWARE/MODEL/TARGET/measured|simulated/MEASURE")
    hardware, model, target, origin, measure = parts
    return Series(HardwareCombination.parse(hardware), model, target, origin == _ORIGIN[True]), measure


@dataclass(frozen=True)
class Interval:
    """One line: the histogram of `tag` from `start_s` (after the log's start) on, for `length_s` seconds."""

    tag: str
    start_s: float
    length_s: float
    histogram: Histogram


class IntervalLogWriter:
    """Writes one log. Nothing is buffered after `flush`, so a killed run has every interval but the last."""

    def __init__(self, path: Path, started_unix_s: float, comments: Iterable[str] = ()) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")
        started = datetime.fromtimestamp(started_unix_s, UTC).isoformat(timespec="milliseconds")
        self._file.write("#[Histogram log format version 1.3]\n")
        for comment in comments:
            self._file.write(f"# {' '.join(comment.split())}\n")
        self._file.write(f"#[StartTime: {started_unix_s:.3f} (seconds since epoch), {started}]\n{_LEGEND}\n")

    def write(self, start_s: float, length_s: float, tag: str, histogram: Histogram) -> None:
        """Appends one interval, in seconds since the log's start.

        Raises ValueError on a negative time, or a tag with a comma or whitespace.
        """
        if start_s < 0 or length_s < 0:
            raise ValueError(f"an interval cannot begin at {start_s} s or last {length_s} s")
        if not tag or re.search(r"[,\s]", tag):
            raise ValueError(f"a tag has no comma and no whitespace: {tag!r}")
        if histogram.count:
            count, sum_ns, min_ns, max_ns, above = histogram.exact
            self._file.write(f"#[Exact: count={count} sum_ns={sum_ns} min_ns={min_ns} max_ns={max_ns} above={above}]\n")
        # The maximum is in milliseconds, as the other writers of this format have it.
        highest_ms = (histogram.max_us or 0) / 1000
        payload = histogram.encode().decode("ascii")
        self._file.write(f"Tag={tag},{start_s:.3f},{length_s:.3f},{highest_ms:.3f},{payload}\n")

    def flush(self) -> None:
        """Hands everything written to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Flushes and closes the file; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def read_interval_log(path: Path) -> Iterator[Interval]:
    """The intervals of a log, in order; InputError that names file and line where it is damaged.

    A last line without its newline was cut off when the writer died, and ends the log.
    """
    for number, line, exact in _lines(path):
        try:
            histogram = _decode(line[4].encode("ascii"), exact)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: {error}") from None
        yield Interval(line[1] or "", float(line[2]), float(line[3]), histogram)


def interval_log_extent(path: Path, tags: Callable[[str], bool]) -> tuple[float, float] | None:
    """The first start and last end of the intervals with these tags, in seconds since the log's start; None if none."""
    spans = [(float(line[2]), float(line[2]) + float(line[3])) for _, line, _ in _lines(path) if tags(line[1] or "")]
    return (min(start for start, _ in spans), max(end for _, end in spans)) if spans else None


def _lines(path: Path) -> Iterator[tuple[int, re.Match[str], tuple[int, ...] | None]]:
    """Each interval's line: its number, its parts, and the exact values of the comment before it."""
    exact: tuple[int, ...] | None = None
    with path.open(encoding="utf-8", errors="strict") as file:
        try:
            for number, line in enumerate(file, 1):
                if not line.endswith("\n"):
                    return
                line = line.rstrip("\r\n")
                if line.startswith("#"):
                    match = _EXACT.fullmatch(line)
                    exact = tuple(int(part) for part in match.groups()) if match else exact
                elif line and not line.startswith('"'):
                    match = _LINE.fullmatch(line)
                    if not match:
                        raise InputError(f"{path}, line {number}: not a line of a histogram log")
                    yield number, match, exact
                    exact = None
        except UnicodeDecodeError:
            raise InputError(f"{path}: not a text file, so not a histogram log") from None


def _decode(payload: bytes, exact: tuple[int, ...] | None) -> Histogram:
    if exact is None:
        return Histogram.decode(payload)
    count, sum_ns, min_ns, max_ns, above = exact
    return Histogram.decode(payload, count=count, sum_ns=sum_ns, min_ns=min_ns, max_ns=max_ns, above=above)
