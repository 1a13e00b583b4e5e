"""Telemetry of the targets: each of our workers is queried once a second for readings of its host and accelerator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError

from capacity.rundir import TelemetryReading
from loadgen.targets._target import Target
from loadgen.transport import OK, Access, Channel, Reply
from worker.wire import accelerator_pb2 as accelerator

METHOD = "/inferload.AcceleratorService/Snapshot"
_REQUEST = accelerator.SnapshotRequest(readings_only=True).SerializeToString()
#: A worker that has not answered by then is queried again in the next second.
_DEADLINE_S = 0.9


class TargetTelemetry:
    """One small channel to each target that has Describe; one whose answer has no readings is not queried again."""

    def __init__(self, targets: Sequence[Target], access: Access) -> None:
        self._queries = [_Query(target, access) for target in targets if target.info is not None]

    def collect(self) -> list[tuple[str, str, list[TelemetryReading]]]:
        """What came since the last call, as (label of the target, name of its host, readings); queries all again."""
        return [readings for query in self._queries if (readings := query.collect()) is not None]

    def close(self) -> None:
        """Closes the channels."""
        for query in self._queries:
            query.channel.close()


class _Query:
    """The query to one target: at most one is in flight."""

    def __init__(self, target: Target, access: Access) -> None:
        assert target.info is not None
        self._label, self._host = target.info.label, target.info.host_name
        self.channel = Channel(target.address, method=METHOD, security=access.security, token=access.token)
        self._readings: list[TelemetryReading] | None = None
        self._in_flight = False
        self._has_none = False

    def collect(self) -> tuple[str, str, list[TelemetryReading]] | None:
        readings, self._readings = self._readings, None
        if not self._in_flight and not self._has_none:
            self._in_flight = True
            self.channel.start(_REQUEST, _DEADLINE_S, self._receive)
        return None if readings is None else (self._label, self._host, readings)

    def _receive(self, reply: Reply) -> None:
        self._in_flight = False
        if reply.code != OK or not reply.payload:
            return
        try:
            snapshot: Any = accelerator.SnapshotResponse.FromString(reply.payload)
        except DecodeError:
            return
        self._readings = [TelemetryReading(one.device, one.id, one.measure, one.value) for one in snapshot.readings]
        self._has_none = not self._readings
