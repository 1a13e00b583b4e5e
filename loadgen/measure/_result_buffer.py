"""Results of requests as they come in, in flat arrays: recording must cost the load path little."""

from __future__ import annotations

from array import array
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from capacity.measures import Series
from loadgen.transport import CANCELLED, DEADLINE_EXCEEDED, OK, UNAVAILABLE, UNSENT

#: Failures that may have happened without the server: they do not show that it is alive.
_WITHOUT_SERVER = (CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE, UNSENT)


class Result(NamedTuple):
    """One request: when it was due, sent and done, in ns of one monotonic clock; a failed one has a code above 0.

    A request that was due and never sent has the code UNSENT, and in `sent` and `done` the time of that decision.
    """

    due: int
    sent: int
    done: int
    code: int = 0


class ResultBuffer:
    """The results of one series on this generator, until the recorder takes them.

    Only loadgen.generator.InFlightRequest changes `outstanding`, `offered`, `budget` and `first_due` during a run:

    - `outstanding`: requests in flight to the target now;
    - `offered`: requests of the measured part that became due since the last `take_offered`;
    - `budget`: measured requests that may still become due; None is no limit, 0 closes the target to new requests;
    - `first_due`: due time in ns of the very first request. It counts as warm-up, whatever its result.
    """

    __slots__ = (
        "_answered",
        "_failed",
        "_refusals",
        "_resent",
        "_taken",
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
        #: Latency of the first request in ns, once it ended.
        self.first_ns: int | None = None
        self._answered = array("q")
        self._failed: list[Result] = []
        self._taken = 0
        self._refusals = 0
        self._resent: list[int] = []

    @property
    def answered(self) -> int:
        """Requests answered so far, of warm-up and measured part."""
        return self._taken + len(self._answered) // 3

    @property
    def replied(self) -> int:
        """Requests that the server itself answered or refused so far."""
        return self.answered + self._refusals

    def record(self, due: int, sent: int, done: int, code: int) -> None:
        """Adds one result, in the parts of a Result: a tuple for each request would cost more than storing it."""
        if code == OK:
            self._answered.extend((due, sent, done))
        else:
            self._failed.append(Result(due, sent, done, code))
            self._refusals += code not in _WITHOUT_SERVER

    def record_retry(self, due: int) -> None:
        """Counts that the request due at `due` ns is sent once more; it remains one request."""
        self._resent.append(due)

    def take_results(self) -> tuple[npt.NDArray[np.int64], list[Result]]:
        """Returns and removes what came in since the last call: answered requests as rows of (due, sent, done) in ns,
        shape (n, 3), and the failed ones."""
        answered, self._answered = self._answered, array("q")
        self._taken += len(answered) // 3
        failed, self._failed = self._failed, []
        rows = np.frombuffer(answered, dtype=np.int64).reshape(-1, 3) if answered else np.empty((0, 3), dtype=np.int64)
        if self.first_ns is None and self.first_due is not None:
            self.first_ns = _latency_of(self.first_due, rows, failed)
        return rows, failed

    def take_retries(self) -> list[int]:
        """Returns and removes the due times of retries since the last call, one for each."""
        resent, self._resent = self._resent, []
        return resent

    def take_offered(self) -> int:
        """Returns and removes how many measured requests became due since the last call.

        `offered` may be negative, where a retry moved a request of an earlier interval to another target: later
        intervals make up for it.
        """
        offered = max(self.offered, 0)
        self.offered -= offered
        return offered


def _latency_of(due: int, rows: npt.NDArray[np.int64], failed: list[Result]) -> int | None:
    matching = rows[rows[:, 0] == due]
    if len(matching):
        return int(matching[0, 2] - due)
    return next((result.done - due for result in failed if result.due == due), None)
