"""RequestReader: validates requests against the model's specification and reads their tensors.

Most requests of a load differ only in the elements of their tensors. The reader stores the bytes around the elements of
a message as a template; a message that has the same bytes there is neither parsed nor validated again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from worker.errors import invalid_argument
from worker.runtime import NUMPY_TYPES, Tensor, TensorSpec, byte_size, shape_fits
from worker.serving.model_metadata import ServedModel
from worker.serving.request_plan import RequestPlan, encode_varint
from worker.serving.shared_memory import MemoryRegions, RegionSlice
from worker.wire import DATA_TYPES
from worker.wire import open_inference_pb2 as oip

# Key of the serialized field raw_input_contents: field number << 3 | length-delimited.
_RAW_CONTENTS_KEY = bytes([7 << 3 | 2])

_MAX_TEMPLATES = 64
_MAX_TEMPLATE_BYTES = 4096


class _Template:
    """The bytes around the elements of one message, and the plan that belongs to them."""

    __slots__ = ("gaps", "plan", "prefix", "specs")

    def __init__(self, plan: RequestPlan, prefix: bytes, specs: list[tuple[str, tuple[int, ...], int, int]]) -> None:
        self.plan = plan
        self.prefix = prefix
        # Datatype, shape, and where the elements start and end.
        self.specs = specs
        self.gaps: list[tuple[int, bytes]] = []


class RequestReader:
    """Reads requests for one model. Raises ServiceError for a request that does not fit the model."""

    def __init__(self, model: ServedModel, regions: MemoryRegions) -> None:
        self.model = model
        self._regions = regions
        self._inputs = {spec.name: (place, spec) for place, spec in enumerate(model.specification.inputs)}
        self._outputs = {spec.name: place for place, spec in enumerate(model.specification.outputs)}
        self._is_batched = model.specification.is_batched
        self._templates: dict[int, _Template] = {}

    def read_known(self, data: bytes) -> tuple[RequestPlan, list[Tensor]] | None:
        """Returns plan and inputs of a serialized message that fits a template, else None."""
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

    def read(self, request: oip.ModelInferRequest, data: bytes = b"") -> tuple[RequestPlan, list[Tensor]]:
        """Returns plan and inputs of a message. `data`, the same message serialized, becomes a template."""
        request_inputs = request.inputs
        if len(request_inputs) != len(self._inputs):
            raise invalid_argument(
                f"{len(request_inputs)} inputs; {self.model.name} has {len(self._inputs)}: {self._describe_inputs()}"
            )
        raw = list(request.raw_input_contents)
        unread = iter(raw)
        tensors: list[Tensor | None] = [None] * len(request_inputs)
        order: list[int] = []
        for tensor in request_inputs:
            place, spec = self._inputs.get(tensor.name, (-1, None))
            if spec is None:
                raise invalid_argument(
                    f"{tensor.name!r} is not an input of {self.model.name} (inputs: {self._describe_inputs()})"
                )
            if tensors[place] is not None:
                raise invalid_argument(f"input {tensor.name} is given twice")
            tensors[place] = self._tensor(tensor, spec, unread, bool(raw))
            order.append(place)
        if next(unread, None) is not None:
            raise invalid_argument(f"{len(raw)} raw_input_contents are more than the inputs without shared memory")
        inputs = [tensor for tensor in tensors if tensor is not None]
        plan = self._plan(request, inputs)
        if len(raw) == len(request_inputs) and not plan.slices:
            self._add_template(data, plan, [inputs[place] for place in order], order)
        return plan, inputs

    def _tensor(
        self, message: "oip.ModelInferRequest.InferInputTensor", spec: TensorSpec, unread: Any, has_raw: bool
    ) -> Tensor:
        shape = tuple(message.shape)
        if message.datatype != spec.datatype:
            raise invalid_argument(f"input {spec.name} has data type {message.datatype or 'none'}, not {spec.datatype}")
        if not shape_fits(shape, spec.shape) or min(shape, default=1) < 1:
            raise invalid_argument(f"input {spec.name} has shape {list(shape)}, not {list(spec.shape)}")
        expected = byte_size(spec.datatype, shape)
        data: bytes | None
        if "shared_memory_region" in message.parameters:
            if message.HasField("contents"):
                raise invalid_argument(f"input {spec.name} has typed contents and shared memory: send one of them")
            data = self._regions.slice_of(message.parameters, expected).read()
        elif has_raw:
            if message.HasField("contents"):
                raise invalid_argument(f"input {spec.name} has typed contents and raw_input_contents: send one of them")
            data = next(unread, None)
            if data is None:
                raise invalid_argument(f"input {spec.name} has no raw_input_contents, but others have")
        else:
            data = _typed_contents(message.contents, spec, shape, expected)
        if len(data) != expected:
            raise invalid_argument(
                f"input {spec.name} has {len(data)} bytes; {list(shape)} {spec.datatype} takes {expected}"
            )
        return Tensor(spec.datatype, shape, data)

    def _plan(self, request: oip.ModelInferRequest, inputs: Sequence[Tensor]) -> RequestPlan:
        names: list[str] = []
        slices: list[RegionSlice | None] = []
        for requested in request.outputs:
            if requested.name not in self._outputs:
                names_of_outputs = ", ".join(self._outputs)
                raise invalid_argument(
                    f"{requested.name!r} is not an output of {self.model.name} (outputs: {names_of_outputs})"
                )
            if requested.name in names:
                raise invalid_argument(f"output {requested.name} is requested twice")
            if "classification" in requested.parameters:
                raise invalid_argument("classification of outputs is not supported")
            shared = "shared_memory_region" in requested.parameters
            names.append(requested.name)
            slices.append(self._regions.slice_of(requested.parameters) if shared else None)
        plan = RequestPlan(request.id, names or list(self._outputs), slices)
        plan.rows, plan.key = self._batch(inputs)
        policy = self.model.policy
        plan.priority = policy.default_priority
        if request.parameters:
            priority = _whole_number(request.parameters, "priority")
            if priority and policy.priority_levels:
                if priority > policy.priority_levels:
                    raise invalid_argument(f"priority {priority}: expected 1 to {policy.priority_levels}")
                plan.priority = priority
            plan.timeout_ns = _whole_number(request.parameters, "timeout") * 1000
        return plan

    def select_outputs(self, plan: RequestPlan, outputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Returns the outputs that the plan requests, out of all outputs of the model, in the plan's order."""
        return outputs if len(outputs) == 1 else [outputs[self._outputs[name]] for name in plan.outputs]

    def _batch(self, inputs: Sequence[Tensor]) -> tuple[int, object]:
        """Returns the rows of the batch dimension, and the key that must be equal for requests to be joined."""
        limit = self.model.policy.max_batch_size
        rows = inputs[0].shape[0] if self._is_batched else 1
        if not limit:
            return rows, None
        if any(tensor.shape[0] != rows for tensor in inputs):
            raise invalid_argument("the inputs have different numbers of rows in their first dimension")
        if rows > limit:
            raise invalid_argument(f"a batch of {rows} rows: {self.model.name} takes at most {limit}")
        return rows, tuple(tensor.shape[1:] for tensor in inputs)

    def _add_template(self, data: bytes, plan: RequestPlan, sent: Sequence[Tensor], order: Sequence[int]) -> None:
        """Stores the template of a message whose last bytes are its raw contents, in the order sent."""
        if len(data) in self._templates:
            return
        heads = [_RAW_CONTENTS_KEY + encode_varint(len(tensor.data)) for tensor in sent]
        size = sum(len(head) + len(tensor.data) for head, tensor in zip(heads, sent, strict=True))
        start = len(data) - size
        if not 0 <= start + len(heads[0]) <= _MAX_TEMPLATE_BYTES or not _ends_without_raw(data[:start]):
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
        if len(self._templates) >= _MAX_TEMPLATES:
            self._templates.clear()
        self._templates[len(data)] = template

    def _describe_inputs(self) -> str:
        return ", ".join(f"{s.name} ({s.datatype} {list(s.shape)})" for s in self.model.specification.inputs)


