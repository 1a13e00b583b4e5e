"""What this generator and its host's processors do; what workers do, they tell themselves."""

from __future__ import annotations

import psutil

from capacity.rundir.telemetry import Reading


class Sampler:
    """Readings of this host, and of this process as `generator` (by its client id).

    Once a second is meant: processor shares are since the sample before.
    """

    def __init__(self, client: str) -> None:
        self._client = client
        self._process = psutil.Process()
        # The first call of each gives 0: there is no sample before.
        psutil.cpu_percent()
        self._process.cpu_percent()

    def sample(self) -> list[Reading]:
        """The readings now."""
        return [
            Reading("generator", self._client, "utilisation_percent", self._process.cpu_percent()),
            Reading("cpu", "", "utilisation_percent", psutil.cpu_percent()),
            Reading("cpu", "", "memory_bytes", float(psutil.virtual_memory().used)),
        ]
