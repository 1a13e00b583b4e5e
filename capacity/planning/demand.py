"""The demand of a day, in requests a second by time of day, read from a CSV file."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from capacity.errors import InputError

HEADER = ("start", "rps")
DAY_S = 86_400
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True)
class Slot:
    """At most `rps` requests a second, from `start_s` seconds after midnight for `length_s` seconds."""

    start_s: int
    length_s: int
    rps: float

    @property
    def name(self) -> str:
        """The time of day at which it begins, such as `06:30`."""
        return f"{self.start_s // 3600:02d}:{self.start_s % 3600 // 60:02d}"

    @property
    def hours(self) -> float:
        """Its length in hours."""
        return self.length_s / 3600


@dataclass(frozen=True)
class Demand:
    """The slots of one day, without gaps, from 00:00 to 24:00."""

    slots: tuple[Slot, ...]

    @property
    def peak_rps(self) -> float:
        """The highest rate of the day."""
        return max(slot.rps for slot in self.slots)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads `start,rps`: the time of day as HH:MM, and the requests a second from then until the next line.

        The first line is 00:00, times rise, the last slot ends at midnight; empty lines and lines that begin with #
        are skipped. Raises InputError with the file and the line.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"demand file {path} cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from None
        starts: list[tuple[int, float]] = []
        for number, fields in _lines(text, path):
            start_s, rps = _values(fields, f"{path}, line {number}")
            if not starts and start_s != 0:
                raise InputError(f"{path}, line {number}: expected the day to begin at 00:00, not at {fields[0]}")
            if starts and start_s <= starts[-1][0]:
                raise InputError(f"{path}, line {number}: expected a time after the line before it, not {fields[0]}")
            starts.append((start_s, rps))
        if not starts:
            raise InputError(
                f"{path} has no lines: expected lines such as 00:00,120 under the header {','.join(HEADER)}"
            )
        if not any(rps for _start, rps in starts):
            raise InputError(f"{path} has 0 requests a second all day: expected at least one rate above 0")
        ends = [start for start, _rps in starts[1:]] + [DAY_S]
        return cls(tuple(Slot(start, end - start, rps) for (start, rps), end in zip(starts, ends, strict=True)))


def _lines(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines with fields, numbered as in the file, without the header."""
    has_header = False
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = [field.strip() for field in next(csv.reader([line]))]
        if not has_header:
            has_header = True
            if tuple(field.lower() for field in fields) != HEADER:
                raise InputError(f"{path}, line {number}: expected the header {','.join(HEADER)}, not {line.strip()}")
            continue
        yield number, fields
    if not has_header:
        raise InputError(f"{path} is empty: expected the header {','.join(HEADER)}")


def _values(fields: list[str], where: str) -> tuple[int, float]:
    if len(fields) != len(HEADER):
        raise InputError(f"{where}: expected a time and a rate, such as 06:30,120, not {len(fields)} fields")
    time = _TIME.fullmatch(fields[0])
    if time is None:
        raise InputError(f"{where}: expected a time of day such as 06:30, not {fields[0]!r}")
    try:
        rps = float(fields[1])
    except ValueError:
        rps = -1.0
    if not (math.isfinite(rps) and 0 <= rps < 1e9):
        raise InputError(f"{where}: expected a rate of 0 or more requests a second, not {fields[1]!r}")
    return int(time[1]) * 3600 + int(time[2]) * 60, rps
