"""Which targets are up, as this generator sees it: its requests raise a suspicion, and a health check decides.

A target that replies is not checked. Where one is suspected (its connection is lost, it refuses several requests in a
row, or requests wait and no reply comes) a health check on a connection of its own decides. A target that is down is
checked again after growing, jittered waits until it is up, and then gets a growing share of its requests.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

import gevent
from gevent.event import Event

from loadgen.measure import ResultBuffer
from loadgen.transport import CANCELLED, DEADLINE_EXCEEDED, OK, UNAVAILABLE, Access, Channel, NotConnected, Reply

HEALTH_METHOD = "/grpc.health.v1.Health/Check"

#: Requests wait and no reply comes for this long: suspicious. For a target that turns out to be up, and slow, the limit
#: becomes twice the time that it took, at most the longest; each observation of new replies takes a hundredth back.
SILENCE_LIMIT_S, LONGEST_SILENCE_LIMIT_S, LIMIT_DECAY = 0.25, 5.0, 0.99
#: What a health check may take: after the silence before it, a target that hangs is down well within a second.
CHECK_TIMEOUT_S = 0.4
#: Refusals in a row, without a reply in between, that are suspicious. A lost connection is suspicious at once.
SUSPICIOUS_REFUSALS = 3
#: The least time between two health checks of a target that is up.
CHECK_PAUSE_S = 0.1
#: Between two health checks of a target that is down: it grows by the factor, with so much jitter.
FIRST_WAIT_S, WAIT_FACTOR, LONGEST_WAIT_S, WAIT_JITTER = 0.1, 1.6, 2.0, 0.2
#: A target that came back gets its full share after this time, and before it a growing one, from the least.
RAMP_S, LEAST_SHARE = 2.0, 0.1
#: A run records at most this many events of a target: one that goes down and up for hours must not fill the memory.
MOST_EVENTS = 1000


class HealthEvent(NamedTuple):
    """A target went down or came up, and when this generator knew (ns of its monotonic clock)."""

    at_ns: int
    target: str
    up: bool
    reason: str


class HealthTransport(Protocol):
    """What a health checker uses of the transport to its target."""

    @property
    def connected(self) -> bool:
        """False where a connection was there and is lost."""

    def renew(self, timeout_s: float) -> None:
        """The target is up: ends connections whose other end does not answer a PING in time, and allows new ones at
        once. Blocks this greenlet only."""


#: A health check blocks this greenlet for at most so many seconds. It returns what is wrong; empty: the target is up.
HealthCheck = Callable[[float], str]


class HealthChecker:
    """The health of one target. `up` is the verdict; `changed()` is called after each change, and at the end of a ramp.

    `results` are what the target's requests came to; they are only read.
    """

    def __init__(
        self,
        results: ResultBuffer,
        transport: HealthTransport,
        check: HealthCheck,
        changed: Callable[[], None],
        *,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.up = True
        self.ramping = False
        self.events: list[HealthEvent] = []
        self.lost_events = 0
        self._results = results
        self._transport = transport
        self._check = check
        self._changed = changed
        self._clock = clock
        self._up_since_ns = 0
        self._refusals = 0
        self._answers_at_refusal = 0
        self._replies = 0
        self._last_reply_ns = clock()
        self._connected = True
        self._silence_limit_s = self._check_pause_s = SILENCE_LIMIT_S
        self._last_check_ns = 0
        self._new_replies = Event()
        self._checking: gevent.Greenlet | None = None

    def accepts(self, chance: float) -> bool:
        """Whether the target may be sent a request: during its ramp, for a share of chances (0 to 1) that grows."""
        if not self.up or not self.ramping:
            return self.up
        return chance < max(LEAST_SHARE, (self._clock() - self._up_since_ns) / 1e9 / RAMP_S)

    def report_failure(self, reply: Reply) -> None:
        """Takes the reply of a request that failed."""
        if reply.code not in (UNAVAILABLE, DEADLINE_EXCEEDED) or not self.up:
            return
        answers = self._results.answered
        self._refusals = self._refusals + 1 if answers == self._answers_at_refusal else 1
        self._answers_at_refusal = answers
        if isinstance(reply, NotConnected):
            self._suspect(reply.message, CHECK_PAUSE_S)
        elif self._refusals >= SUSPICIOUS_REFUSALS:
            self._suspect(reply.message, self._check_pause_s)

    def observe(self, late_s: float) -> None:
        """Looks at the results; called about twenty times a second. `late_s` is how late this generator called it."""
        now = self._clock()
        results = self._results
        replies = results.replied
        if replies != self._replies or not results.outstanding:
            if replies != self._replies:
                self._silence_limit_s = max(SILENCE_LIMIT_S, LIMIT_DECAY * self._silence_limit_s)
                self._check_pause_s = max(SILENCE_LIMIT_S, LIMIT_DECAY * self._check_pause_s)
                # A target that is down may have come back, or may be sending its last replies: a health check decides.
                self._new_replies.set()
            self._replies, self._last_reply_ns = replies, now
        # A generator that stood still has not read the replies that came meanwhile.
        self._last_reply_ns = min(now, self._last_reply_ns + round(late_s * 1e9))
        if self.up:
            silence_s = (now - self._last_reply_ns) / 1e9
            connected = self._transport.connected
            if silence_s > self._silence_limit_s:
                self._suspect(f"no reply for {silence_s:.2f} s", CHECK_PAUSE_S, silence_s)
            elif self._connected and not connected:
                self._suspect("its connection is lost", CHECK_PAUSE_S)
            self._connected = connected
            if self.ramping and now - self._up_since_ns >= RAMP_S * 1e9:
                self.ramping = False
                self._changed()

    def start_down(self, reason: str) -> None:
        """Begins with a target that was down when the run began."""
        self._go_down(reason)
        self._checking = gevent.spawn(self._check_until_up)

    def close(self) -> None:
        """Ends a health check that goes on; no other begins."""
        if self._checking is not None:
            self._checking.kill()

    def _suspect(self, reason: str, pause_s: float, silence_s: float = 0.0) -> None:
        recent = (self._clock() - self._last_check_ns) / 1e9 < pause_s
        if not recent and (self._checking is None or self._checking.ready()):
            self._checking = gevent.spawn(self._check_suspicion, reason, silence_s)

    def _check_suspicion(self, reason: str, silence_s: float) -> None:
        if error := self._check(CHECK_TIMEOUT_S):
            self._go_down(f"{reason}; {error}" if reason != error else reason)
            self._check_until_up()
            return
        # It is up: it refuses because it is full, or is slow, or a connection to it is lost and nobody noticed.
        self._refusals = 0
        self._silence_limit_s = min(max(self._silence_limit_s, 2 * silence_s), LONGEST_SILENCE_LIMIT_S)
        self._check_pause_s = min(2 * self._check_pause_s, LONGEST_SILENCE_LIMIT_S)
        self._last_check_ns = self._clock()
        self._transport.renew(CHECK_TIMEOUT_S)

    def _check_until_up(self) -> None:
        wait_s = FIRST_WAIT_S
        while not self.up:
            # The jitter keeps generators that lost a target together from coming back to it together.
            jittered_s = wait_s * random.uniform(1 - WAIT_JITTER, 1 + WAIT_JITTER)
            wait_s = min(wait_s * WAIT_FACTOR, LONGEST_WAIT_S)
            gevent.sleep(FIRST_WAIT_S * (1 - WAIT_JITTER))
            self._new_replies.clear()
            self._new_replies.wait(jittered_s - FIRST_WAIT_S * (1 - WAIT_JITTER))
            if not self._check(CHECK_TIMEOUT_S):
                self._transport.renew(CHECK_TIMEOUT_S)
                self._come_up()

    def _go_down(self, reason: str) -> None:
        self.up = self.ramping = False
        self._record_event(reason)

    def _come_up(self) -> None:
        self.up = self.ramping = self._connected = True
        self._refusals = 0
        self._silence_limit_s = self._check_pause_s = SILENCE_LIMIT_S
        self._up_since_ns = self._last_reply_ns = self._clock()
        self._record_event("a health check succeeded")

    def _record_event(self, reason: str) -> None:
        if len(self.events) < MOST_EVENTS:
            self.events.append(HealthEvent(self._clock(), self._results.series.target, self.up, reason[:200]))
        else:
            self.lost_events += 1
        self._changed()


def health_check(address: str, access: Access) -> HealthCheck:
    """A health check of one address, each time on a new connection: the others may be what is wrong."""

    def check(timeout_s: float) -> str:
        for _ in range(2):
            began = time.monotonic()
            channel = Channel(
                address,
                method=HEALTH_METHOD,
                security=access.security,
                token=access.token,
                connect_timeout_s=timeout_s,
            )
            try:
                error = health_error(channel.call(b"", timeout_s))
            finally:
                channel.close()
            # Where this process stood still meanwhile it has not read the reply: the check is repeated once.
            if not error or time.monotonic() - began < 1.5 * timeout_s:
                break
        return error

    return check


def health_error(reply: Reply) -> str:
    """What a reply to `grpc.health.v1.Health/Check` says is wrong with the target; empty where it is up."""
    if reply.code == OK:
        # HealthCheckResponse.status is field 1, a varint: 1 is SERVING; a response without a status says nothing of it.
        serving = reply.payload in (b"\x08\x01", b"", None)
        return "" if serving else "its health service reports that it does not serve"
    if reply.code == DEADLINE_EXCEEDED:
        return "no reply to a health check"
    if reply.code in (UNAVAILABLE, CANCELLED):
        return reply.message or "a health check failed"
    # Any other status came from a server that is there, without a health service or with rules of its own about it.
    return ""
