"""ModelInfer, from the bytes of a request to those of its response: read, queued, counted. Without tasks or sockets."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from worker.errors import ServiceError, invalid_argument, unavailable
from worker.operations import Counters, log_warning
from worker.runtime import Tensor
from worker.serving.batch_queue import Job, JobResult
from worker.serving.executor import BatchExecutor
from worker.serving.model_metadata import VERSION, ServedModel
from worker.serving.request_plan import RequestPlan
from worker.serving.request_reader import RequestReader
from worker.serving.shared_memory import MemoryRegions
from worker.wire import StatusCode
from worker.wire import open_inference_pb2 as oip


@dataclass(frozen=True)
class InferenceLimits:
    """Requests and their bytes that may be in flight; more is refused with UNAVAILABLE, so that memory is bounded."""

    requests_in_flight: int = 4096
    bytes_in_flight: int = 1024**3


class InferencePipeline:
    """Reader, executor, counters and limits of all inferences. Refuses requests until `open` and after `close`."""

    def __init__(self, executor: BatchExecutor, counters: Counters, limits: InferenceLimits) -> None:
        self.executor = executor
        self.counters = counters
        self.limits = limits
        self.regions = MemoryRegions()
        self.reader: RequestReader | None = None

    def open(self, model: ServedModel) -> None:
        """Accepts requests for `model` from here on."""
        self.reader = RequestReader(model, self.regions)

    def close(self) -> None:
        """Refuses requests with UNAVAILABLE from here on."""
        self.reader = None

    @property
    def model(self) -> ServedModel | None:
        """The model; None while requests are refused."""
        return None if self.reader is None else self.reader.model

    def ready_model(self) -> ServedModel:
        """Returns the model. Raises ServiceError while requests are refused."""
        if self.reader is None:
            raise unavailable("the model is not ready")
        return self.reader.model

    def find_model(self, name: str, version: str) -> ServedModel:
        """Returns the model if it has this name and version. Raises ServiceError (NOT_FOUND) otherwise."""
        model = self.ready_model()
        if not model.matches(name, version):
            request = f"{name!r}" + (f" version {version}" if version else "")
            message = f"no model {request} here: this worker serves {model.name} version {VERSION}"
            raise ServiceError(StatusCode.NOT_FOUND, message)
        return model

    def read(self, data: bytes) -> tuple[RequestPlan, list[Tensor]]:
        """Returns plan and inputs of a serialized message. Raises ServiceError."""
        request = parse_message(oip.ModelInferRequest, data)
        self.find_model(request.model_name, request.model_version)
        assert self.reader is not None
        return self.reader.read(request, data)


class Inference:
    """One request in flight; it alone changes the counters. Ends with `respond`, `fail` or `cancel`."""

    __slots__ = ("_begin_ns", "_fail", "_job", "_pipeline", "_plan", "_reader", "_respond", "_size")

    def __init__(
        self,
        pipeline: InferencePipeline,
        size: int,
        respond: Callable[[bytes], None],
        fail: Callable[[ServiceError], None],
    ) -> None:
        self._pipeline = pipeline
        self._size = size
        self._respond = respond
        self._fail = fail
        self._job: Job | None = None

    def begin(self, data: bytes, remaining_s: float | None) -> None:
        """Reads and queues a serialized message; fails at once where it is refused.

        `remaining_s` is the time until the client's deadline; None: it has none.
        """
        self._begin_ns = time.monotonic_ns()
        pipeline = self._pipeline
        counters, limits = pipeline.counters, pipeline.limits
        counters.requests += 1
        counters.in_flight += 1
        counters.bytes_in_flight += self._size
        try:
            self._reader = reader = pipeline.reader
            if reader is None:
                raise unavailable("the model is not ready")
            if counters.in_flight > limits.requests_in_flight:
                raise unavailable(f"too many requests in flight: the limit is {limits.requests_in_flight}")
            if counters.bytes_in_flight > limits.bytes_in_flight:
                raise unavailable(f"too many bytes of requests in flight: the limit is {limits.bytes_in_flight}")
            self._plan, inputs = reader.read_known(data) or pipeline.read(data)
            job = self._plan.make_job(inputs)
            if remaining_s is not None:
                job.deadline_ns = job.arrived_ns + int(remaining_s * 1e9)
            pipeline.executor.submit(job, self._on_end)
            self._job = job
        except Exception as error:
            self._end_with_error(error)

    def cancel(self) -> None:
        """Cancels the request: neither `respond` nor `fail` is called any more."""
        if self._job is not None:
            self._pipeline.executor.cancel(self._job)
            self._release()
            self._pipeline.counters.add_error("CANCELLED", time.monotonic_ns() - self._begin_ns)

    def _on_end(self, result: JobResult | BaseException) -> None:
        pipeline = self._pipeline
        reader = self._reader
        if isinstance(result, BaseException):
            self._end_with_error(result)
            return
        assert reader is not None
        try:
            outputs = reader.select_outputs(self._plan, result.outputs)
            response = self._plan.encode_response(reader.model.name, outputs)
        except Exception as error:
            self._end_with_error(error)
            return
        pipeline.counters.add_response(result.forward_pass, result.queue_ns, time.monotonic_ns() - self._begin_ns)
        self._release()
        self._respond(response)

    def _end_with_error(self, error: BaseException) -> None:
        if not isinstance(error, ServiceError):
            log_warning("inference failed", error=_one_line(error))
            error = ServiceError(StatusCode.INTERNAL, _one_line(error))
        self._release()
        self._pipeline.counters.add_error(error.code.name, time.monotonic_ns() - self._begin_ns)
        self._fail(error)

    def _release(self) -> None:
        self._job = None
        counters = self._pipeline.counters
        counters.in_flight -= 1
        counters.bytes_in_flight -= self._size


def parse_message(request_type: Any, data: bytes) -> Any:
    """Returns a message of a generated class. Raises ServiceError (INVALID_ARGUMENT) where the bytes are not one."""
    try:
        return request_type.FromString(data)
    except Exception:  # the runtime's DecodeError, by whichever class its implementation raises
        raise invalid_argument(f"the message is not a {request_type.DESCRIPTOR.name}") from None


def _one_line(error: BaseException) -> str:
    """Returns the last line of an error: TorchScript writes its own stack before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
