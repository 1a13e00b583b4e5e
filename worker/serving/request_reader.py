"""Requests checked against the model's specification and read, results put into messages.

Most requests of a load differ in nothing but their elements. The Reader keeps what it learnt from a message, and one
that has the same bytes around its elements is neither parsed nor checked again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from worker.errors import invalid
from worker.runtime.tensors import NUMPY, Tensor, TensorSpec, byte_size, fits
from worker.serving.job import Job
from worker.serving.model_metadata import VERSION, ServedModel
from worker.serving.shared_memory import Place, Regions
from worker.wire import DATA_TYPES
from worker.wire import open_inference_pb2 as oip

# Keys of serialized fields: field number << 3 | length-delimited.
_RESPONSE_RAW = bytes([6 << 3 | 2])
_REQUEST_RAW = bytes([7 << 3 | 2])

_TEMPLATES = 64
_TEMPLATE_BYTES = 4096


class Plan:
    """What one request asks for, its elements aside. Shared by all requests that ask for the same."""

    __slots__ = ("_header", "_shapes", "id", "key", "outputs", "places", "priority", "rows", "timeout_ns")

    def __init__(self, request_id: str, outputs: list[str], places: list[Place | None]) -> None:
        self.id = request_id
        # Names of the outputs to send, in order, and where in shared memory each goes; None: into the message.
        self.outputs = outputs
        self.places = places if any(places) else []
        self.rows = 1
        self.key: object = None
        self.priority = 0
        self.timeout_ns = 0
        self._shapes: list[tuple[int, ...]] = []
        self._header = b""

    def job(self, inputs: Sequence[Tensor]) -> Job:
        job = Job(inputs, rows=self.rows, key=self.key, priority=self.priority)
        if self.timeout_ns:
            job.expires_ns = job.arrived_ns + self.timeout_ns
        return job

    def answer(self, model: str, outputs: Sequence[Tensor]) -> bytes:
        """A serialized ModelInferResponse. `outputs` are those asked for, in order.

        All but the elements is kept for the next time that the outputs have these shapes.
        """
        if self.places:
            return self._shared_answer(model, outputs)
        shapes = [tensor.shape for tensor in outputs]
        if shapes != self._shapes or not self._header:
            self._header = self._message(model, outputs).SerializeToString()
            self._shapes = shapes
        parts: list[bytes | memoryview] = [self._header]
        for tensor in outputs:
            parts += (_RESPONSE_RAW, varint(len(tensor.data)), tensor.data)
        return b"".join(parts)

    def _message(self, model: str, outputs: Sequence[Tensor]) -> oip.ModelInferResponse:
        message = oip.ModelInferResponse(model_name=model, model_version=VERSION, id=self.id)
        for name, tensor in zip(self.outputs, outputs, strict=True):
            message.outputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
        return message

    def _shared_answer(self, model: str, outputs: Sequence[Tensor]) -> bytes:
        message = self._message(model, outputs)
        for place, tensor, described in zip(self.places, outputs, message.outputs, strict=True):
            if place is None:
                message.raw_output_contents.append(bytes(tensor.data))
            else:
                place.write(tensor.data)
                # As Triton does: its C++ client reads an entry for every output, and ends with SIGSEGV without one.
                message.raw_output_contents.append(b"")
                described.parameters["shared_memory_region"].string_param = place.region
                described.parameters["shared_memory_byte_size"].int64_param = len(tensor.data)
        return message.SerializeToString()


class _Template:
    """A message seen before: the bytes around its elements, and the plan that they led to."""

    __slots__ = ("gaps", "plan", "prefix", "specs")

    def __init__(self, plan: Plan, prefix: bytes, specs: list[tuple[str, tuple[int, ...], int, int]]) -> None:
        self.plan = plan
        self.prefix = prefix
        # Datatype, shape, and where the elements start and end.
        self.specs = specs
        self.gaps: list[tuple[int, bytes]] = []


class Reader:
    """Reads requests for one model. Every check that fails raises Refused."""

    def __init__(self, model: ServedModel, regions: Regions) -> None:
        self.model = model
        self._regions = regions
        self._inputs = {spec.name: (place, spec) for place, spec in enumerate(model.specification.inputs)}
        self._outputs = {spec.name: place for place, spec in enumerate(model.specification.outputs)}
        self._batches = model.specification.batches
        self._templates: dict[int, _Template] = {}

    def remembered(self, data: bytes) -> tuple[Plan, list[Tensor]] | None:
        """The plan and the inputs of a message whose like was read before."""
        template = self._templates.get(len(data))
        if template is None or not data.startswith(template.prefix):
            return None
        for start, gap in template.gaps:
            if not data.startswith(gap, start):
                return None
        view = memoryview(data)
        return template.plan, [
            Tensor(datatype, shape, view[start:end]) for datatype, shape, start, end in template.specs
        ]

    def read(self, request: oip.ModelInferRequest, data: bytes = b"") -> tuple[Plan, list[Tensor]]:
        """The plan and the inputs of a message. `data`, the message as it came, is remembered."""
        given = request.inputs
        if len(given) != len(self._inputs):
            raise invalid(f"{len(given)} inputs where {self.model.name} takes {len(self._inputs)}: {self._names()}")
        raw = list(request.raw_input_contents)
        unread = iter(raw)
        tensors: list[Tensor | None] = [None] * len(given)
        order: list[int] = []
        for tensor in given:
            place, spec = self._inputs.get(tensor.name, (-1, None))
            if spec is None:
                raise invalid(f"{tensor.name!r} is not an input of {self.model.name}; it takes {self._names()}")
            if tensors[place] is not None:
                raise invalid(f"input {tensor.name} is given twice")
            tensors[place] = self._tensor(tensor, spec, unread, bool(raw))
            order.append(place)
        if next(unread, None) is not None:
            raise invalid(f"{len(raw)} raw_input_contents are more than the inputs that need them")
        inputs = [tensor for tensor in tensors if tensor is not None]
        plan = self._plan(request, inputs)
        if len(raw) == len(given) and not plan.places:
            self._remember(data, plan, [inputs[place] for place in order], order)
        return plan, inputs

    def _tensor(
        self, given: "oip.ModelInferRequest.InferInputTensor", spec: TensorSpec, unread: Any, has_raw: bool
    ) -> Tensor:
        shape = tuple(given.shape)
        if given.datatype != spec.datatype:
            raise invalid(f"input {spec.name} is of datatype {given.datatype or 'none'}, not {spec.datatype}")
        if not fits(shape, spec.shape) or min(shape, default=1) < 1:
            raise invalid(f"input {spec.name} has shape {list(shape)}, not {list(spec.shape)}")
        wanted = byte_size(spec.datatype, shape)
        data: bytes | None
        if "shared_memory_region" in given.parameters:
            if given.HasField("contents"):
                raise invalid(f"input {spec.name} has typed contents beside shared memory")
            data = self._regions.place(given.parameters, wanted, exact=True).read()
        elif has_raw:
            if given.HasField("contents"):
                raise invalid(f"input {spec.name} has typed contents beside raw_input_contents")
            data = next(unread, None)
            if data is None:
                raise invalid(f"input {spec.name} has no raw_input_contents where others have")
        else:
            data = _typed(given.contents, spec, shape, wanted)
        if len(data) != wanted:
            raise invalid(f"input {spec.name} has {len(data)} bytes where {list(shape)} {spec.datatype} has {wanted}")
        return Tensor(spec.datatype, shape, data)

    def _plan(self, request: oip.ModelInferRequest, inputs: Sequence[Tensor]) -> Plan:
        names: list[str] = []
        places: list[Place | None] = []
        for requested in request.outputs:
            if requested.name not in self._outputs:
                known = ", ".join(self._outputs)
                raise invalid(f"{requested.name!r} is not an output of {self.model.name}; it gives {known}")
            if requested.name in names:
                raise invalid(f"output {requested.name} is asked for twice")
            if "classification" in requested.parameters:
                raise invalid("classification of outputs is not offered")
            shared = "shared_memory_region" in requested.parameters
            names.append(requested.name)
            places.append(self._regions.place(requested.parameters, 0, exact=False) if shared else None)
        plan = Plan(request.id, names or list(self._outputs), places)
        plan.rows, plan.key = self._batch(inputs)
        policy = self.model.policy
        plan.priority = policy.default_priority
        if request.parameters:
            asked = _whole(request.parameters, "priority")
            if asked and policy.priority_levels:
                if asked > policy.priority_levels:
                    raise invalid(f"priority {asked} where there are {policy.priority_levels} levels")
                plan.priority = asked
            plan.timeout_ns = _whole(request.parameters, "timeout") * 1000
        return plan

    def selected(self, plan: Plan, outputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Those of the model's outputs that the plan asks for, in its order."""
        return outputs if len(outputs) == 1 else [outputs[self._outputs[name]] for name in plan.outputs]

    def _batch(self, inputs: Sequence[Tensor]) -> tuple[int, object]:
        """Rows of the batch dimension, and what must be equal for requests to be joined."""
        most = self.model.policy.max_batch_size
        rows = inputs[0].shape[0] if self._batches else 1
        if not most:
            return rows, None
        if any(tensor.shape[0] != rows for tensor in inputs):
            raise invalid("the inputs have different numbers of rows in their first dimension")
        if rows > most:
            raise invalid(f"a batch of {rows} where {self.model.name} takes at most {most}")
        return rows, tuple(tensor.shape[1:] for tensor in inputs)

    def _remember(self, data: bytes, plan: Plan, sent: Sequence[Tensor], order: Sequence[int]) -> None:
        """Keeps a message whose last bytes are its raw contents, in the order sent."""
        if len(data) in self._templates:
            return
        heads = [_REQUEST_RAW + varint(len(tensor.data)) for tensor in sent]
        size = sum(len(head) + len(tensor.data) for head, tensor in zip(heads, sent, strict=True))
        start = len(data) - size
        if not 0 <= start + len(heads[0]) <= _TEMPLATE_BYTES or not _ends_without_raw(data[:start]):
            return
        template = _Template(plan, data[: start + len(heads[0])], [])
        specs: dict[int, tuple[str, tuple[int, ...], int, int]] = {}
        for head, tensor, place in zip(heads, sent, order, strict=True):
            if not data.startswith(head, start):
                return
            if specs:
                template.gaps.append((start, head))
            start += len(head)
            specs[place] = (tensor.datatype, tensor.shape, start, start + len(tensor.data))
            start += len(tensor.data)
        template.specs = [specs[place] for place in sorted(specs)]
        if len(self._templates) >= _TEMPLATES:
            self._templates.clear()
        self._templates[len(data)] = template

    def _names(self) -> str:
        return ", ".join(f"{s.name} ({s.datatype} {list(s.shape)})" for s in self.model.specification.inputs)


