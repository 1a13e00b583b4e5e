"""Calls a function once a second in a greenlet of its own."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent
from gevent.event import Event
from gevent.lock import RLock

TICK_S = 1.0


class Ticker:
    """Calls `tick` once a second between `start` and `stop`, never twice at the same time.

    An exception of `tick` ends the ticking, and is passed to `on_failure`.
    """

    def __init__(self, tick: Callable[[], None], on_failure: Callable[[Exception], None]) -> None:
        self._tick = tick
        self._on_failure = on_failure
        self._stopping = Event()
        self._stopping.set()
        self._lock = RLock()
        self._greenlet: gevent.Greenlet | None = None

    @property
    def running(self) -> bool:
        """Between `start` and `stop`."""
        return not self._stopping.is_set()

    def start(self) -> None:
        """Begins ticking; the first tick is a second from now."""
        self._stopping.clear()
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Ends ticking, and waits for the tick that goes on."""
        self._stopping.set()
        if self._greenlet is not None:
            self._greenlet.join()

    def tick_now(self) -> None:
        """Ticks out of turn. What `tick` raises goes to the caller."""
        with self._lock:
            self._tick()

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            due += TICK_S
            if self._stopping.wait(max(0.0, due - time.monotonic())):
                return
            try:
                self.tick_now()
            except Exception as error:
                self._on_failure(error)
                return
