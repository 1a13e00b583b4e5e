"""OpenInferenceService: the methods of the Open Inference Protocol. Maps errors to gRPC status codes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from worker.accelerators import Accelerator
from worker.errors import ServiceError
from worker.operations import Counters, Duration, product_version
from worker.server import Stream
from worker.serving.executor import BatchExecutor
from worker.serving.inference import Inference, InferenceLimits, InferencePipeline, parse_message
from worker.serving.model_metadata import VERSION, ServedModel, model_configuration, model_metadata
from worker.serving.request_plan import encode_varint
from worker.wire import StatusCode
from worker.wire import open_inference_pb2 as oip

SERVICE = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
INFER = f"/{SERVICE}/ModelInfer"
EXTENSIONS = ("model_configuration", "statistics", "system_shared_memory")
# Of one stream: inferences in flight, and responses that wait for the client to read them.
_STREAM_IN_FLIGHT = 256
_STREAM_RESPONSES = 64
# Key of ModelStreamInferResponse.infer_response: field number << 3 | length-delimited.
_INFER_RESPONSE_KEY = bytes([2 << 3 | 2])

# grpc carries no types.
ServicerContext: TypeAlias = Any


class OpenInferenceService:
    """Every method of the Open Inference Protocol. Refuses inferences until `open` and after `close`."""

    def __init__(
        self, accelerator: Accelerator, executor: BatchExecutor, counters: Counters, limits: InferenceLimits
    ) -> None:
        self._accelerator = accelerator
        self._counters = counters
        self._pipeline = InferencePipeline(executor, counters, limits)
        self._regions = self._pipeline.regions

    def open(self, model: ServedModel) -> None:
        """Accepts inferences from here on."""
        self._pipeline.open(model)

    def close(self) -> None:
        """Refuses inferences with UNAVAILABLE from here on."""
        self._pipeline.close()

    def handlers(self) -> grpc.GenericRpcHandler:
        """Returns the handler of each method by its protocol name, except for INFER, which is `infer`."""
        # Bytes in, bytes out.
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
        return oip.ServerReadyResponse(ready=self._pipeline.model is not None)

    async def model_ready(self, request: oip.ModelReadyRequest, context: ServicerContext) -> oip.ModelReadyResponse:
        model = self._pipeline.model
        return oip.ModelReadyResponse(ready=model is not None and model.matches(request.name, request.version))

    async def server_metadata(
        self, request: oip.ServerMetadataRequest, context: ServicerContext
    ) -> oip.ServerMetadataResponse:
        extensions = (*EXTENSIONS, "cuda_shared_memory") if self._accelerator.kind == "cuda" else EXTENSIONS
        return oip.ServerMetadataResponse(name="inferload", version=product_version(), extensions=extensions)

    async def model_metadata(
        self, request: oip.ModelMetadataRequest, context: ServicerContext
    ) -> oip.ModelMetadataResponse:
        return model_metadata(self._pipeline.find_model(request.name, request.version))

    async def model_config(self, request: oip.ModelConfigRequest, context: ServicerContext) -> oip.ModelConfigResponse:
        accelerator = self._accelerator
        model = self._pipeline.find_model(request.name, request.version)
        return oip.ModelConfigResponse(config=model_configuration(model, accelerator.kind, accelerator.ordinal))

    async def model_statistics(
        self, request: oip.ModelStatisticsRequest, context: ServicerContext
    ) -> oip.ModelStatisticsResponse:
        pipeline = self._pipeline
        model = pipeline.find_model(request.name, request.version) if request.name else pipeline.ready_model()
        return oip.ModelStatisticsResponse(model_stats=[_statistics(model.name, self._counters)])

    def infer(self, stream: Stream, data: bytes) -> None:
        """Begins ModelInfer on a stream: the hot path, without a task.

        The request is bytes, so that a message that cannot be parsed is reported as the client's error.
        """
        inference = Inference(
            self._pipeline,
            len(data),
            stream.reply,
            lambda error: stream.finish(error.code, error.message),
        )
        stream.on_cancel = inference.cancel
        inference.begin(data, stream.time_remaining())

    async def model_stream_infer(self, messages: AsyncIterator[bytes], context: ServicerContext) -> None:
        """Runs many inferences of one stream at a time. A failed one gets an error message under its id."""
        responses: asyncio.Queue[bytes | None] = asyncio.Queue(_STREAM_RESPONSES)
        tasks: set[asyncio.Task[None]] = set()

        async def respond(data: bytes) -> None:
            try:
                message = _INFER_RESPONSE_KEY + _length_delimited(await self._infer(data, context))
            except ServiceError as error:
                response = oip.ModelInferResponse(id=_request_id(data))
                message = oip.ModelStreamInferResponse(
                    error_message=error.message, infer_response=response
                ).SerializeToString()
            await responses.put(message)

        async def read() -> None:
            async for data in messages:
                task = asyncio.create_task(respond(data))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                if len(tasks) >= _STREAM_IN_FLIGHT:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks:
                await asyncio.wait(tasks)
            await responses.put(None)

        reader = asyncio.create_task(read())
        try:
            while (message := await responses.get()) is not None:
                await context.write(message)
        finally:
            for task in (reader, *tasks):
                task.cancel()

    async def _infer(self, data: bytes, context: ServicerContext) -> bytes:
        """Returns the response to one message of a stream. Raises ServiceError."""
        response: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        inference = Inference(
            self._pipeline,
            len(data),
            lambda data: None if response.done() else response.set_result(data),
            lambda error: None if response.done() else response.set_exception(error),
        )
        inference.begin(data, context.time_remaining())
        try:
            return await response
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
            raise ServiceError(StatusCode.UNIMPLEMENTED, f"{self._accelerator.name} has no CUDA shared memory")
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
            return await method(parse_message(request_type, data), context)
        except ServiceError as error:
            await context.abort(error.code, error.message)

    # The request comes as bytes: what grpc cannot deserialize it reports as UNKNOWN, an error of the worker.
    return grpc.unary_unary_rpc_method_handler(
        call, response_serializer=getattr(oip, f"{name}Response").SerializeToString
    )


def _length_delimited(data: bytes) -> bytes:
    return encode_varint(len(data)) + data


def _request_id(data: bytes) -> str:
    """Returns the id of a request; empty where it cannot be parsed."""
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
