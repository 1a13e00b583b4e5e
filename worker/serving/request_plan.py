"""RequestPlan: what a request asks for, and the response that answers it."""

from collections.abc import Sequence

from worker.runtime import Tensor
from worker.serving.batch_queue import Job
from worker.serving.model_metadata import VERSION
from worker.serving.shared_memory import RegionSlice
from worker.wire import open_inference_pb2 as oip

# Key of the serialized field raw_output_contents: field number << 3 | length-delimited.
_RAW_CONTENTS_KEY = bytes([6 << 3 | 2])


class RequestPlan:
    """What a request asks for, without the elements of its tensors. Requests of one template share a plan."""

    __slots__ = ("_header", "_shapes", "id", "key", "outputs", "priority", "rows", "slices", "timeout_ns")

    def __init__(self, request_id: str, outputs: list[str], slices: list[RegionSlice | None]) -> None:
        self.id = request_id
        # Names of the outputs to send, in order, and the part of shared memory for each; None: into the message.
        self.outputs = outputs
        self.slices = slices if any(slices) else []
        self.rows = 1
        self.key: object = None
        self.priority = 0
        self.timeout_ns = 0
        self._shapes: list[tuple[int, ...]] = []
        self._header = b""

    def make_job(self, inputs: Sequence[Tensor]) -> Job:
        """Returns a job for these inputs, which arrives now."""
        job = Job(inputs, rows=self.rows, key=self.key, priority=self.priority)
        if self.timeout_ns:
            job.expires_ns = job.arrived_ns + self.timeout_ns
        return job

    def encode_response(self, model: str, outputs: Sequence[Tensor]) -> bytes:
        """Returns a serialized ModelInferResponse with the requested outputs, in order.

        The bytes before the elements are stored for the next response whose outputs have the same shapes.
        """
        if self.slices:
            return self._write_shared(model, outputs)
        shapes = [tensor.shape for tensor in outputs]
        if shapes != self._shapes or not self._header:
            self._header = self._message(model, outputs).SerializeToString()
            self._shapes = shapes
        parts: list[bytes | memoryview] = [self._header]
        for tensor in outputs:
            parts += (_RAW_CONTENTS_KEY, encode_varint(len(tensor.data)), tensor.data)
        return b"".join(parts)

    def _message(self, model: str, outputs: Sequence[Tensor]) -> oip.ModelInferResponse:
        message = oip.ModelInferResponse(model_name=model, model_version=VERSION, id=self.id)
        for name, tensor in zip(self.outputs, outputs, strict=True):
            message.outputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
        return message

    def _write_shared(self, model: str, outputs: Sequence[Tensor]) -> bytes:
        """Writes outputs into shared memory, and returns the response that names the regions."""
        message = self._message(model, outputs)
        for region_slice, tensor, description in zip(self.slices, outputs, message.outputs, strict=True):
            if region_slice is None:
                message.raw_output_contents.append(bytes(tensor.data))
            else:
                region_slice.write(tensor.data)
                # As Triton does: its C++ client reads an entry for every output, and ends with SIGSEGV without one.
                message.raw_output_contents.append(b"")
                description.parameters["shared_memory_region"].string_param = region_slice.region
                description.parameters["shared_memory_byte_size"].int64_param = len(tensor.data)
        return message.SerializeToString()


def encode_varint(value: int) -> bytes:
    """Returns a non-negative integer in Protocol Buffers' variable-length encoding."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
