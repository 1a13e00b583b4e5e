"""The one model that a worker serves: requests checked against its specification, results put into messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from worker.batching import Job, Policy
from worker.errors import invalid
from worker.models import Specification
from worker.tensors import CONTENTS_FIELD, NUMPY, Tensor, TensorSpec, byte_size, fits
from worker.wire import open_inference_pb2 as oip

VERSION = "1"
PLATFORM = "pytorch_libtorch"
# Shapes whose response header is kept ready. Beyond it, all are forgotten and built anew.
_HEADERS = 256
# Keys of a serialized ModelInferResponse: field number << 3 | length-delimited.
_ID_KEY = bytes([3 << 3 | 2])
_RAW_KEY = bytes([6 << 3 | 2])


@dataclass
class ServedModel:
    """A specification under the name that clients know. Every check that fails raises Refused."""

    specification: Specification
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        self.name = self.specification.name
        self._inputs = {spec.name: (place, spec) for place, spec in enumerate(self.specification.inputs)}
        self._outputs = {spec.name: (place, spec) for place, spec in enumerate(self.specification.outputs)}
        self._headers: dict[tuple[object, ...], bytes] = {}

    def named(self, name: str, version: str) -> bool:
        return name == self.name and version in ("", VERSION)

    def job(self, request: oip.ModelInferRequest) -> Job:
        """Checks the request and reads its tensors."""
        given = request.inputs
        if len(given) != len(self._inputs):
            raise invalid(f"{len(given)} inputs where {self.name} takes {len(self._inputs)}: {self._names()}")
        raw = request.raw_input_contents
        if raw and len(raw) != len(given):
            raise invalid(f"{len(raw)} raw_input_contents for {len(given)} inputs")
        tensors: list[Tensor | None] = [None] * len(given)
        for number, tensor in enumerate(given):
            place, spec = self._inputs.get(tensor.name, (-1, None))
            if spec is None:
                raise invalid(f"{tensor.name!r} is not an input of {self.name}; it takes {self._names()}")
            if tensors[place] is not None:
                raise invalid(f"input {tensor.name} is given twice")
            shape = tuple(tensor.shape)
            if tensor.datatype != spec.datatype:
                raise invalid(f"input {spec.name} is of datatype {tensor.datatype or 'none'}, not {spec.datatype}")
            if not fits(shape, spec.shape) or min(shape, default=1) < 1:
                raise invalid(f"input {spec.name} has shape {list(shape)}, not {list(spec.shape)}")
            if raw:
                if tensor.HasField("contents"):
                    raise invalid(f"input {spec.name} has typed contents beside raw_input_contents")
                data = raw[number]
            else:
                data = _typed(tensor.contents, spec, shape)
            if len(data) != byte_size(spec.datatype, shape):
                wanted = byte_size(spec.datatype, shape)
                raise invalid(
                    f"input {spec.name} has {len(data)} bytes where {list(shape)} {spec.datatype} has {wanted}"
                )
            tensors[place] = Tensor(spec.datatype, shape, data)
        for requested in request.outputs:
            if requested.name not in self._outputs:
                raise invalid(
                    f"{requested.name!r} is not an output of {self.name}; it gives {', '.join(self._outputs)}"
                )
            if "classification" in requested.parameters:
                raise invalid("classification of outputs is not offered")
        inputs = [tensor for tensor in tensors if tensor is not None]
        rows, key = self._batch(inputs)
        priority, expires_ns = self._queueing(request)
        job = Job(inputs, rows=rows, key=key, priority=priority)
        if expires_ns:
            job.expires_ns = job.arrived_ns + expires_ns
        return job

    def response(self, request: oip.ModelInferRequest, outputs: Sequence[Tensor]) -> bytes:
        """A serialized ModelInferResponse: a header kept for the outputs' shapes, the id, and the raw contents."""
        if request.outputs:
            outputs = [outputs[self._outputs[requested.name][0]] for requested in request.outputs]
            names = [requested.name for requested in request.outputs]
        else:
            names = list(self._outputs)
        key = tuple((name, tensor.shape) for name, tensor in zip(names, outputs, strict=True))
        header = self._headers.get(key)
        if header is None:
            if len(self._headers) >= _HEADERS:
                self._headers.clear()
            header = self._headers[key] = self._header(names, outputs)
        parts: list[bytes | memoryview] = [header]
        if request.id:
            encoded = request.id.encode()
            parts += (_ID_KEY, _varint(len(encoded)), encoded)
        for tensor in outputs:
            parts += (_RAW_KEY, _varint(len(tensor.data)), tensor.data)
        return b"".join(parts)

    def _header(self, names: Sequence[str], outputs: Sequence[Tensor]) -> bytes:
        message = oip.ModelInferResponse(model_name=self.name, model_version=VERSION)
        for name, tensor in zip(names, outputs, strict=True):
            message.outputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
        return message.SerializeToString()

    def _names(self) -> str:
        return ", ".join(f"{s.name} ({s.datatype} {list(s.shape)})" for s in self.specification.inputs)

    def _batch(self, inputs: Sequence[Tensor]) -> tuple[int, object]:
        """Rows of the batch dimension, and what must be equal for requests to be joined."""
        if not self.policy.max_batch_size:
            rows = inputs[0].shape[0] if self.specification.batches and inputs[0].shape else 1
            return rows, None
        rows = inputs[0].shape[0]
        if any(tensor.shape[0] != rows for tensor in inputs):
            raise invalid("the inputs have different numbers of rows in their first dimension")
        if rows > self.policy.max_batch_size:
            raise invalid(f"a batch of {rows} where {self.name} takes at most {self.policy.max_batch_size}")
        return rows, tuple(tensor.shape[1:] for tensor in inputs)

    def _queueing(self, request: oip.ModelInferRequest) -> tuple[int, int]:
        """Priority level and timeout in nanoseconds, from the request's parameters; 0 for none."""
        priority = self.policy.default_priority
        timeout_ns = 0
        if request.parameters:
            asked = _whole(request.parameters, "priority")
            if asked and self.policy.priority_levels:
                if asked > self.policy.priority_levels:
                    raise invalid(f"priority {asked} where there are {self.policy.priority_levels} levels")
                priority = asked
            timeout_ns = _whole(request.parameters, "timeout") * 1000
        return priority, timeout_ns


