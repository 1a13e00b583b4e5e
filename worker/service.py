"""The Open Inference Protocol: from bytes to the queue and back. The one place that maps errors to status codes."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

from worker import log
from worker.accelerators import Accelerator
from worker.batching import Batcher
from worker.counters import Counters, Duration
from worker.describe import own_version
from worker.errors import Refused, invalid, unavailable
from worker.requests import Plan, Reader, varint
from worker.served import VERSION, ServedModel, config, metadata
from worker.sharedmemory import Regions
from worker.tensors import Tensor
from worker.wire import open_inference_pb2 as oip

EXTENSIONS = ("model_configuration", "statistics", "system_shared_memory")
# Of one stream: inferences that run side by side, and answers that wait for the client to read them.
STREAM_RUNNING = 256
STREAM_ANSWERS = 64
# Key of ModelStreamInferResponse.infer_response: field number << 3 | length-delimited.
_STREAM_RESPONSE = bytes([2 << 3 | 2])

# grpc carries no types.
ServicerContext: TypeAlias = Any


@dataclass(frozen=True)
class Limits:
    """What may be in flight at once; more is refused with UNAVAILABLE, so that memory stays bounded."""

    in_flight: int = 4096
    bytes_in_flight: int = 1024**3


class InferenceService:
    """Every RPC of the Open Inference Protocol. Until `serve`, and after `refuse`, it refuses work."""

    def __init__(self, accelerator: Accelerator, batcher: Batcher, counters: Counters, limits: Limits) -> None:
        self._accelerator = accelerator
        self.counters = counters
        self.model: ServedModel | None = None
        self._limits = limits
        self._regions = Regions()
        self._streams: set[asyncio.Task[None]] = set()
        self._reader: Reader | None = None
        self._batcher = batcher

    def serve(self, model: ServedModel) -> None:
        """From here on inference is answered."""
        self._reader = Reader(model, self._regions)
        self.model = model

    def refuse(self) -> None:
        """From here on inference is answered with UNAVAILABLE."""
        self.model = self._reader = None
        for stream in self._streams:
            stream.cancel()

    def handlers(self) -> grpc.GenericRpcHandler:
        """What the server needs in order to dispatch: each method under its protocol name."""
        raw = {  # bytes in, bytes out
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self.model_infer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self.model_stream_infer),
        }
        plain: dict[str, Callable[..., Awaitable[Any]]] = {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelConfig": self.model_config,
            "ModelStatistics": self.model_statistics,
            "SystemSharedMemoryStatus": self.system_shared_memory_status,
            "SystemSharedMemoryRegister": self.system_shared_memory_register,
            "SystemSharedMemoryUnregister": self.system_shared_memory_unregister,
            "CudaSharedMemoryStatus": self.cuda_shared_memory_status,
            "CudaSharedMemoryRegister": self.cuda_shared_memory_register,
            "CudaSharedMemoryUnregister": self.cuda_shared_memory_unregister,
        }
        inference = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        return grpc.method_handlers_generic_handler(
            inference.full_name, {name: _handler(name, method) for name, method in plain.items()} | raw
        )

    async def server_live(self, request: oip.ServerLiveRequest, context: ServicerContext) -> oip.ServerLiveResponse:
        return oip.ServerLiveResponse(live=True)

    async def server_ready(self, request: oip.ServerReadyRequest, context: ServicerContext) -> oip.ServerReadyResponse:
        return oip.ServerReadyResponse(ready=self.model is not None)

    async def model_ready(self, request: oip.ModelReadyRequest, context: ServicerContext) -> oip.ModelReadyResponse:
        model = self.model
        return oip.ModelReadyResponse(ready=model is not None and model.named(request.name, request.version))

    async def server_metadata(
        self, request: oip.ServerMetadataRequest, context: ServicerContext
    ) -> oip.ServerMetadataResponse:
        extensions = (*EXTENSIONS, "cuda_shared_memory") if self._accelerator.kind == "cuda" else EXTENSIONS
        return oip.ServerMetadataResponse(name="inferload", version=own_version(), extensions=extensions)

    async def model_metadata(
        self, request: oip.ModelMetadataRequest, context: ServicerContext
    ) -> oip.ModelMetadataResponse:
        return metadata(self._model(request.name, request.version))

    async def model_config(self, request: oip.ModelConfigRequest, context: ServicerContext) -> oip.ModelConfigResponse:
        accelerator = self._accelerator
        model = self._model(request.name, request.version)
        return oip.ModelConfigResponse(config=config(model, accelerator.kind, accelerator.ordinal))

    async def model_statistics(
        self, request: oip.ModelStatisticsRequest, context: ServicerContext
    ) -> oip.ModelStatisticsResponse:
        model = self._model(request.name, request.version) if request.name else self._model_or_refuse()
        return oip.ModelStatisticsResponse(model_stats=[_statistics(model.name, self.counters)])

    async def model_infer(self, data: bytes, context: ServicerContext) -> bytes:
        """The hot path. Bytes both ways, so that a message that cannot be parsed is the client's error too."""
        try:
            return await self._infer(data, context)
        except Refused as refused:
            await context.abort(refused.code, refused.message)
        raise AssertionError("abort always raises")

    async def model_stream_infer(self, messages: AsyncIterator[bytes], context: ServicerContext) -> None:
        """Many inferences on one stream, run side by side. A failed one is answered in its place, under its id."""
        answers: asyncio.Queue[bytes | None] = asyncio.Queue(STREAM_ANSWERS)
        running: set[asyncio.Task[None]] = set()

        async def answer(data: bytes) -> None:
            try:
                message = _STREAM_RESPONSE + _sized(await self._infer(data, context))
            except Refused as refused:
                failed = oip.ModelInferResponse(id=_id(data))
                message = oip.ModelStreamInferResponse(
                    error_message=refused.message, infer_response=failed
                ).SerializeToString()
            await answers.put(message)

        async def read() -> None:
            try:
                async for data in messages:
                    task = asyncio.create_task(answer(data))
                    running.add(task)
                    task.add_done_callback(running.discard)
                    if len(running) >= STREAM_RUNNING:
                        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                pass  # the worker drains: what was read is still answered
            if running:
                await asyncio.wait(running)
            await answers.put(None)

        reader = asyncio.create_task(read())
        self._streams.add(reader)
        try:
            while (message := await answers.get()) is not None:
                await context.write(message)
        finally:
            self._streams.discard(reader)
            for task in (reader, *running):
                task.cancel()

    async def _infer(self, data: bytes, context: ServicerContext) -> bytes:
        """Answers one message. Raises Refused, whatever the reason is; the counters know of it then."""
        begin = time.monotonic_ns()
        counters = self.counters
        counters.requests += 1
        counters.in_flight += 1
        counters.bytes_in_flight += len(data)
        try:
            reader = self._reader
            if reader is None:
                raise unavailable("the model is not ready")
            if counters.in_flight > self._limits.in_flight:
                raise unavailable(f"{self._limits.in_flight} requests are in flight, which is the bound")
            if counters.bytes_in_flight > self._limits.bytes_in_flight:
                raise unavailable(f"requests of {self._limits.bytes_in_flight} bytes are in flight, which is the bound")
            plan, inputs = reader.remembered(data) or self._read(data)
            job = plan.job(inputs)
            if (remaining := context.time_remaining()) is not None:
                job.deadline_ns = job.arrived_ns + int(remaining * 1e9)
            outputs, ran, queue_ns = await self._batcher.infer(job)
            response = plan.answer(reader.model.name, reader.selected(plan, outputs))
            counters.succeeded(ran, queue_ns, time.monotonic_ns() - begin)
            return response
        except Refused as refused:
            counters.failed(refused.code.name, time.monotonic_ns() - begin)
            raise
        except asyncio.CancelledError:
            counters.failed("CANCELLED", time.monotonic_ns() - begin)
            raise
        except Exception as error:
            counters.failed("INTERNAL", time.monotonic_ns() - begin)
            log.warning("inference failed", error=one_line(error))
            raise Refused(grpc.StatusCode.INTERNAL, one_line(error)) from error
        finally:
            counters.in_flight -= 1
            counters.bytes_in_flight -= len(data)

    def _read(self, data: bytes) -> tuple[Plan, list[Tensor]]:
        """A message that is not like one before."""
        request = _parsed(oip.ModelInferRequest, data)
        self._model(request.model_name, request.model_version)
        assert self._reader is not None
        return self._reader.read(request, data)

    async def system_shared_memory_status(
        self, request: oip.SystemSharedMemoryStatusRequest, context: ServicerContext
    ) -> oip.SystemSharedMemoryStatusResponse:
        message = oip.SystemSharedMemoryStatusResponse()
        for region in self._regions.status(request.name):
            status = message.regions[region.name]
            status.name, status.key = region.name, region.key
            status.offset, status.byte_size = region.offset, region.byte_size
        return message

    async def system_shared_memory_register(
        self, request: oip.SystemSharedMemoryRegisterRequest, context: ServicerContext
    ) -> oip.SystemSharedMemoryRegisterResponse:
        self._regions.register(request.name, request.key, request.offset, request.byte_size)
        return oip.SystemSharedMemoryRegisterResponse()

    async def system_shared_memory_unregister(
        self, request: oip.SystemSharedMemoryUnregisterRequest, context: ServicerContext
    ) -> oip.SystemSharedMemoryUnregisterResponse:
        self._regions.unregister(request.name)
        return oip.SystemSharedMemoryUnregisterResponse()

    async def cuda_shared_memory_status(
        self, request: oip.CudaSharedMemoryStatusRequest, context: ServicerContext
    ) -> oip.CudaSharedMemoryStatusResponse:
        message = oip.CudaSharedMemoryStatusResponse()
        for region in self._regions.status(request.name, cuda=True):
            status = message.regions[region.name]
            status.name, status.device_id, status.byte_size = region.name, region.device_id, region.byte_size
        return message

    async def cuda_shared_memory_register(
        self, request: oip.CudaSharedMemoryRegisterRequest, context: ServicerContext
    ) -> oip.CudaSharedMemoryRegisterResponse:
        if self._accelerator.kind != "cuda":
            raise Refused(grpc.StatusCode.UNIMPLEMENTED, f"{self._accelerator.name} has no CUDA shared memory")
        self._regions.register_cuda(request.name, request.raw_handle, request.device_id, request.byte_size)
        return oip.CudaSharedMemoryRegisterResponse()

    async def cuda_shared_memory_unregister(
        self, request: oip.CudaSharedMemoryUnregisterRequest, context: ServicerContext
    ) -> oip.CudaSharedMemoryUnregisterResponse:
        self._regions.unregister(request.name, cuda=True)
        return oip.CudaSharedMemoryUnregisterResponse()

    def _model_or_refuse(self) -> ServedModel:
        if self.model is None:
            raise unavailable("the model is not ready")
        return self.model

    def _model(self, name: str, model_version: str) -> ServedModel:
        model = self._model_or_refuse()
        if not model.named(name, model_version):
            asked = f"{name!r}" + (f" version {model_version}" if model_version else "")
            raise Refused(grpc.StatusCode.NOT_FOUND, f"{asked} is not served here; {model.name} version {VERSION} is")
        return model


