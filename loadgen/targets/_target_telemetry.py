"""What the workers' hosts and accelerators do: each worker is asked once a second, beside the load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError

from capacity.rundir import TelemetryReading
from loadgen.targets._discovery import Target
from loadgen.transport._access import Access
from loadgen.transport._channel import Channel
from loadgen.transport._reply import OK, Reply
from worker.wire import accelerator_pb2 as accelerator

METHOD = "/inferload.AcceleratorService/Snapshot"
_REQUEST = accelerator.SnapshotRequest(readings_only=True).SerializeToString()
#: A worker that has not answered by then is asked again the next second.
_DEADLINE_S = 0.9


class TargetTelemetry:
    """One small channel to each worker that describes itself; a worker that tells nothing is not asked again."""

    def __init__(self, targets: Sequence[Target], access: Access) -> None:
        self._asked = [_Asked(target, access) for target in targets if target.info is not None]

    def collect(self) -> list[tuple[str, str, list[TelemetryReading]]]:
        """What came since the last call, as (worker's label, its host, readings), and asks all again."""
        return [told for one in self._asked if (told := one.collect()) is not None]

    def close(self) -> None:
        """Closes the channels."""
        for one in self._asked:
            one.channel.close()


class _Asked:
    def __init__(self, target: Target, access: Access) -> None:
        assert target.info is not None
        self._label, self._host = target.info.label, target.info.host_name
        self.channel = Channel(target.address, method=METHOD, security=access.security, token=access.token)
        self._told: list[TelemetryReading] | None = None
        self._asking = False
        self._mute = False

    def collect(self) -> tuple[str, str, list[TelemetryReading]] | None:
        told, self._told = self._told, None
        if not self._asking and not self._mute:
            self._asking = True
            self.channel.start(_REQUEST, _DEADLINE_S, self._hear)
        return None if told is None else (self._label, self._host, told)

    def _hear(self, reply: Reply) -> None:
        self._asking = False
        if reply.code != OK or not reply.payload:
            return
        try:
            answer: Any = accelerator.SnapshotResponse.FromString(reply.payload)
        except DecodeError:
            return
        self._told = [TelemetryReading(one.device, one.id, one.measure, one.value) for one in answer.readings]
        self._mute = not self._told
