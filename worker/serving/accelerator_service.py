"""AcceleratorService: Describe (hardware, model, versions) and Snapshot (the worker's own counts and measures)."""

import os
import socket
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc

from worker.accelerators import Accelerator, usable_memory_bytes
from worker.operations import (
    DIGITS,
    HIGHEST_US,
    LOWEST_US,
    Counters,
    Histogram,
    Telemetry,
    process_peak_bytes,
    runtime_versions,
)
from worker.runtime import ExecutionContext, WarmUp
from worker.serving.model_metadata import VERSION, ServedModel
from worker.wire import accelerator_pb2 as ours

# grpc carries no types.
ServicerContext: TypeAlias = Any


@dataclass(frozen=True)
class WorkerIdentity:
    """What Describe answers and never changes: the host, the accelerator, and the model file."""

    host_type: str
    accelerator: Accelerator
    cores: tuple[int, ...]
    simulated: bool = False
    simulation: str = ""
    sha256: str = ""
    file_bytes: int = 0
    host_memory_bytes: int = field(default_factory=usable_memory_bytes)
    instance_id: str = field(default_factory=lambda: uuid.uuid4().hex)


class AcceleratorService:
    """Describe and Snapshot. Refuses Describe until `open`: the model is not loaded yet."""

    def __init__(self, identity: WorkerIdentity, context: ExecutionContext, counters: Counters) -> None:
        self._identity = identity
        self._context = context
        self._counters = counters
        self._model: ServedModel | None = None
        self._warm_up = WarmUp(0, [])
        self._ready_ns = time.monotonic_ns()
        self._sequence = 0
        self._telemetry = Telemetry(identity.accelerator)

    def open(self, model: ServedModel, warm_up: WarmUp) -> None:
        """Answers Describe with this model from here on."""
        self._model = model
        self._warm_up = warm_up
        self._ready_ns = time.monotonic_ns()

    def handlers(self) -> grpc.GenericRpcHandler:
        """Returns the handler of each method by its name."""
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
        identity, accelerator, execution = self._identity, self._identity.accelerator, self._context
        model = self._model
        if model is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the model is not ready")
            raise AssertionError("abort always raises")
        warm_up = self._warm_up
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
            versions={**runtime_versions(), **execution.versions()},
            threads=execution.threads,
            cores=identity.cores,
            model=ours.DescribeResponse.Model(
                name=model.name,
                version=VERSION,
                mode=model.specification.mode,
                precision=execution.precision,
                sha256=identity.sha256,
                file_bytes=identity.file_bytes,
                parameter_bytes=execution.parameter_bytes,
                max_batch_size=model.policy.max_batch_size,
            ),
            first_inference_ns=warm_up.first_ns,
            warmup_ns=warm_up.later_ns,
            process_peak_bytes=process_peak_bytes(),
            accelerator_peak_bytes=execution.peak_bytes(),
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
