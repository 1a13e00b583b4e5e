"""Traces of arrivals: a CSV file with the times, and where the file has them the models and sizes, of requests."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from capacity.errors import InputError

#: `--arrivals trace:FILE`.
TRACE_PREFIX = "trace:"


@dataclass(frozen=True)
class Arrival:
    """One row of a trace: seconds from its start, and the model and the size of the request where it has them."""

    arrival_s: float
    model: str = ""
    size: int | None = None


def read_trace(path: Path) -> list[Arrival]:
    """Reads a CSV with a column `arrival_s`, ascending, and optionally `model` and `size`.

    Raises InputError with the line where a field is not a number or a time is before that of the line above, and where
    the file is no CSV file; OSError where it cannot be opened.
    """
    try:
        return _read_trace(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file: {error}") from None


def _read_trace(path: Path) -> list[Arrival]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = set(reader.fieldnames or ())
        if "arrival_s" not in columns or columns - {"arrival_s", "model", "size"}:
            raise InputError(
                f"{path}: expected the columns arrival_s[,model][,size], not {','.join(reader.fieldnames or ())}"
            )
        arrivals: list[Arrival] = []
        for row in reader:
            try:
                seconds = float(row["arrival_s"])
                size = int(row["size"]) if row.get("size") else None
            except (TypeError, ValueError):
                raise InputError(f"{path}, line {reader.line_num}: not a number") from None
            if not math.isfinite(seconds) or seconds < (arrivals[-1].arrival_s if arrivals else 0.0):
                raise InputError(
                    f"{path}, line {reader.line_num}: arrival_s must not fall; it is seconds from the start"
                )
            arrivals.append(Arrival(seconds, row.get("model") or "", size))
    if not arrivals:
        raise InputError(f"{path}: no arrivals")
    return arrivals


def trace_offsets(
    arrivals: Iterable[Arrival], *, scale: float = 1.0, keep: float = 1.0, seed: int = 0
) -> Iterator[tuple[int, Arrival]]:
    """Yields the due time in ns of each row of a trace, with the row.

    `scale` 2 plays the trace twice as fast, bursts included. `keep` 0.5 drops half of the arrivals at random, which
    thins bursts and leaves the times alone.
    """
    generator = np.random.default_rng(seed)
    for arrival in arrivals:
        if keep >= 1.0 or generator.random() < keep:
            yield int(arrival.arrival_s * 1e9 / scale), arrival
