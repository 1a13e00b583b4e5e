"""Wakes a greenlet at a time of the monotonic clock, to the microsecond where the system can."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import time
from typing import Any

import gevent

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1


class Timer:
    """A timer for one greenlet. libev rounds its own timeouts up to whole milliseconds; a Linux timerfd does not, and
    wakes the same poll. On other systems the greenlet looks at the clock every millisecond."""

    def __init__(self) -> None:
        self._fd = -1
        self._when = 0
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd >= 0:
            self._watcher: Any = gevent.get_hub().loop.io(self._fd, 1)
            self._spec = (ctypes.c_long * 4)()

    def set(self, when_ns: int) -> None:
        """Sets the time to wake at, also for a wait that has begun. A time that has passed wakes at once."""
        self._when = when_ns
        if self._fd >= 0:
            self._spec[2], self._spec[3] = divmod(max(when_ns, 1), 1_000_000_000)
            self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, self._spec, None)

    def wait(self) -> None:
        """Blocks this greenlet until the time that was set."""
        if self._fd >= 0:
            gevent.get_hub().wait(self._watcher)
            with contextlib.suppress(BlockingIOError):
                os.read(self._fd, 8)
            return
        while not self._when or time.monotonic_ns() < self._when:
            gevent.sleep(0.001)
        self._when = 0

    def close(self) -> None:
        """Closes the file descriptor. No greenlet may be waiting."""
        if self._fd >= 0:
            self._watcher.close()
            os.close(self._fd)
            self._fd = -1