def metadata(model: ServedModel) -> oip.ModelMetadataResponse:
    """Names, datatypes and shapes, the batch dimension included."""
    message = oip.ModelMetadataResponse(name=model.name, versions=[VERSION], platform=PLATFORM)
    for spec in model.specification.inputs:
        message.inputs.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
    for spec in model.specification.outputs:
        message.outputs.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
    return message


def config(model: ServedModel, kind: str, ordinal: int) -> oip.ModelConfig:
    """Triton's model configuration. `parameters` hold an example shape, and the bound of integers, for each input."""
    policy = model.policy
    batched = policy.max_batch_size > 0
    message = oip.ModelConfig(
        name=model.name,
        platform=PLATFORM,
        backend="pytorch",
        default_model_filename="model.pt",
        max_batch_size=policy.max_batch_size,
        model_transaction_policy=oip.ModelTransactionPolicy(decoupled=False),
    )
    for spec in model.specification.inputs:
        message.input.add(name=spec.name, data_type=_config_type(spec), dims=spec.shape[1 if batched else 0 :])
        message.parameters[f"example_shape.{spec.name}"].string_value = ",".join(map(str, spec.example_shape()))
        if spec.high is not None:
            message.parameters[f"example_high.{spec.name}"].string_value = str(spec.high)
    for spec in model.specification.outputs:
        message.output.add(name=spec.name, data_type=_config_type(spec), dims=spec.shape[1 if batched else 0 :])
    group = message.instance_group.add(name=f"{kind}_{ordinal}", count=1)
    if kind == "cuda":
        group.kind = oip.ModelInstanceGroup.KIND_GPU
        group.gpus.append(ordinal)
    else:
        group.kind = oip.ModelInstanceGroup.KIND_CPU
    if batched:
        batching = message.dynamic_batching
        batching.preferred_batch_size.extend(policy.preferred)
        batching.max_queue_delay_microseconds = policy.max_queue_delay_us
        batching.priority_levels = policy.priority_levels
        batching.default_priority_level = policy.default_priority
        batching.default_queue_policy.allow_timeout_override = True
        batching.default_queue_policy.max_queue_size = policy.max_queue_size
    return message


def _config_type(spec: TensorSpec) -> Any:
    return oip.DataType.Value(f"TYPE_{spec.datatype}")


def _typed(contents: oip.InferTensorContents, spec: TensorSpec, shape: Sequence[int]) -> bytes:
    """Elements of a typed field as the bytes that raw contents would have."""
    field_name = CONTENTS_FIELD.get(spec.datatype)
    if field_name is None:
        raise invalid(f"input {spec.name}: {spec.datatype} travels in raw_input_contents only")
    filled = {descriptor.name for descriptor, _ in contents.ListFields()}
    if filled - {field_name}:
        raise invalid(f"input {spec.name} of {spec.datatype} carries {', '.join(sorted(filled))}, not {field_name}")
    values = getattr(contents, field_name)
    wanted = byte_size(spec.datatype, shape) // NUMPY[spec.datatype].itemsize
    if len(values) != wanted:
        raise invalid(f"input {spec.name} has {len(values)} elements where {list(shape)} has {wanted}")
    try:
        return np.array(values, dtype=NUMPY[spec.datatype]).tobytes()
    except OverflowError:
        raise invalid(f"input {spec.name} has an element that {spec.datatype} cannot hold") from None


def _whole(parameters: Mapping[str, Any], name: str) -> int:
    """A parameter that is a whole number of 0 or more; 0 where it is absent."""
    if name not in parameters:
        return 0
    parameter = parameters[name]
    choice = parameter.WhichOneof("parameter_choice")
    value = getattr(parameter, choice) if choice in ("int64_param", "uint64_param") else -1
    if value < 0:
        raise invalid(f"parameter {name} is a whole number of 0 or more")
    return int(value)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
