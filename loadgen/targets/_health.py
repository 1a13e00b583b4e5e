"""Which targets are up, as this generator sees it: suspicion by what requests say, a verdict by a health check.

Nothing is asked of a target that answers. Where one is suspected (its connection is gone, it refuses again and again,
or requests wait and none comes back) a health check on a connection of its own decides. A target that is down is asked
again with a growing, jittered wait until it is well, and then gets its share of the requests back little by little.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

import gevent
from gevent.event import Event

from loadgen.measure import ResultBuffer
from loadgen.transport._reply import CANCELLED, DEADLINE_EXCEEDED, OK, UNAVAILABLE, Reply, Unsettled

#: Requests wait and none comes back for this long: suspicious. A target that turns out to be well, and slow, is given
#: twice the time that it took, up to the longest; each look that finds new answers takes a hundredth of it back.
PATIENCE_S, LONGEST_PATIENCE_S, EASE = 0.25, 5.0, 0.99
#: What a health check may take: with the patience before it a hung target is found out well within a second.
CHECK_S = 0.4
#: Refusals in a row, without an answer in between, that are suspicious. A lost connection is at once.
REFUSALS = 3
#: The least time between two health checks of a target that is up.
PAUSE_S = 0.1
#: Between two health checks of a target that is down: it grows by the factor, with so much jitter.
FIRST_WAIT_S, WAIT_FACTOR, LONGEST_WAIT_S, WAIT_JITTER = 0.1, 1.6, 2.0, 0.2
#: A target that came back gets its full share after this time, and before it a growing one, from the least.
RAMP_S, LEAST_SHARE = 2.0, 0.1
#: A run keeps this many events; a target that flaps for hours must not fill the memory.
MOST_EVENTS = 1000


class HealthChange(NamedTuple):
    """A target went down or came up, and when this generator knew (ns of its monotonic clock)."""

    at_ns: int
    worker: str
    up: bool
    why: str


class HealthTransport(Protocol):
    """The transport to a target, as far as its health goes."""

    @property
    def connected(self) -> bool:
        """False where a connection was there and is gone."""

    def renew(self, timeout_s: float) -> None:
        """The target is well: ends connections whose other end does not answer a PING in time, and lets new ones be
        made at once. Blocks this greenlet only."""


#: A health check: blocks this greenlet at most so many seconds; empty where the target is well, else what is wrong.
HealthCheck = Callable[[float], str]


class HealthChecker:
    """One target's health. `up` is the verdict; `changed(self)` follows each change of it, and the end of a ramp."""

    def __init__(
        self,
        results: ResultBuffer,
        patient: HealthTransport,
        check: HealthCheck,
        changed: Callable[[HealthChecker], None],
        *,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.up = True
        self.ramping = False
        self.events: list[HealthChange] = []
        self.lost_events = 0
        self._results = results
        self._patient = patient
        self._check = check
        self._changed = changed
        self._clock = clock
        self._came_up_ns = 0
        self._refused = 0
        self._answered_then = 0
        self._seen = 0
        self._moved_ns = clock()
        self._connected = True
        self._patience_s = self._calm_s = PATIENCE_S
        self._examined_ns = 0
        self._news = Event()
        self._doctor: gevent.Greenlet | None = None

    def takes(self, chance: float) -> bool:
        """Whether it may be given a request: while it comes back, for a share of chances (0 to 1) that grows."""
        if not self.up or not self.ramping:
            return self.up
        return chance < max(LEAST_SHARE, (self._clock() - self._came_up_ns) / 1e9 / RAMP_S)

    def failed(self, reply: Reply) -> None:
        """A request came back without an answer."""
        if reply.code not in (UNAVAILABLE, DEADLINE_EXCEEDED) or not self.up:
            return
        answered = self._results.answered
        self._refused = self._refused + 1 if answered == self._answered_then else 1
        self._answered_then = answered
        if isinstance(reply, Unsettled):
            self._suspect(reply.message, PAUSE_S)
        elif self._refused >= REFUSALS:
            self._suspect(reply.message, self._calm_s)

    def look(self, late_s: float) -> None:
        """Some twenty times a second; `late_s` is how much later than meant this generator came to it."""
        now = self._clock()
        results = self._results
        replied = results.replied
        if replied != self._seen or not results.outstanding:
            if replied != self._seen:
                self._patience_s = max(PATIENCE_S, EASE * self._patience_s)
                self._calm_s = max(PATIENCE_S, EASE * self._calm_s)
                # One that is down may have come back, or may be giving its last answers: a health check tells.
                self._news.set()
            self._seen, self._moved_ns = replied, now
        # A generator that stood still has not heard what was said meanwhile.
        self._moved_ns = min(now, self._moved_ns + round(late_s * 1e9))
        if self.up:
            waited_s = (now - self._moved_ns) / 1e9
            connected = self._patient.connected
            if waited_s > self._patience_s:
                self._suspect(f"no answer for {waited_s:.2f} s", PAUSE_S, waited_s)
            elif self._connected and not connected:
                self._suspect("its connection is gone", PAUSE_S)
            self._connected = connected
            if self.ramping and now - self._came_up_ns >= RAMP_S * 1e9:
                self.ramping = False
                self._changed(self)

    def begin_down(self, why: str) -> None:
        """It was down when the run began."""
        self._go_down(why)
        self._doctor = gevent.spawn(self._nurse)

    def close(self) -> None:
        """No more is asked."""
        if self._doctor is not None:
            self._doctor.kill()

    def _suspect(self, why: str, calm_s: float, waited_s: float = 0.0) -> None:
        calm = (self._clock() - self._examined_ns) / 1e9 < calm_s
        if not calm and (self._doctor is None or self._doctor.ready()):
            self._doctor = gevent.spawn(self._examine, why, waited_s)

    def _examine(self, why: str, waited_s: float) -> None:
        wrong = self._check(CHECK_S)
        if wrong:
            self._go_down(f"{why}; {wrong}" if why != wrong else why)
            self._nurse()
            return
        # It is well: it refuses because it is full, or takes its time, or a connection to it is dead and not noticed.
        self._refused = 0
        self._patience_s = min(max(self._patience_s, 2 * waited_s), LONGEST_PATIENCE_S)
        self._calm_s = min(2 * self._calm_s, LONGEST_PATIENCE_S)
        self._examined_ns = self._clock()
        self._patient.renew(CHECK_S)

    def _nurse(self) -> None:
        """Asks until it is well."""
        wait_s = FIRST_WAIT_S
        while not self.up:
            # The jitter keeps generators that lost a target together from coming back to it together.
            jittered_s = wait_s * random.uniform(1 - WAIT_JITTER, 1 + WAIT_JITTER)
            wait_s = min(wait_s * WAIT_FACTOR, LONGEST_WAIT_S)
            gevent.sleep(FIRST_WAIT_S * (1 - WAIT_JITTER))
            self._news.clear()
            self._news.wait(jittered_s - FIRST_WAIT_S * (1 - WAIT_JITTER))
            if not self._check(CHECK_S):
                self._patient.renew(CHECK_S)
                self._come_up()

    def _go_down(self, why: str) -> None:
        self.up = self.ramping = False
        self._note(why)

    def _come_up(self) -> None:
        self.up = self.ramping = self._connected = True
        self._refused = 0
        self._patience_s = self._calm_s = PATIENCE_S
        self._came_up_ns = self._moved_ns = self._clock()
        self._note("a health check is answered")

    def _note(self, why: str) -> None:
        if len(self.events) < MOST_EVENTS:
            self.events.append(HealthChange(self._clock(), self._results.series.worker, self.up, why[:200]))
        else:
            self.lost_events += 1
        self._changed(self)


def health_error(reply: Reply) -> str:
    """What a reply to `grpc.health.v1.Health/Check` says: empty for well, else what is wrong."""
    if reply.code == OK:
        # HealthCheckResponse.status is field 1, a varint: 1 is SERVING; a server without a status says nothing of it.
        serving = reply.payload in (b"\x08\x01", b"", None)
        return "" if serving else "a health check says that it does not serve"
    if reply.code == DEADLINE_EXCEEDED:
        return "no answer to a health check"
    if reply.code in (UNAVAILABLE, CANCELLED):
        return reply.message or "a health check fails"
    # Any other status came from a server that is there, without a health service or with rules of its own about it.
    return ""
