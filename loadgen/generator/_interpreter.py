"""Settings of the Python interpreter while a generator sends, and their way back."""

from __future__ import annotations

import gc
import sys

#: gevent runs ready greenlets for up to the interpreter's switch interval before it polls sockets. Python's default of
#: 5 ms would delay every reply while others are handled; at this one the delay is no longer measurable.
SWITCH_INTERVAL_S = 1e-4


class InterpreterTuning:
    """Shortens the switch interval and exempts the objects that exist now from garbage collection, which would take
    milliseconds each time. `restore` gives both back."""

    def __init__(self) -> None:
        self._interval_s = sys.getswitchinterval()
        #: Locust freezes its objects itself before it forks.
        self._was_frozen = gc.get_freeze_count() > 0
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.collect()
        gc.freeze()

    def restore(self) -> None:
        """Gives the interpreter its former settings back."""
        gc.unfreeze()
        if self._was_frozen:
            gc.freeze()
        sys.setswitchinterval(self._interval_s)
