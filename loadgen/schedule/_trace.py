"""Plays a trace: when its requests are due, and which row each of them is. It does not know where a row is sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from capacity.simulation import Arrival, read_trace, trace_offsets
from loadgen._errors import InputError


class TracePlayer:
    """The rows of a trace that this generator sends. `models` are the names of models in them, of all generators."""

    def __init__(self, rows: Iterator[tuple[int, Arrival]], models: frozenset[str] = frozenset()) -> None:
        self.models = models
        self._rows = rows
        self._due: deque[Arrival] = deque()

    def offsets(self, ended: Callable[[], None]) -> Iterator[int]:
        """Yields the due time of each row in ns from the start of the trace, then calls `ended`."""
        for offset, row in self._rows:
            self._due.append(row)
            yield offset
        ended()

    def next_row(self) -> Arrival:
        """The row of the earliest due time whose row was not returned yet."""
        return self._due.popleft()


def open_trace(path: Path, *, scale: float, keep: float, seed: int, share: tuple[int, int]) -> TracePlayer:
    """Reads a trace file. `scale` 2 plays it twice as fast; `keep` is the share of rows that are sent, by `seed`.

    `share` is (number of this generator, number of generators): the rows are dealt out in turn. Raises InputError.
    """
    try:
        arrivals = read_trace(path)
    except (OSError, ValueError) as error:
        raise InputError(f"--arrivals trace: {error}") from None
    rows = trace_offsets(arrivals, scale=scale, keep=keep, seed=seed)
    number, count = share
    # Rows are dropped before they are dealt out: any number of generators sends the same rows.
    own = (row for index, row in enumerate(rows) if index % count == number)
    return TracePlayer(own, frozenset(row.model for row in arrivals if row.model))
