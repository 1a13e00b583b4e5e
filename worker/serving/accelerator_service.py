"""Our own service: which hardware answers here, and what this worker counted and measured of itself."""

import os
import resource
import socket
import sys
import time
import uuid
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeAlias

import grpc

from worker.accelerators import host
from worker.accelerators.kinds import Accelerator
from worker.operations.counters import Counters
from worker.operations.histograms import DIGITS, HIGHEST_US, LOWEST_US, Histogram
from worker.operations.telemetry import Telemetry
from worker.runtime.context import Context, WarmUp
from worker.serving.model_metadata import VERSION, ServedModel
from worker.wire import accelerator_pb2 as ours

# grpc carries no types.
ServicerContext: TypeAlias = Any


@dataclass(frozen=True)
class Identity:
    """What Describe says that does not change: the hardware, the model file, and where both came from."""

    host_type: str
    accelerator: Accelerator
    cores: tuple[int, ...]
    simulated: bool = False
    simulation: str = ""
    sha256: str = ""
    file_bytes: int = 0
    host_memory_bytes: int = field(default_factory=host.memory_bytes)
    instance_id: str = field(default_factory=lambda: uuid.uuid4().hex)


class AcceleratorService:
    """Describe and Snapshot. Until `ready`, Describe is refused: the model is not known yet."""

    def __init__(self, identity: Identity, context: Context, counters: Counters) -> None:
        self._identity = identity
        self._context = context
        self._counters = counters
        self._model: ServedModel | None = None
        self._warm = WarmUp(0, [])
        self._ready_ns = time.monotonic_ns()
        self._sequence = 0
        self._telemetry = Telemetry(identity.accelerator)

    def ready(self, model: ServedModel, warm: WarmUp) -> None:
        self._model = model
        self._warm = warm
        self._ready_ns = time.monotonic_ns()

    def handlers(self) -> grpc.GenericRpcHandler:
        service = ours.DESCRIPTOR.services_by_name["AcceleratorService"]
        return grpc.method_handlers_generic_handler(
            service.full_name,
            {
                "Describe": grpc.unary_unary_rpc_method_handler(
                    self.describe,
                    request_deserializer=ours.DescribeRequest.FromString,
                    response_serializer=ours.DescribeResponse.SerializeToString,
                ),
                "Snapshot": grpc.unary_unary_rpc_method_handler(
                    self.snapshot,
                    request_deserializer=ours.SnapshotRequest.FromString,
                    response_serializer=ours.SnapshotResponse.SerializeToString,
                ),
            },
        )

    async def describe(self, request: ours.DescribeRequest, context: ServicerContext) -> ours.DescribeResponse:
        identity, accelerator, executed = self._identity, self._identity.accelerator, self._context
        model = self._model
        if model is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the model is not ready")
            raise AssertionError("abort always raises")
        warm = self._warm
        return ours.DescribeResponse(
            host_type=identity.host_type,
            host_name=socket.gethostname(),
            host_memory_bytes=identity.host_memory_bytes,
            kind=accelerator.kind,
            ordinal=accelerator.ordinal,
            accelerator_type=accelerator.type,
            accelerator_id=accelerator.id,
            accelerator_memory_bytes=accelerator.memory_bytes,
            status=accelerator.status,
            simulated=identity.simulated,
            simulation=identity.simulation,
            versions={**versions(), **executed.versions()},
            threads=executed.threads,
            cores=identity.cores,
            model=ours.DescribeResponse.Model(
                name=model.name,
                version=VERSION,
                mode=model.specification.mode,
                precision=executed.precision,
                sha256=identity.sha256,
                file_bytes=identity.file_bytes,
                parameter_bytes=executed.parameter_bytes,
                max_batch_size=model.policy.max_batch_size,
            ),
            first_inference_ns=warm.first_ns,
            warmup_ns=warm.later_ns,
            process_peak_bytes=process_peak_bytes(),
            accelerator_peak_bytes=executed.peak_bytes(),
            instance_id=identity.instance_id,
            pid=os.getpid(),
        )

    async def snapshot(self, request: ours.SnapshotRequest, context: ServicerContext) -> ours.SnapshotResponse:
        if request.readings_only:
            return ours.SnapshotResponse(
                instance_id=self._identity.instance_id,
                uptime_ns=time.monotonic_ns() - self._ready_ns,
                readings=await self._telemetry.readings(),
            )
        counters = self._counters
        self._sequence += 1
        counters.settle()
        return ours.SnapshotResponse(
            instance_id=self._identity.instance_id,
            sequence=self._sequence,
            uptime_ns=time.monotonic_ns() - self._ready_ns,
            requests=counters.requests,
            answered=counters.answered,
            errors=counters.errors,
            executions=counters.executions,
            histograms={
                "queue": _histogram(counters.queue_histogram),
                "compute": _histogram(counters.compute_histogram),
            },
            passes={rows: _histogram(histogram) for rows, histogram in counters.pass_histograms.items()},
            process_peak_bytes=process_peak_bytes(),
            accelerator_peak_bytes=self._context.peak_bytes(),
        )


def _histogram(histogram: Histogram) -> ours.Histogram:
    summary = histogram.summary()
    return ours.Histogram(
        **vars(summary),
        lowest_us=LOWEST_US,
        highest_us=HIGHEST_US,
        digits=DIGITS,
    )


def process_peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere


def own_version() -> str:
    try:
        return version("inferload")
    except PackageNotFoundError:
        return "0+unknown"


def versions() -> dict[str, str]:
    python = ".".join(map(str, sys.version_info[:3]))
    return {"inferload": own_version(), "python": python, "grpcio": grpc.__version__}
