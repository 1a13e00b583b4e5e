"""Results collect in flat arrays and go into the histograms in bulk, so that recording costs the load path little."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from capacity.measures.tally import LATENCY_ERROR, OFFERED, Series, Tally
from capacity.measures.tally import UNSENT as NEVER_SENT
from capacity.statistics.histogram import Histogram
from loadgen.transport._reply import CANCELLED, DEADLINE_EXCEEDED, OK, UNAVAILABLE, UNSENT, code_name

#: Later than any clock reading: nothing is measured until the ramp-up and the warm-up are over.
NEVER = 2**62


#: Failures in which the server may have had no part.
_SILENT = (CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE, UNSENT)


class Result(NamedTuple):
    """One request: when it was due, sent and done, in ns of one monotonic clock; a failed one has a code above 0.

    One that was due and could not be sent has the code UNSENT, and the time when that was clear in `sent` and `done`.
    """

    due: int
    sent: int
    done: int
    code: int = 0


class Lane:
    """The results of one series on this generator, as they come in. `outstanding` is what is in flight now.

    The very first request that a lane sends is told apart by its due time: it counts as warm-up, whatever comes of it.
    `offered` counts requests of the measured part as they become due.
    """

    __slots__ = (
        "_answered",
        "_drained",
        "_failed",
        "_refusals",
        "_resent",
        "budget",
        "first_due",
        "first_ns",
        "offered",
        "outstanding",
        "series",
    )

    def __init__(self, series: Series) -> None:
        self.series = series
        self.outstanding = 0
        self.offered = 0
        self.budget: int | None = None
        self.first_due: int | None = None
        self.first_ns: int | None = None
        self._answered = array("q")
        self._failed: list[Result] = []
        self._drained = 0
        self._refusals = 0
        self._resent: list[int] = []

    @property
    def answered(self) -> int:
        """Requests answered so far, of warm-up and measured part."""
        return self._drained + len(self._answered) // 3

    @property
    def replied(self) -> int:
        """As `answered`, with the requests that the server refused in words of its own."""
        return self.answered + self._refusals

    def resend(self, due: int) -> None:
        """A request that was due then is sent once more: it is still one request."""
        self._resent.append(due)

    def take_resent(self) -> list[int]:
        """Due times of what was sent once more since the last call, one for each time."""
        resent, self._resent = self._resent, []
        return resent

    def record(self, due: int, sent: int, done: int, code: int) -> None:
        """Takes one result, in the parts of a Result: a tuple for each request would cost more than keeping it."""
        if code == OK:
            self._answered.extend((due, sent, done))
        else:
            self._failed.append(Result(due, sent, done, code))
            self._refusals += code not in _SILENT

    def drain(self) -> tuple[npt.NDArray[np.int64], list[Result]]:
        """What came in since the last call: answered ones as rows of (due, sent, done) in ns, and the failed ones."""
        answered, self._answered = self._answered, array("q")
        self._drained += len(answered) // 3
        failed, self._failed = self._failed, []
        rows = np.frombuffer(answered, dtype=np.int64).reshape(-1, 3) if answered else np.empty((0, 3), dtype=np.int64)
        if self.first_ns is None and self.first_due is not None:
            self.first_ns = _first(rows, failed, self.first_due)
        return rows, failed


def _first(rows: npt.NDArray[np.int64], failed: list[Result], due: int) -> int | None:
    mine = rows[rows[:, 0] == due]
    if len(mine):
        return int(mine[0, 2] - due)
    return next((result.done - due for result in failed if result.due == due), None)


class Recorder:
    """All lanes of one generator. `total` and `warmup` are cumulative; `flip` hands out what came since the last."""

    def __init__(self, lanes: Mapping[Series, Lane]) -> None:
        self.lanes = lanes
        self.total = {series: Tally() for series in lanes}
        self.warmup = {series: Tally() for series in lanes}
        self.measuring_from = NEVER
        self.last_done = 0
        #: How many were answered so far, warm-up and all.
        self.answered = 0
        self._interval = {series: Tally() for series in lanes}

    @property
    def first_requests_ns(self) -> dict[Series, int]:
        """Latency of the first request that each lane sent."""
        return {series: lane.first_ns for series, lane in self.lanes.items() if lane.first_ns is not None}

    def fold(self) -> dict[Series, npt.NDArray[np.int64]]:
        """Takes what the lanes collected into the histograms of this interval. Returns the measured answered rows of
        (due, sent, done) in ns, in the order in which they ended."""
        taken: dict[Series, npt.NDArray[np.int64]] = {}
        for series, lane in self.lanes.items():
            rows, failed = lane.drain()
            if len(rows):
                self.answered += len(rows)
                measured = rows[:, 0] >= self.measuring_from
                if lane.first_due is not None:
                    measured &= rows[:, 0] != lane.first_due
                taken[series] = rows[measured]
                _add(self._interval[series], taken[series])
                _add(self.warmup[series], rows[~measured])
                self.last_done = max(self.last_done, int(rows[:, 2].max()))
            for result in failed:
                counted = result.due >= self.measuring_from and result.due != lane.first_due
                _add_failed((self._interval if counted else self.warmup)[series], result)
                self.last_done = max(self.last_done, result.done)
            for due in lane.take_resent():
                counted = due >= self.measuring_from and due != lane.first_due
                (self._interval if counted else self.warmup)[series].retries += 1
        return taken

    def flip(self) -> dict[Series, Tally]:
        """The interval that ends now; it is added to `total`, and a new one begins."""
        self.fold()
        for series, lane in self.lanes.items():
            # A request that moved elsewhere after its interval is owed by those to come.
            offered = max(lane.offered, 0)
            lane.offered -= offered
            self._interval[series].histograms[OFFERED].record_ns(np.zeros(offered, dtype=np.int64))
        finished, self._interval = self._interval, {series: Tally() for series in self.lanes}
        for series, tally in finished.items():
            self.total[series].add(tally)
        return finished


def _add(tally: Tally, rows: npt.NDArray[np.int64]) -> None:
    if not len(rows):
        return
    due, sent, done = rows[:, 0], rows[:, 1], rows[:, 2]
    tally.due += len(rows)
    tally.answered += len(rows)
    tally.histograms["latency"].record_ns(done - due)
    tally.histograms["service"].record_ns(done - sent)
    tally.histograms["lateness"].record_ns(sent - due)


def _add_failed(tally: Tally, result: Result) -> None:
    tally.due += 1
    if result.code == UNSENT:
        tally.unsent += 1
        tally.histograms[NEVER_SENT].record_ns([0])
        return
    name = code_name(result.code)
    tally.errors[name] = tally.errors.get(name, 0) + 1
    tally.histograms[LATENCY_ERROR].record_ns([result.done - result.due])
    tally.histograms["lateness"].record_ns([result.sent - result.due])


def difference(later: Tally, earlier: Tally) -> Tally:
    """What a cumulative tally gained since an earlier state of it."""
    gained = Tally(
        due=later.due - earlier.due,
        answered=later.answered - earlier.answered,
        unsent=later.unsent - earlier.unsent,
        retries=later.retries - earlier.retries,
        errors={code: count - earlier.errors.get(code, 0) for code, count in later.errors.items()},
    )
    empty = Histogram()
    for name, histogram in later.histograms.items():
        if not histogram.count and name in gained.histograms:
            continue
        gained.histograms[name] = histogram.subtract(earlier.histograms.get(name, empty))
    return gained
