"""The log that a generator writes on its own disk, so that a run survives the master and the network."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

import gevent

from capacity.measures import Series, Tally
from capacity.rundir import GeneratorLogEnd, GeneratorLogHeader, GeneratorLogWriter, RunDescription
from loadgen.measure import Recorder


class LocalLog:
    """The log of one generator. If it cannot be written, this is reported once and the run goes on without it.

    Args:
        folder: the log is the directory RUN/CLIENT below it.
        client: the name of this generator.
        description: what the run is.
        warn: called with one line if the log cannot be written.
    """

    def __init__(self, folder: Path, client: str, description: RunDescription, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._origin_s = time.monotonic()
        self._last_s = 0.0
        self._writer: GeneratorLogWriter | None = None
        header = GeneratorLogHeader(
            schema=2, client=client, host=socket.gethostname(), began=time.time(), description=description
        )
        try:
            self._writer = GeneratorLogWriter(folder / description.run / quote(client, safe=""), header)
        except OSError as error:
            warn(f"warning: this generator writes no log of its own: {error}")

    def write(self, sequence: int, interval: Mapping[Series, Tally], recorder: Recorder, measured_s: float) -> None:
        """Appends one interval and the totals after it. `measured_s` is the length of the measured part so far."""
        if self._writer is None:
            return
        now_s = time.monotonic() - self._origin_s
        try:
            self._writer.write(
                sequence,
                self._last_s,
                now_s - self._last_s,
                interval,
                recorder.total,
                recorder.warmup,
                recorder.first_requests_ns,
                measured_s,
                # Lets requests that are due be sent between two series.
                lambda: gevent.sleep(0),
            )
        except OSError as error:
            self._fail(error)
        self._last_s = now_s

    def end(self, end: GeneratorLogEnd) -> None:
        """Appends the last line and closes the log."""
        if self._writer is None:
            return
        try:
            self._writer.end(end)
        except OSError as error:
            self._fail(error)
        self._writer = None

    def _fail(self, error: OSError) -> None:
        self._warn(f"warning: the log of this generator is incomplete: {error}")
        self._writer = None
