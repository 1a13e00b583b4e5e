"""The Open Inference Protocol: each RPC under its name. The one place that maps errors to status codes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from worker.accelerators.kinds import Accelerator
from worker.errors import Refused
from worker.operations.counters import Counters, Duration
from worker.server import Stream
from worker.serving.accelerator_service import own_version
from worker.serving.batch_queue import Batcher
from worker.serving.inference import Inference, Inferences, Limits, parsed
from worker.serving.model_metadata import VERSION, ServedModel, config, metadata
from worker.serving.request_reader import varint
from worker.wire import open_inference_pb2 as oip

SERVICE = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
INFER = f"/{SERVICE}/ModelInfer"
EXTENSIONS = ("model_configuration", "statistics", "system_shared_memory")
# Of one stream: inferences that run side by side, and answers that wait for the client to read them.
STREAM_RUNNING = 256
STREAM_ANSWERS = 64
# Key of ModelStreamInferResponse.infer_response: field number << 3 | length-delimited.
_STREAM_RESPONSE = bytes([2 << 3 | 2])

# grpc carries no types.
ServicerContext: TypeAlias = Any


class InferenceService:
    """Every RPC of the Open Inference Protocol. Until `serve`, and after `refuse`, it refuses work."""

    def __init__(self, accelerator: Accelerator, batcher: Batcher, counters: Counters, limits: Limits) -> None:
        self._accelerator = accelerator
        self._counters = counters
        self._inferences = Inferences(batcher, counters, limits)
        self._regions = self._inferences.regions

    def serve(self, model: ServedModel) -> None:
        """From here on inference is answered."""
        self._inferences.serve(model)

    def refuse(self) -> None:
        """From here on inference is answered with UNAVAILABLE."""
        self._inferences.refuse()

    def handlers(self) -> grpc.GenericRpcHandler:
        """What the server needs in order to dispatch: each method but INFER under its protocol name."""
        # Bytes in, bytes out. ModelInfer has no handler: `infer` is begun directly.
        raw = {"ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self.model_stream_infer)}
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
        return grpc.method_handlers_generic_handler(
            SERVICE, {name: _handler(name, method) for name, method in plain.items()} | raw
        )

    async def server_live(self, request: oip.ServerLiveRequest, context: ServicerContext) -> oip.ServerLiveResponse:
        return oip.ServerLiveResponse(live=True)

    async def server_ready(self, request: oip.ServerReadyRequest, context: ServicerContext) -> oip.ServerReadyResponse:
        return oip.ServerReadyResponse(ready=self._inferences.model is not None)

    async def model_ready(self, request: oip.ModelReadyRequest, context: ServicerContext) -> oip.ModelReadyResponse:
        model = self._inferences.model
        return oip.ModelReadyResponse(ready=model is not None and model.named(request.name, request.version))

    async def server_metadata(
        self, request: oip.ServerMetadataRequest, context: ServicerContext
    ) -> oip.ServerMetadataResponse:
        extensions = (*EXTENSIONS, "cuda_shared_memory") if self._accelerator.kind == "cuda" else EXTENSIONS
        return oip.ServerMetadataResponse(name="inferload", version=own_version(), extensions=extensions)

    async def model_metadata(
        self, request: oip.ModelMetadataRequest, context: ServicerContext
    ) -> oip.ModelMetadataResponse:
        return metadata(self._inferences.named(request.name, request.version))

    async def model_config(self, request: oip.ModelConfigRequest, context: ServicerContext) -> oip.ModelConfigResponse:
        accelerator = self._accelerator
        model = self._inferences.named(request.name, request.version)
        return oip.ModelConfigResponse(config=config(model, accelerator.kind, accelerator.ordinal))

    async def model_statistics(
        self, request: oip.ModelStatisticsRequest, context: ServicerContext
    ) -> oip.ModelStatisticsResponse:
        inferences = self._inferences
        model = inferences.named(request.name, request.version) if request.name else inferences.ready()
        return oip.ModelStatisticsResponse(model_stats=[_statistics(model.name, self._counters)])

    def infer(self, stream: Stream, data: bytes) -> None:
        """ModelInfer: the hot path, without a task. Bytes both ways, so that a message that cannot be parsed is the
        client's error too."""
        inference = Inference(
            self._inferences,
            len(data),
            stream.reply,
            lambda refused: stream.finish(refused.code.value[0], refused.message),
        )
        stream.on_cancel = inference.cancel
        inference.begin(data, stream.time_remaining())

    async def model_stream_infer(self, messages: AsyncIterator[bytes], context: ServicerContext) -> None:
        """Many inferences on one stream, run side by side. A failed one is answered in its place, under its id."""
        answers: asyncio.Queue[bytes | None] = asyncio.Queue(STREAM_ANSWERS)
        running: set[asyncio.Task[None]] = set()

        async def answer(data: bytes) -> None:
            try:
                message = _STREAM_RESPONSE + _sized(await self._answered(data, context))
            except Refused as refused:
                failed = oip.ModelInferResponse(id=_id(data))
                message = oip.ModelStreamInferResponse(
                    error_message=refused.message, infer_response=failed
                ).SerializeToString()
            await answers.put(message)

        async def read() -> None:
            async for data in messages:
                task = asyncio.create_task(answer(data))
                running.add(task)
                task.add_done_callback(running.discard)
                if len(running) >= STREAM_RUNNING:
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            if running:
                await asyncio.wait(running)
            await answers.put(None)

        reader = asyncio.create_task(read())
        try:
            while (message := await answers.get()) is not None:
                await context.write(message)
        finally:
            for task in (reader, *running):
                task.cancel()

    async def _answered(self, data: bytes, context: ServicerContext) -> bytes:
        """The answer to one message of a stream. Raises Refused."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        inference = Inference(
            self._inferences,
            len(data),
            lambda data: None if answer.done() else answer.set_result(data),
            lambda refused: None if answer.done() else answer.set_exception(refused),
        )
        inference.begin(data, context.time_remaining())
        try:
            return await answer
        except asyncio.CancelledError:
            inference.cancel()
            raise

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


def _handler(name: str, method: Callable[..., Awaitable[Any]]) -> grpc.RpcMethodHandler:
    request_type = getattr(oip, f"{name}Request")

    async def call(data: bytes, context: ServicerContext) -> Any:
        try:
            return await method(parsed(request_type, data), context)
        except Refused as refused:
            await context.abort(refused.code, refused.message)

    # The request comes as bytes: what grpc cannot deserialize it calls UNKNOWN, as if it were the worker's fault.
    return grpc.unary_unary_rpc_method_handler(
        call, response_serializer=getattr(oip, f"{name}Response").SerializeToString
    )


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