def _typed(contents: oip.InferTensorContents, spec: TensorSpec, shape: Sequence[int], size: int) -> bytes:
    """Elements of a typed field as the bytes that raw contents would have."""
    field_name = DATA_TYPES[spec.datatype].contents_field
    if field_name is None:
        raise invalid(f"input {spec.name}: {spec.datatype} travels in raw_input_contents only")
    filled = {descriptor.name for descriptor, _ in contents.ListFields()}
    if filled - {field_name}:
        raise invalid(f"input {spec.name} of {spec.datatype} carries {', '.join(sorted(filled))}, not {field_name}")
    values = getattr(contents, field_name)
    wanted = size // NUMPY[spec.datatype].itemsize
    if len(values) != wanted:
        raise invalid(f"input {spec.name} has {len(values)} elements where {list(shape)} has {wanted}")
    try:
        return np.array(values, dtype=NUMPY[spec.datatype]).tobytes()
    except OverflowError:
        raise invalid(f"input {spec.name} has an element that {spec.datatype} cannot hold") from None


def _ends_without_raw(data: bytes) -> bool:
    """True where a whole message ends here and has no raw contents: what follows is then them, and not a string's bytes
    that look like them."""
    try:
        return not oip.ModelInferRequest.FromString(data).raw_input_contents
    except Exception:  # the runtime's DecodeError, by whichever class its implementation raises
        return False


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


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
