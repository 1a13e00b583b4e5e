"""--retries: a request that was refused and not run is sent once more, after a jittered wait and within its deadline.

It stays one request: it is due once, ends once, and its latency counts from the time it was due.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import gevent

from loadgen.transport import OK, UNAVAILABLE, ConnectionLost, Reply

if TYPE_CHECKING:
    from loadgen.measure import ResultBuffer
    from loadgen.run._session import Session
    from loadgen.targets import Route

#: The wait before the n-th retry is anything from 0 to FIRST × 2**(n - 1), at most LONGEST: full jitter, so that what
#: was refused together does not come back together.
FIRST_S, LONGEST_S = 0.02, 1.0


class Again:
    """One request on its way beyond its first attempt. `route` is where it was sent last, `sent` when it was first."""

    def __init__(
        self,
        session: Session,
        route: Route,
        message: bytes,
        due: int,
        sent: int,
        deadline_s: float,
        candidates: Sequence[Route] | None,
    ) -> None:
        self.route = route
        self.message = message
        self._session = session
        self._due = due
        self._sent = sent
        self._ends_ns = sent + round(deadline_s * 1e9)
        self._candidates = candidates
        self._attempts = 0

    @property
    def left_s(self) -> float:
        """What is left of the deadline."""
        return (self._ends_ns - time.monotonic_ns()) / 1e9

    def delay_s(self, reply: Reply) -> float | None:
        """How long to wait before it is sent once more; None where it is over."""
        session = self._session
        if reply.code != UNAVAILABLE or isinstance(reply, ConnectionLost) or self._attempts >= session.options.retries:
            return None
        delay_s = random.uniform(0, min(FIRST_S * 2**self._attempts, LONGEST_S))
        if not session.issuing or delay_s >= self.left_s:
            return None
        self._attempts += 1
        return delay_s

    def move(self) -> ResultBuffer:
        """Chooses where it goes now, and counts it there; the lane that it left has it no longer in flight."""
        old = self.route
        new = self._session.router.choose_again(old, self._candidates) or old
        if self.message is old.payload.message:
            self.message = new.payload.message
        self.route = new
        self._session.move(old.results, new.results, self._due)
        new.results.outstanding += 1
        new.results.record_retry(self._due)
        return new.results

    def waited(self, reply: Reply) -> bool:
        """In a closed loop: waits, this greenlet only, and moves. False where it is over with this reply."""
        delay_s = self.delay_s(reply)
        if delay_s is None:
            return False
        lane = self.route.results
        lane.outstanding -= 1
        try:
            gevent.sleep(delay_s)
        finally:
            lane.outstanding += 1
        if not self._session.issuing or self.left_s <= 0:
            return False
        lane.outstanding -= 1
        self.move()
        return True

    def start(self, reply: Reply) -> bool:
        """In an open loop: sees to the rest of the request's life. False where it is over with this reply."""
        delay_s = self.delay_s(reply)
        if delay_s is None:
            return False
        self.route.results.outstanding -= 1
        gevent.spawn_later(delay_s, self._send, reply)
        return True

    def _send(self, refused: Reply) -> None:
        if not self._session.issuing or self.left_s <= 0:
            self.route.results.outstanding += 1
            self._session.end(self.route.results, self._due, self._sent, refused.code)
            return
        self.move()
        self.route.channel.start(self.route.frame(self.message), self.left_s, self._done)

    def _done(self, reply: Reply) -> None:
        code = self.route.reply_code(self.message, reply)
        if code != OK:
            self.route.health.report_failure(reply)
            if self.start(reply):
                return
        self._session.end(self.route.results, self._due, self._sent, code)
