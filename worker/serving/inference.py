"""ModelInfer, from a message's bytes to its answer's: read, queued, counted. No task in it, and no wire."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from worker.errors import Refused, invalid, unavailable
from worker.operations import log
from worker.operations.counters import Counters
from worker.runtime.tensors import Tensor
from worker.serving.batch_queue import Batcher
from worker.serving.job import Done, Job
from worker.serving.model_metadata import VERSION, ServedModel
from worker.serving.request_reader import Plan, Reader
from worker.serving.shared_memory import Regions
from worker.wire import open_inference_pb2 as oip


@dataclass(frozen=True)
class Limits:
    """What may be in flight at once; more is refused with UNAVAILABLE, so that memory stays bounded."""

    in_flight: int = 4096
    bytes_in_flight: int = 1024**3


class Inferences:
    """All that are in flight. Until `serve`, and after `refuse`, each is refused."""

    def __init__(self, batcher: Batcher, counters: Counters, limits: Limits) -> None:
        self.batcher = batcher
        self.counters = counters
        self.limits = limits
        self.regions = Regions()
        self.reader: Reader | None = None

    def serve(self, model: ServedModel) -> None:
        """From here on inference is answered."""
        self.reader = Reader(model, self.regions)

    def refuse(self) -> None:
        """From here on inference is answered with UNAVAILABLE."""
        self.reader = None

    @property
    def model(self) -> ServedModel | None:
        return None if self.reader is None else self.reader.model

    def ready(self) -> ServedModel:
        """The model. Raises Refused where it is not ready, or no longer."""
        if self.reader is None:
            raise unavailable("the model is not ready")
        return self.reader.model

    def named(self, name: str, version: str) -> ServedModel:
        """The model, where it has this name. Raises Refused."""
        model = self.ready()
        if not model.named(name, version):
            asked = f"{name!r}" + (f" version {version}" if version else "")
            raise Refused(grpc.StatusCode.NOT_FOUND, f"{asked} is not served here; {model.name} version {VERSION} is")
        return model

    def read(self, data: bytes) -> tuple[Plan, list[Tensor]]:
        """A message that is not like one before. Raises Refused."""
        request = parsed(oip.ModelInferRequest, data)
        self.named(request.model_name, request.model_version)
        assert self.reader is not None
        return self.reader.read(request, data)


class Inference:
    """One message on its way: read, queued, answered by `answer` or `refuse`. The counters know of it by then."""

    __slots__ = ("_answer", "_begin_ns", "_job", "_plan", "_reader", "_refuse", "_shared", "_size")

    def __init__(
        self,
        shared: Inferences,
        size: int,
        answer: Callable[[bytes], None],
        refuse: Callable[[Refused], None],
    ) -> None:
        self._shared = shared
        self._size = size
        self._answer = answer
        self._refuse = refuse
        self._job: Job | None = None

    def begin(self, data: bytes, remaining_s: float | None) -> None:
        """Answers at once where the message is refused. `remaining_s`: until the client's deadline."""
        self._begin_ns = time.monotonic_ns()
        shared = self._shared
        counters, limits = shared.counters, shared.limits
        counters.requests += 1
        counters.in_flight += 1
        counters.bytes_in_flight += self._size
        try:
            self._reader = reader = shared.reader
            if reader is None:
                raise unavailable("the model is not ready")
            if counters.in_flight > limits.in_flight:
                raise unavailable(f"{limits.in_flight} requests are in flight, which is the bound")
            if counters.bytes_in_flight > limits.bytes_in_flight:
                raise unavailable(f"requests of {limits.bytes_in_flight} bytes are in flight, which is the bound")
            self._plan, inputs = reader.remembered(data) or shared.read(data)
            job = self._plan.job(inputs)
            if remaining_s is not None:
                job.deadline_ns = job.arrived_ns + int(remaining_s * 1e9)
            shared.batcher.submit(job, self._done)
            self._job = job
        except Exception as error:
            self._failed(error)

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        if self._job is not None:
            self._shared.batcher.cancel(self._job)
            self._leave()
            self._shared.counters.failed("CANCELLED", time.monotonic_ns() - self._begin_ns)

    def _done(self, result: Done | BaseException) -> None:
        shared = self._shared
        reader = self._reader
        if isinstance(result, BaseException):
            self._failed(result)
            return
        assert reader is not None
        try:
            response = self._plan.answer(reader.model.name, reader.selected(self._plan, result.outputs))
        except Exception as error:
            self._failed(error)
            return
        shared.counters.succeeded(result.ran, result.queue_ns, time.monotonic_ns() - self._begin_ns)
        self._leave()
        self._answer(response)

    def _failed(self, error: BaseException) -> None:
        if not isinstance(error, Refused):
            log.warning("inference failed", error=one_line(error))
            error = Refused(grpc.StatusCode.INTERNAL, one_line(error))
        self._leave()
        self._shared.counters.failed(error.code.name, time.monotonic_ns() - self._begin_ns)
        self._refuse(error)

    def _leave(self) -> None:
        self._job = None
        counters = self._shared.counters
        counters.in_flight -= 1
        counters.bytes_in_flight -= self._size


def parsed(request_type: Any, data: bytes) -> Any:
    try:
        return request_type.FromString(data)
    except Exception:  # the runtime's DecodeError, by whichever class its implementation raises
        raise invalid(f"the message is not a {request_type.DESCRIPTOR.name}") from None


def one_line(error: BaseException) -> str:
    """TorchScript puts its own stack first and what went wrong last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