def _handler(name: str, method: Callable[..., Awaitable[Any]]) -> grpc.RpcMethodHandler:
    request_type = getattr(oip, f"{name}Request")

    async def call(data: bytes, context: ServicerContext) -> Any:
        try:
            return await method(_parsed(request_type, data), context)
        except Refused as refused:
            await context.abort(refused.code, refused.message)

    # The request comes as bytes: what grpc cannot deserialize it calls UNKNOWN, as if it were the worker's fault.
    return grpc.unary_unary_rpc_method_handler(
        call, response_serializer=getattr(oip, f"{name}Response").SerializeToString
    )


def _parsed(request_type: Any, data: bytes) -> Any:
    try:
        return request_type.FromString(data)
    except Exception:  # the runtime's DecodeError, by whichever class its implementation raises
        raise invalid(f"the message is not a {request_type.DESCRIPTOR.name}") from None


def _sized(data: bytes) -> bytes:
    return varint(len(data)) + data


def _id(data: bytes) -> str:
    """The id of a message that was refused, as far as it can be read."""
    try:
        return str(oip.ModelInferRequest.FromString(data).id)
    except Exception:  # the runtime's DecodeError, by whichever class its implementation raises
        return ""


def _statistics(name: str, counters: Counters) -> oip.ModelStatistics:
    counters.settle()

    def duration(value: Duration) -> oip.StatisticDuration:
        return oip.StatisticDuration(count=value.count, ns=value.ns)

    return oip.ModelStatistics(
        name=name,
        version=VERSION,
        last_inference=counters.last_inference_ms,
        inference_count=counters.inferences,
        execution_count=counters.executions,
        inference_stats=oip.InferStatistics(
            success=duration(counters.success),
            fail=duration(counters.fail),
            queue=duration(counters.queue),
            compute_input=duration(counters.input),
            compute_infer=duration(counters.infer),
            compute_output=duration(counters.output),
        ),
        batch_stats=[
            oip.InferBatchStatistics(
                batch_size=rows,
                compute_input=duration(size.input),
                compute_infer=duration(size.infer),
                compute_output=duration(size.output),
            )
            for rows, size in sorted(counters.batches.items())
        ],
    )


def one_line(error: BaseException) -> str:
    """TorchScript puts its own stack first and what went wrong last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