def _typed_contents(contents: oip.InferTensorContents, spec: TensorSpec, shape: Sequence[int], size: int) -> bytes:
    """Returns the elements of a typed field as the bytes that raw contents would have."""
    field_name = DATA_TYPES[spec.datatype].contents_field
    if field_name is None:
        raise invalid_argument(f"input {spec.name}: send {spec.datatype} in raw_input_contents")
    filled = {descriptor.name for descriptor, _ in contents.ListFields()}
    if filled - {field_name}:
        raise invalid_argument(
            f"input {spec.name} of {spec.datatype} is in {', '.join(sorted(filled))}, not in {field_name}"
        )
    values = getattr(contents, field_name)
    count = size // NUMPY_TYPES[spec.datatype].itemsize
    if len(values) != count:
        raise invalid_argument(f"input {spec.name} has {len(values)} elements; {list(shape)} takes {count}")
    try:
        return np.array(values, dtype=NUMPY_TYPES[spec.datatype]).tobytes()
    except OverflowError:
        raise invalid_argument(f"input {spec.name} has an element that {spec.datatype} cannot hold") from None


def _ends_without_raw(data: bytes) -> bool:
    """Returns True where a whole message ends here and has no raw contents.

    What follows are then the raw contents, and not the bytes of a string that look like them.
    """
    try:
        return not oip.ModelInferRequest.FromString(data).raw_input_contents
    except Exception:  # the runtime's DecodeError, by whichever class its implementation raises
        return False


def _whole_number(parameters: Mapping[str, Any], name: str) -> int:
    """Returns a parameter that is a whole number of 0 or more; 0 where it is absent."""
    if name not in parameters:
        return 0
    parameter = parameters[name]
    choice = parameter.WhichOneof("parameter_choice")
    value = getattr(parameter, choice) if choice in ("int64_param", "uint64_param") else -1
    if value < 0:
        raise invalid_argument(f"parameter {name}: expected a whole number of 0 or more")
    return int(value)
