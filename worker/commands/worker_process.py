"""One worker process: its gRPC server, from binding the port to draining."""

import asyncio
import errno
import gc
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from worker.errors import InputError, unavailable
from worker.operations import (
    Counters,
    Security,
    log_info,
    log_warning,
    process_peak_bytes,
    render_metrics,
    serve_metrics,
)
from worker.runtime import ExecutionContext, WarmUp
from worker.server import GrpcServer
from worker.serving import (
    INFER,
    AcceleratorService,
    BatchExecutor,
    BatchingPolicy,
    InferenceLimits,
    OpenInferenceService,
    ServedModel,
    WorkerIdentity,
)
from worker.wire import accelerator_pb2, open_inference_pb2
from worker.wire.http2 import PeerLimits

# The default of gRPC, 4 MiB, refuses a batch of 32 images (19 MB).
_MESSAGE_BYTES = 256 * 1024 * 1024

# After the drain: the time that is left for the last responses, and for the forward pass that may be running.
_STOP_TIMEOUT_S = 1.0

# Streams of one connection beyond the limit on inferences in flight, so that a refused request gets its status.
_SPARE_STREAMS = 1024

_SERVICES = (
    open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name,
    accelerator_pb2.DESCRIPTOR.services_by_name["AcceleratorService"].full_name,
    health.SERVICE_NAME,
)


@dataclass(frozen=True)
class ProcessOptions:
    """How a worker listens, batches and ends."""

    address: str = "127.0.0.1"
    port: int = 0
    policy: BatchingPolicy = field(default_factory=BatchingPolicy)
    drain_s: float = 30.0
    limits: InferenceLimits = field(default_factory=InferenceLimits)
    security: Security = field(default_factory=Security)
    #: None: no metrics page.
    metrics_port: int | None = None


async def run_worker(
    context: ExecutionContext, identity: WorkerIdentity, options: ProcessOptions, on_ready: Callable[[str, str], None]
) -> None:
    """Serves until SIGTERM or SIGINT, then drains.

    Binds the port, loads and warms up in the executor thread, and then calls `on_ready` with the address and the
    model's name. Raises InputError where the port is in use or the model cannot be loaded.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    worker = _WorkerProcess(context, identity, options)
    await worker.start()
    model = await worker.load(stop)
    on_ready(worker.address, model.name)
    await stop.wait()
    await worker.drain()


class _WorkerProcess:
    """The parts of a worker process, and its phases: start, load, drain."""

    def __init__(self, context: ExecutionContext, identity: WorkerIdentity, options: ProcessOptions) -> None:
        self._context = context
        self._identity = identity
        self._options = options
        self._counters = Counters()
        self._executor = BatchExecutor(context, options.policy, asyncio.get_running_loop(), self._counters.add_pass)
        self._inference = OpenInferenceService(identity.accelerator, self._executor, self._counters, options.limits)
        self._description = AcceleratorService(identity, context, self._counters)
        self._health = health.aio.HealthServicer()
        self._server = self._make_server()
        self.address = ""

    def _make_server(self) -> GrpcServer:
        options, limits = self._options, self._options.limits
        server = GrpcServer(
            PeerLimits(
                message_bytes=_MESSAGE_BYTES,
                streams=limits.requests_in_flight + _SPARE_STREAMS,
                buffered_bytes=max(limits.bytes_in_flight, _MESSAGE_BYTES),
            ),
            options.security.authorized(),
            options.security.tls(),
        )
        server.add_unary(INFER, self._inference.infer)
        server.add_generic_rpc_handlers([self._inference.handlers(), self._description.handlers()])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        servicer = reflection.aio.ReflectionServicer([*_SERVICES, reflection.SERVICE_NAME])
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
        return server

    async def start(self) -> None:
        """Binds the ports; health checks say NOT_SERVING. Raises InputError."""
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        self.address = f"{self._options.address}:{await self._bind()}"
        if self._options.metrics_port is not None:
            try:
                server = await serve_metrics(self._options.address, self._options.metrics_port, self._metrics_page)
            except OSError as error:
                message = f"--metrics-port {self._options.metrics_port} cannot be bound: {error.strerror}"
                raise InputError(message) from None
            log_info("metrics", port=server.sockets[0].getsockname()[1])

    async def load(self, stop: asyncio.Event) -> ServedModel:
        """Loads and warms up the model in the executor thread, then accepts requests. Raises InputError.

        Ends the process where `stop` is set before.
        """
        loading = asyncio.ensure_future(self._executor.call(self._load_model))
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            # Nothing can interrupt a model that is being loaded, and nothing is lost with it.
            os._exit(0)
        stopping.cancel()
        try:
            model, warm_up = loading.result()
        except BaseException:
            await self._server.stop()
            raise
        self._description.open(model, warm_up)
        self._inference.open(model)
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        _tune_garbage_collector()
        log_info(
            "ready",
            address=self.address,
            accelerator=self._identity.accelerator.name,
            model=model.name,
            first_inference_ms=warm_up.first_ns / 1e6,
        )
        return model

    async def drain(self) -> None:
        """Refuses new requests, waits for those in flight as long as the options say, and ends the server."""
        self._inference.close()
        counters = self._counters
        log_info("draining", in_flight=counters.in_flight)
        await self._health.enter_graceful_shutdown()
        draining = asyncio.ensure_future(self._server.drain())
        await asyncio.wait((draining,), timeout=self._options.drain_s)
        if not draining.done():
            log_warning("drain timeout", in_flight=counters.in_flight)
            self._executor.fail_all(unavailable("the worker is ending"))
            await asyncio.wait((draining,), timeout=_STOP_TIMEOUT_S)
        draining.cancel()
        await self._server.stop()
        log_info("stopped", requests=counters.requests, answered=counters.answered)
        if not await self._executor.stop(_STOP_TIMEOUT_S):
            os._exit(0)  # a forward pass hangs, and no request waits for it any more

    def _load_model(self) -> tuple[ServedModel, WarmUp]:
        context, policy = self._context, self._options.policy
        context.load()
        if policy.max_batch_size and not context.specification.is_batched:
            raise InputError(
                "--max-batch-size needs a model whose inputs and outputs all have a free first dimension (-1)"
            )
        warm_up = context.warm_up(range(1, policy.max_batch_size + 1))
        return ServedModel(context.specification, policy), warm_up

    def _metrics_page(self) -> str:
        return render_metrics(
            self._counters,
            depth=self._executor.depth,
            process_peak_bytes=process_peak_bytes(),
            accelerator_peak_bytes=self._context.peak_bytes(),
        )

    async def _set_health(self, status: "health_pb2.HealthCheckResponse.ServingStatus") -> None:
        names: Iterable[str] = ("", *_SERVICES)
        for name in names:
            await self._health.set(name, status)

    async def _bind(self) -> int:
        """Returns the port that the server listens on. Raises InputError where it cannot be bound."""
        options = self._options
        try:
            return await self._server.listen(options.address, options.port)
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound: {error.strerror or error}"
            raise InputError(f"{options.address}:{options.port} {reason}") from None


def _tune_garbage_collector() -> None:
    """Lets the collector ignore what is alive now, and run rarely, so that it does not disturb a measurement."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # requests leave few objects; by default it runs for every 700
