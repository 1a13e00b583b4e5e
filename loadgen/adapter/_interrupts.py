"""Ctrl-C during a run."""

from __future__ import annotations

import signal
from typing import Any

import gevent


class InterruptHandler:
    """Delivers Ctrl-C to Locust's main greenlet, which ends the run.

    Python's own handler raises KeyboardInterrupt in whichever greenlet runs, for example one that writes a log.
    """

    def __init__(self) -> None:
        self._watcher: Any = None

    def apply(self) -> None:
        """Replaces Python's handler of SIGINT, and no other."""
        if self._watcher is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            hub = gevent.get_hub()
            self._watcher = gevent.signal_handler(
                signal.SIGINT, lambda: hub.handle_system_error(KeyboardInterrupt, KeyboardInterrupt())
            )

    def restore(self) -> None:
        """Puts Python's handler back."""
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None
            signal.signal(signal.SIGINT, signal.default_int_handler)
