"""Puts the results of all series into histograms in bulk: the warm-up, each interval, and the total."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from capacity.measures import LATENCY_ERROR, OFFERED, Series, Tally
from capacity.measures import UNSENT as UNSENT_MEASURE
from capacity.statistics import Histogram
from loadgen.measure._result_buffer import Result, ResultBuffer
from loadgen.transport import UNSENT, code_name

#: Later than any clock reading: nothing is measured until ramp-up and warm-up are over.
NEVER = 2**62


class Recorder:
    """The result buffers of one generator and their histograms. `total` and `warmup` are cumulative; requests due
    before `measuring_from` (ns) and the first request of each series count as warm-up.
    """

    def __init__(self, buffers: Mapping[Series, ResultBuffer]) -> None:
        self.buffers = buffers
        self.total = {series: Tally() for series in buffers}
        self.warmup = {series: Tally() for series in buffers}
        self.measuring_from = NEVER
        #: When the last request ended, in ns.
        self.last_done = 0
        #: Requests answered so far, of warm-up and measured part.
        self.answered = 0
        self._interval = {series: Tally() for series in buffers}

    @property
    def first_requests_ns(self) -> dict[Series, int]:
        """Latency of the first request of each series, in ns."""
        return {series: buffer.first_ns for series, buffer in self.buffers.items() if buffer.first_ns is not None}

    def fold(self) -> dict[Series, npt.NDArray[np.int64]]:
        """Adds what the buffers hold to the histograms of this interval.

        Returns the measured answered requests as rows of (due, sent, done) in ns, in the order in which they ended.
        """
        answered: dict[Series, npt.NDArray[np.int64]] = {}
        for series, buffer in self.buffers.items():
            rows, failed = buffer.take_results()
            if len(rows):
                self.answered += len(rows)
                measured = rows[:, 0] >= self.measuring_from
                if buffer.first_due is not None:
                    measured &= rows[:, 0] != buffer.first_due
                answered[series] = rows[measured]
                _add_answered(self._interval[series], answered[series])
                _add_answered(self.warmup[series], rows[~measured])
                self.last_done = max(self.last_done, int(rows[:, 2].max()))
            for result in failed:
                _add_failed(self._tally_of(series, result.due), result)
                self.last_done = max(self.last_done, result.done)
            for due in buffer.take_retries():
                self._tally_of(series, due).retries += 1
        return answered

    def _tally_of(self, series: Series, due: int) -> Tally:
        measured = due >= self.measuring_from and due != self.buffers[series].first_due
        return (self._interval if measured else self.warmup)[series]

    def flip(self) -> dict[Series, Tally]:
        """Ends the interval and begins another. Returns the ended one, which is in `total` from now on."""
        self.fold()
        for series, buffer in self.buffers.items():
            self._interval[series].histograms[OFFERED].record_ns(np.zeros(buffer.take_offered(), dtype=np.int64))
        interval, self._interval = self._interval, {series: Tally() for series in self.buffers}
        for series, tally in interval.items():
            self.total[series].add(tally)
        return interval


def _add_answered(tally: Tally, rows: npt.NDArray[np.int64]) -> None:
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
        tally.histograms[UNSENT_MEASURE].record_ns([0])
        return
    name = code_name(result.code)
    tally.errors[name] = tally.errors.get(name, 0) + 1
    tally.histograms[LATENCY_ERROR].record_ns([result.done - result.due])
    tally.histograms["lateness"].record_ns([result.sent - result.due])


def tally_difference(later: Tally, earlier: Tally) -> Tally:
    """What a cumulative tally gained since `earlier`, a previous state of the same tally."""
    difference = Tally(
        due=later.due - earlier.due,
        answered=later.answered - earlier.answered,
        unsent=later.unsent - earlier.unsent,
        retries=later.retries - earlier.retries,
        errors={code: count - earlier.errors.get(code, 0) for code, count in later.errors.items()},
    )
    empty = Histogram()
    for name, histogram in later.histograms.items():
        if not histogram.count and name in difference.histograms:
            continue
        difference.histograms[name] = histogram.subtract(earlier.histograms.get(name, empty))
    return difference
