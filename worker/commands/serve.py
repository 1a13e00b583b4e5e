"""One worker process: its gRPC server, from binding its port to draining."""

import asyncio
import errno
import gc
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from worker.errors import UsageError
from worker.operations import log
from worker.operations import metrics_page as metrics
from worker.operations.counters import Counters
from worker.operations.security import Security
from worker.runtime.context import Context, WarmUp
from worker.server import GrpcServer
from worker.serving.accelerator_service import AcceleratorService, Identity, process_peak_bytes
from worker.serving.batch_queue import Batcher
from worker.serving.inference import Limits
from worker.serving.job import Policy
from worker.serving.model_metadata import ServedModel
from worker.serving.open_inference import INFER, InferenceService
from worker.wire import accelerator_pb2, open_inference_pb2
from worker.wire.http2 import PeerLimits

# The default of 4 MiB refuses a batch of 32 images (19 MB).
MESSAGE_BYTES = 256 * 1024 * 1024

# After the drain: how long the last answers, and the forward pass that may be running, have left.
ABANDON_S = 1.0

# Streams of one connection beyond the bound on inferences in flight, so that what is refused is told so.
SPARE_STREAMS = 1024


@dataclass(frozen=True)
class Options:
    """How a worker listens and ends."""

    address: str = "127.0.0.1"
    port: int = 0
    policy: Policy = field(default_factory=Policy)
    drain_s: float = 30.0
    limits: Limits = field(default_factory=Limits)
    security: Security = field(default_factory=Security)
    # None: no metrics.
    metrics_port: int | None = None


async def serve(context: Context, identity: Identity, options: Options, on_ready: Callable[[str, str], None]) -> None:
    """Binds, loads and warms up in the executor thread, calls `on_ready`, serves until SIGTERM or SIGINT, drains.

    UsageError where the port is taken or the model cannot be loaded.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    counters = Counters()
    batcher = Batcher(context, options.policy, loop, counters.executed)
    service = InferenceService(identity.accelerator, batcher, counters, options.limits)
    describing = AcceleratorService(identity, context, counters)
    limits = options.limits
    server = GrpcServer(
        PeerLimits(
            message_bytes=MESSAGE_BYTES,
            streams=limits.in_flight + SPARE_STREAMS,
            buffered_bytes=max(limits.bytes_in_flight, MESSAGE_BYTES),
        ),
        options.security.authorized(),
        options.security.tls(),
    )
    server.add_unary(INFER, service.infer)
    server.add_generic_rpc_handlers([service.handlers(), describing.handlers()])
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    names = [
        open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name,
        accelerator_pb2.DESCRIPTOR.services_by_name["AcceleratorService"].full_name,
        health.SERVICE_NAME,
    ]
    reflecting = reflection.aio.ReflectionServicer([*names, reflection.SERVICE_NAME])
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflecting, server)
    for name in ("", *names):
        await healthy.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
    port = await _bind(server, options)
    page = lambda: metrics.render(  # noqa: E731
        counters,
        depth=batcher.depth,
        process_peak_bytes=process_peak_bytes(),
        accelerator_peak_bytes=context.peak_bytes(),
    )
    if options.metrics_port is not None:
        try:
            scraped = await metrics.start(options.address, options.metrics_port, page)
        except OSError as error:
            raise UsageError(f"--metrics-port {options.metrics_port} cannot be bound: {error.strerror}") from None
        log.info("metrics", port=scraped.sockets[0].getsockname()[1])
    loading = asyncio.ensure_future(batcher.call(lambda: _load(context, options.policy)))
    waiting = asyncio.ensure_future(stopped.wait())
    await asyncio.wait((loading, waiting), return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        # Nothing can interrupt a model that is being loaded, and nothing is lost with it.
        os._exit(0)
    try:
        model, warm = loading.result()
    except BaseException:
        waiting.cancel()
        await server.stop()
        raise
    describing.ready(model, warm)
    service.serve(model)
    for name in ("", *names):
        await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
    # What is alive now stays alive: the collector need not look at it again in the middle of a measurement.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # requests leave little behind; the default looks after every 700 objects
    log.info(
        "ready",
        address=f"{options.address}:{port}",
        accelerator=identity.accelerator.name,
        model=model.name,
        first_inference_ms=warm.first_ns / 1e6,
    )
    on_ready(f"{options.address}:{port}", model.name)
    await waiting
    service.refuse()
    log.info("draining", in_flight=counters.in_flight)
    await healthy.enter_graceful_shutdown()
    draining = asyncio.ensure_future(server.drain())
    await asyncio.wait((draining,), timeout=options.drain_s)
    if not draining.done():
        log.warning("given up", in_flight=counters.in_flight)
        batcher.give_up()
        await asyncio.wait((draining,), timeout=ABANDON_S)
    draining.cancel()
    await server.stop()
    log.info("stopped", requests=counters.requests, answered=counters.answered)
    if not await batcher.stop(ABANDON_S):
        os._exit(0)  # a forward pass hangs, and nobody waits for it any more


def _load(context: Context, policy: Policy) -> tuple[ServedModel, WarmUp]:
    context.load()
    if policy.max_batch_size and not context.specification.batches:
        raise UsageError("--max-batch-size needs a model whose inputs and outputs all have a free first dimension (-1)")
    warm = context.warm_up(range(1, policy.max_batch_size + 1))
    return ServedModel(context.specification, policy), warm


async def _bind(server: GrpcServer, options: Options) -> int:
    """The port bound. UsageError where it is taken or cannot be had."""
    try:
        return await server.listen(options.address, options.port)
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound: {error.strerror or error}"
        raise UsageError(f"{options.address}:{options.port} {reason}") from None
