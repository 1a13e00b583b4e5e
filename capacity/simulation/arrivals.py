"""When requests are due: due times in ns from a source's start, for the load and for simulating it alike.

There is no clock in here. Sources of Poisson arrivals add up to Poisson arrivals, so the number of sources, wherever
they are, sets the offered rate exactly.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

#: Fractional parts of its multiples spread evenly over [0, 1) for any number of them.
_GOLDEN = (math.sqrt(5) - 1) / 2
_BLOCK = 1024


def constant_offsets(rate: float, source: int = 0, seed: tuple[int, ...] = ()) -> Iterator[int]:
    """Yields a due time every 1/rate seconds. The phase differs by source: sources of one rate interleave and never
    coincide. `seed` has no effect."""
    period_ns = 1e9 / rate
    phase_ns = math.modf(source * _GOLDEN)[0] * period_ns
    number = 0
    while True:
        # Multiplied, not added up: rounding errors of a million steps would be a drift.
        yield int(phase_ns + number * period_ns)
        number += 1


def poisson_offsets(rate: float, source: int, seed: tuple[int, ...]) -> Iterator[int]:
    """Yields due times with exponential gaps of mean 1/rate seconds, independent for each source."""
    generator = np.random.default_rng((*seed, source))
    now_ns = 0.0
    while True:
        due = now_ns + np.cumsum(generator.exponential(1e9 / rate, _BLOCK))
        now_ns = float(due[-1])
        yield from due.astype(np.int64).tolist()


#: The open arrival patterns of --arrivals. A pattern takes the rate of one source in requests a second, the number of
#: the source and the seed of the run, and yields ascending due times in ns from the start of the source. The load, its
#: command line and the simulation all read this table: a new pattern is one function and one line here.
OPEN_ARRIVALS: Mapping[str, Callable[[float, int, tuple[int, ...]], Iterator[int]]] = {
    "constant": constant_offsets,
    "poisson": poisson_offsets,
}


def arrival_offsets(pattern: str, rate: float, source: int, seed: tuple[int, ...]) -> Iterator[int]:
    """Due times in ns of one source by a pattern of OPEN_ARRIVALS; the same for the same arguments."""
    return OPEN_ARRIVALS[pattern](rate, source, seed)


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


def trace_offsets(
    arrivals: Iterable[Arrival], *, scale: float = 1.0, keep: float = 1.0, seed: int = 0
) -> Iterator[tuple[int, Arrival]]:
    """Due times of a trace. `scale` 2 plays it twice as fast, with every burst; `keep` 0.5 drops half of the arrivals
    at random, which thins bursts and leaves the clock alone."""
    generator = np.random.default_rng(seed)
    for arrival in arrivals:
        if keep >= 1.0 or generator.random() < keep:
            yield int(arrival.arrival_s * 1e9 / scale), arrival


def arrivals(
    kind: str, rate: float, *, seconds: float | None = None, n: int | None = None, seed: int = 1, users: int = 1
) -> NDArray[np.float64]:
    """Due times in s, shape (n,), of `users` sources that offer `rate` requests a second together; see `sourced`."""
    return sourced(kind, rate, seconds=seconds, n=n, seed=seed, users=users)[0]


def sourced(
    kind: str, rate: float, *, seconds: float | None = None, n: int | None = None, seed: int = 1, users: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Due times in s, ascending, and which source each is of; shapes (n,). Say `seconds` or `n`; a trace needs neither.

    `kind` is `poisson`, `constant` or `trace:FILE`, as --arrivals has it, and the times are the generators' own. A
    trace is played at the speed that makes its mean rate `rate`; it is one source for all users, dealt to them in turn.
    One seed at two rates gives the same times but for their scale. ValueError on anything else.
    """
    if not rate > 0 or not math.isfinite(rate):
        raise ValueError(f"arrivals come at a rate above 0, not {rate:g} a second")
    if users < 1:
        raise ValueError(f"arrivals have at least one source, not {users}")
    if kind.startswith("trace:"):
        return _traced(Path(kind.removeprefix("trace:")), rate, seconds, n, users)
    if kind not in OPEN_ARRIVALS:
        raise ValueError(f"unknown arrivals '{kind}' (choose {', '.join(OPEN_ARRIVALS)} or trace:FILE)")
    if (seconds is None) == (n is None):
        raise ValueError("arrivals have a length: so many seconds, or so many requests")
    each = rate / users
    # In the shared time of n arrivals, a source has n / users of them, give or take its deviation.
    most = n if n is not None else math.ceil((seconds or 0) * rate)
    share = most if users == 1 else math.ceil(most / users + 6 * math.sqrt(most / users) + 6)
    times = [
        np.fromiter(islice(arrival_offsets(kind, each, source, (seed,)), share), np.int64) for source in range(users)
    ]
    if seconds is not None:
        times = [_long_enough(kind, one, each, seed, source, seconds) for source, one in enumerate(times)]
    due = np.concatenate(times)
    source = np.repeat(np.arange(users), [one.size for one in times])
    order = np.argsort(due, kind="stable")
    order = order[:n] if n is not None else order[due[order] < (seconds or 0) * 1e9]
    return due[order] / 1e9, source[order]


def _long_enough(
    kind: str, have: NDArray[np.int64], rate: float, seed: int, source: int, seconds: float
) -> NDArray[np.int64]:
    """A source's arrivals until `seconds`, drawn again twice as long where they ended before."""
    while not have.size or have[-1] < seconds * 1e9:
        have = np.fromiter(islice(arrival_offsets(kind, rate, source, (seed,)), 2 * have.size + _BLOCK), np.int64)
    return have


def _traced(
    path: Path, rate: float, seconds: float | None, n: int | None, users: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rows = read_trace(path)
    length_s = rows[-1].arrival_s
    if length_s <= 0:
        raise ValueError(f"{path}: all arrivals at one moment have no rate")
    scale = rate / (len(rows) / length_s)
    due = np.array([ns for ns, _row in trace_offsets(rows, scale=scale)]) / 1e9
    kept = due[: n if n is not None else None]
    if seconds is not None:
        kept = kept[kept < seconds]
    return kept, np.arange(kept.size) % users
