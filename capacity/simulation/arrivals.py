"""Arrival patterns: due times of requests, for the generators and for the simulation of pools alike.

Independent Poisson sources add up to a Poisson process, so the number of sources sets the offered rate exactly.
To add a pattern, write a function with the signature of `ArrivalPattern` and enter it in `OPEN_ARRIVALS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from capacity.errors import InputError
from capacity.simulation.trace import TRACE_PREFIX, read_trace, trace_offsets

#: The fractional parts of its multiples spread evenly over [0, 1), whatever their number (Weyl's sequence).
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
_BLOCK = 1024

#: Due times in ns from the start of one source, without end. Arguments: requests a second, the number of the source,
#: and the seed, which all sources of a run share.
ArrivalPattern = Callable[[float, int, tuple[int, ...]], Iterator[int]]


def constant_offsets(rate_rps: float, source: int = 0, seed: tuple[int, ...] = ()) -> Iterator[int]:
    """Yields a due time every 1/rate seconds. The phase differs by source, so that sources interleave evenly.

    `seed` has no effect.
    """
    period_ns = 1e9 / rate_rps
    phase_ns = math.modf(source * _GOLDEN_RATIO)[0] * period_ns
    number = 0
    while True:
        # A product and not a running sum, whose rounding errors would drift over a million steps.
        yield int(phase_ns + number * period_ns)
        number += 1


def poisson_offsets(rate_rps: float, source: int, seed: tuple[int, ...]) -> Iterator[int]:
    """Yields due times with independent exponential gaps of mean 1/rate seconds, the same for the same seed."""
    generator = np.random.default_rng((*seed, source))
    now_ns = 0.0
    while True:
        due = now_ns + np.cumsum(generator.exponential(1e9 / rate_rps, _BLOCK))
        now_ns = float(due[-1])
        yield from due.astype(np.int64).tolist()


#: The patterns by their names on the command line. Traces are not among them: they have no rate of their own choice.
OPEN_ARRIVALS: Mapping[str, ArrivalPattern] = MappingProxyType(
    {"constant": constant_offsets, "poisson": poisson_offsets}
)


def arrival_offsets(pattern: str, rate_rps: float, source: int, seed: tuple[int, ...]) -> Iterator[int]:
    """Yields the due times in ns of one source by a pattern of `OPEN_ARRIVALS`; the same for the same arguments."""
    return OPEN_ARRIVALS[pattern](rate_rps, source, seed)


def arrival_times(
    pattern: str, rate: float, *, seconds: float | None = None, n: int | None = None, seed: int = 1, users: int = 1
) -> NDArray[np.float64]:
    """Returns the due times of `arrival_times_by_source` without their sources, in seconds, shape (n,)."""
    return arrival_times_by_source(pattern, rate, seconds=seconds, n=n, seed=seed, users=users)[0]


def arrival_times_by_source(
    pattern: str, rate: float, *, seconds: float | None = None, n: int | None = None, seed: int = 1, users: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns ascending due times in seconds and the source of each, of `users` sources with `rate` requests a second
    together; both of shape (n,).

    `pattern` is a name of `OPEN_ARRIVALS` or `trace:FILE`, and the times are those of the generators. Give `seconds`
    or `n`; a trace needs neither. A trace is played at the speed that makes its mean rate `rate`; it is one source,
    whose requests go to the users in turn. One seed at two rates yields the same times but for their scale.
    Raises InputError where an argument is wrong.
    """
    if not rate > 0 or not math.isfinite(rate):
        raise InputError(f"arrivals: expected a rate above 0 requests a second, not {rate:g}")
    if users < 1:
        raise InputError(f"arrivals: expected at least one source, not {users}")
    if pattern.startswith(TRACE_PREFIX):
        return _trace_times(Path(pattern.removeprefix(TRACE_PREFIX)), rate, seconds, n, users)
    if pattern not in OPEN_ARRIVALS:
        names = ", ".join(sorted(OPEN_ARRIVALS))
        raise InputError(f"unknown arrivals '{pattern}' (choose {names} or {TRACE_PREFIX}FILE)")
    if (seconds is None) == (n is None):
        raise InputError("arrivals: expected a length, either in seconds or in requests")
    rate_each = rate / users
    # In the time of n arrivals a source has n / users of them, give or take a few standard deviations.
    total = n if n is not None else math.ceil((seconds or 0) * rate)
    length = total if users == 1 else math.ceil(total / users + 6 * math.sqrt(total / users) + 6)
    times = [_source_times(pattern, rate_each, source, seed, length, seconds) for source in range(users)]
    due = np.concatenate(times)
    source = np.repeat(np.arange(users), [part.size for part in times])
    order = np.argsort(due, kind="stable")
    order = order[:n] if n is not None else order[due[order] < (seconds or 0) * 1e9]
    return due[order] / 1e9, source[order]


def _source_times(
    pattern: str, rate: float, source: int, seed: int, length: int, seconds: float | None
) -> NDArray[np.int64]:
    """The first `length` due times of one source in ns; more where they end before `seconds`."""
    while True:
        times = np.fromiter(islice(arrival_offsets(pattern, rate, source, (seed,)), length), np.int64)
        if seconds is None or (times.size and times[-1] >= seconds * 1e9):
            return times
        length = 2 * times.size + _BLOCK


def _trace_times(
    path: Path, rate: float, seconds: float | None, n: int | None, users: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rows = read_trace(path)
    length_s = rows[-1].arrival_s
    if length_s <= 0:
        raise InputError(f"{path}: all arrivals are at one moment, so the trace has no rate")
    scale = rate / (len(rows) / length_s)
    due = np.array([ns for ns, _row in trace_offsets(rows, scale=scale)])[:n] / 1e9
    if seconds is not None:
        due = due[due < seconds]
    return due, np.arange(due.size) % users
