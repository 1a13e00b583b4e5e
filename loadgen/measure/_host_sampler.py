"""Readings of a generator's host and of its own process; a target's readings come from the target itself."""

from __future__ import annotations

import psutil

from capacity.rundir import TelemetryReading


class HostSampler:
    """Samples this host's processors, and this process under its client id as the device `generator`.

    A processor's share is since the sample before, so samples are to be a second or so apart.
    """

    def __init__(self, client: str) -> None:
        self._client = client
        self._process = psutil.Process()
        # The first call of each gives 0: there is no sample before.
        psutil.cpu_percent()
        self._process.cpu_percent()

    def sample(self) -> list[TelemetryReading]:
        """Returns the readings now."""
        return [
            TelemetryReading("generator", self._client, "utilisation_percent", self._process.cpu_percent()),
            TelemetryReading("cpu", "", "utilisation_percent", psutil.cpu_percent()),
            TelemetryReading("cpu", "", "memory_bytes", float(psutil.virtual_memory().used)),
        ]
