"""When requests are due: generators of due times, in ns from the user's start. There is no clock in here.

Each Locust user is one independent source. Sources of Poisson arrivals add up to Poisson arrivals, so the user count,
wherever Locust puts its users, sets the offered rate exactly.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

#: Fractional parts of its multiples spread evenly over [0, 1) for any number of them.
_GOLDEN = (math.sqrt(5) - 1) / 2
_BLOCK = 1024


def constant(rate: float, source: int = 0) -> Iterator[int]:
    """Every 1/rate seconds. The phase differs by source, so that sources of one rate interleave and never coincide."""
    period_ns = 1e9 / rate
    phase_ns = math.modf(source * _GOLDEN)[0] * period_ns
    number = 0
    while True:
        # Multiplied, not added up: rounding errors of a million steps would be a drift.
        yield int(phase_ns + number * period_ns)
        number += 1


def poisson(rate: float, seed: tuple[int, ...]) -> Iterator[int]:
    """Exponential gaps of mean 1/rate seconds; the same for the same seed."""
    generator = np.random.default_rng(seed)
    now_ns = 0.0
    while True:
        due = now_ns + np.cumsum(generator.exponential(1e9 / rate, _BLOCK))
        now_ns = float(due[-1])
        yield from due.astype(np.int64).tolist()


@dataclass(frozen=True)
class Arrival:
    """One row of a trace: when, in seconds from its start; for which model and of what size, where it says."""

    arrival_s: float
    model: str = ""
    size: int | None = None


def read_trace(path: Path) -> list[Arrival]:
    """A CSV with a column `arrival_s` and, if wanted, `model` and `size`, in order of time.

    Raises ValueError with the line where something is not a number or time runs backwards.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = set(reader.fieldnames or ())
        if "arrival_s" not in columns or columns - {"arrival_s", "model", "size"}:
            raise ValueError(
                f"{path}: the columns are arrival_s[,model][,size], not {','.join(reader.fieldnames or ())}"
            )
        arrivals: list[Arrival] = []
        for row in reader:
            try:
                seconds = float(row["arrival_s"])
                size = int(row["size"]) if row.get("size") else None
            except (TypeError, ValueError):
                raise ValueError(f"{path}, line {reader.line_num}: not a number") from None
            if not math.isfinite(seconds) or seconds < (arrivals[-1].arrival_s if arrivals else 0.0):
                raise ValueError(
                    f"{path}, line {reader.line_num}: arrival_s must not fall; it is seconds from the start"
                )
            arrivals.append(Arrival(seconds, row.get("model") or "", size))
    if not arrivals:
        raise ValueError(f"{path}: no arrivals")
    return arrivals


def convert_azure(source: Path, destination: Path) -> int:
    """Writes Azure's LLM inference trace (TIMESTAMP, ContextTokens, GeneratedTokens) as one of ours; how many rows.

    Times count from the first row, `size` is the context's tokens. Raises ValueError with the line.
    """
    with source.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"TIMESTAMP", "ContextTokens"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{source}: not Azure's LLM trace, which has TIMESTAMP and ContextTokens")
        rows: list[tuple[float, int]] = []
        for row in reader:
            try:
                # Seven digits of a second are one more than datetime reads.
                moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", row["TIMESTAMP"].strip()))
                rows.append((moment.replace(tzinfo=moment.tzinfo or UTC).timestamp(), int(row["ContextTokens"])))
            except (TypeError, ValueError):
                raise ValueError(f"{source}, line {reader.line_num}: not a time and a number of tokens") from None
    if not rows:
        raise ValueError(f"{source}: no rows")
    rows.sort(key=lambda row: row[0])
    with destination.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["arrival_s", "size"])
        writer.writerows((f"{moment - rows[0][0]:.6f}", tokens) for moment, tokens in rows)
    return len(rows)


def trace(
    arrivals: Iterable[Arrival], *, scale: float = 1.0, keep: float = 1.0, seed: int = 0
) -> Iterator[tuple[int, Arrival]]:
    """Due times of a trace. `scale` 2 plays it twice as fast, with every burst; `keep` 0.5 drops half of the arrivals
    at random, which thins bursts and leaves the clock alone."""
    generator = np.random.default_rng(seed)
    for arrival in arrivals:
        if keep >= 1.0 or generator.random() < keep:
            yield int(arrival.arrival_s * 1e9 / scale), arrival
