"""Every message is validated against the model, and one that fits a template reads as one that was parsed."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import ServiceError
from worker.runtime import NUMPY_TYPES, Specification, Tensor, TensorSpec
from worker.serving.batch_queue import BatchingPolicy
from worker.serving.model_metadata import ServedModel, model_configuration, model_metadata
from worker.serving.request_reader import RequestReader
from worker.serving.shared_memory import MemoryRegions
from worker.wire import StatusCode
from worker.wire import open_inference_pb2 as oip

SPECIFICATION = Specification(
    name="m",
    mode="trace",
    inputs=(
        TensorSpec(name="a", datatype="FP32", shape=(-1, 2)),
        TensorSpec(name="b", datatype="INT64", shape=(-1, 3), high=9),
    ),
    outputs=(
        TensorSpec(name="y", datatype="FP32", shape=(-1, 2)),
        TensorSpec(name="z", datatype="INT8", shape=(-1,)),
    ),
)


def reader(specification: Specification = SPECIFICATION, **policy: Any) -> RequestReader:
    return RequestReader(ServedModel(specification, BatchingPolicy(**policy)), MemoryRegions())


def message(rows: int = 1, **more: Any) -> oip.ModelInferRequest:
    """A good request, its inputs in the other order than the model's."""
    return oip.ModelInferRequest(
        model_name="m",
        inputs=[
            {"name": "b", "datatype": "INT64", "shape": [rows, 3]},
            {"name": "a", "datatype": "FP32", "shape": [rows, 2]},
        ],
        raw_input_contents=[bytes(range(24 * rows)), bytes(range(100, 100 + 8 * rows))],
        **more,
    )


def one(datatype: str, contents: dict[str, Any] | None = None, raw: bytes | None = None, size: int = 2) -> Any:
    specification = Specification(
        name="m",
        mode="trace",
        inputs=(TensorSpec(name="x", datatype=datatype, shape=(size,)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(1,)),),
    )
    tensor: dict[str, Any] = {"name": "x", "datatype": datatype, "shape": [size]}
    if contents is not None:
        tensor["contents"] = contents
    request = oip.ModelInferRequest(inputs=[tensor], raw_input_contents=[] if raw is None else [raw])
    return reader(specification).read(request)[1][0]


def test_inputs_come_in_the_models_order_whatever_order_they_were_sent_in() -> None:
    plan, inputs = reader().read(message())
    assert [(t.datatype, t.shape, bytes(t.data)) for t in inputs] == [
        ("FP32", (1, 2), bytes(range(100, 108))),
        ("INT64", (1, 3), bytes(range(24))),
    ]
    assert plan.outputs == ["y", "z"]


@settings(deadline=None, max_examples=200)
@given(rows=st.integers(1, 3), seed=st.integers(0, 2**32 - 1), request_id=st.sampled_from(["", "7"]))
def test_a_message_that_fits_a_template_reads_as_it_was_parsed(rows: int, seed: int, request_id: str) -> None:
    subject = reader()
    first = message(rows, id=request_id).SerializeToString()
    assert subject.read_known(first) is None
    subject.read(oip.ModelInferRequest.FromString(first), first)
    rng = np.random.default_rng(seed)
    other = message(rows, id=request_id)
    other.raw_input_contents[:] = [rng.bytes(24 * rows), rng.bytes(8 * rows)]
    known = subject.read_known(other.SerializeToString())
    assert known is not None
    plan, inputs = known
    _, expected = reader().read(other)
    assert plan.id == request_id
    assert [(t.datatype, t.shape, bytes(t.data)) for t in inputs] == [
        (t.datatype, t.shape, bytes(t.data)) for t in expected
    ]


def test_a_message_that_differs_around_its_elements_is_not_taken_for_the_one_remembered() -> None:
    subject = reader()
    data = message().SerializeToString()
    subject.read(oip.ModelInferRequest.FromString(data), data)
    for position in range(len(data)):
        changed = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        if subject.read_known(changed) is not None:
            again = oip.ModelInferRequest.FromString(changed)
            again.ClearField("raw_input_contents")
            good = message()
            good.ClearField("raw_input_contents")
            assert again == good
    assert subject.read_known(data + b"\0") is None


def test_an_id_that_ends_like_raw_contents_is_not_taken_for_them() -> None:
    specification = Specification(name="m", mode="trace", inputs=(TensorSpec(name="x", datatype="INT8", shape=(4,)),))
    request = oip.ModelInferRequest(model_name="m", inputs=[{"name": "x", "datatype": "INT8", "shape": [4]}])
    request.raw_input_contents.append(bytes(4))
    raw_key_and_length = b":\x04"
    fake = oip.ModelInferRequest(id=(raw_key_and_length + b"fake").decode())
    data = request.SerializeToString() + fake.SerializeToString()
    one_reader = reader(specification)
    _, inputs = one_reader.read(oip.ModelInferRequest.FromString(data), data)
    assert inputs[0].data == bytes(4)
    assert one_reader.read_known(data) is None


def wrong(change: Any) -> oip.ModelInferRequest:
    request = message()
    change(request)
    return request


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.inputs.pop(), "1 inputs; m has 2"),
        (lambda r: setattr(r.inputs[0], "name", "c"), r"'c' is not an input of m \(inputs: a"),
        (lambda r: setattr(r.inputs[0], "name", "a"), "input a has data type INT64"),
        (lambda r: setattr(r.inputs[0], "datatype", "INT32"), "has data type INT32, not INT64"),
        (lambda r: setattr(r.inputs[0], "datatype", "BYTES"), "has data type BYTES, not INT64"),
        (lambda r: r.inputs[0].shape.append(1), r"has shape \[1, 3, 1\], not \[-1, 3\]"),
        (lambda r: r.inputs[0].shape.__setitem__(0, 0), "has shape"),
        (lambda r: r.inputs[0].shape.__setitem__(0, -5), "has shape"),
        (lambda r: r.inputs[0].shape.__setitem__(0, 2**62), "has 24 bytes;"),
        (lambda r: r.raw_input_contents.pop(), "no raw_input_contents"),
        (lambda r: r.raw_input_contents.append(b""), "more than the inputs"),
        (lambda r: r.inputs[0].contents.int64_contents.append(1), "typed contents and raw"),
        (lambda r: r.outputs.add(name="x"), r"'x' is not an output of m \(outputs: y, z\)"),
        (lambda r: (r.outputs.add(name="y"), r.outputs.add(name="y")), "requested twice"),
        (lambda r: setattr(r.outputs.add(name="y").parameters["classification"], "int64_param", 1), "classification"),
        (lambda r: setattr(r.parameters["timeout"], "int64_param", -1), "timeout: expected a whole number"),
        (lambda r: setattr(r.parameters["timeout"], "string_param", "1"), "timeout: expected a whole number"),
        (
            lambda r: setattr(r.inputs[0].parameters["shared_memory_region"], "string_param", "none"),
            "region 'none' is not registered",
        ),
    ],
)
def test_what_does_not_fit_is_an_invalid_argument(change: Any, words: str) -> None:
    with pytest.raises(ServiceError, match=words) as raised:
        reader().read(wrong(change))
    assert raised.value.code is StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("datatype", "field", "values"),
    [
        ("BOOL", "bool_contents", [True, False]),
        ("INT8", "int_contents", [-128, 127]),
        ("INT16", "int_contents", [-(2**15), 5]),
        ("INT32", "int_contents", [-(2**31), 5]),
        ("INT64", "int64_contents", [-(2**63), 5]),
        ("UINT8", "uint_contents", [255, 0]),
        ("UINT16", "uint_contents", [65535, 0]),
        ("UINT32", "uint_contents", [2**32 - 1, 0]),
        ("UINT64", "uint64_contents", [2**64 - 1, 0]),
        ("FP32", "fp32_contents", [0.5, -2.0]),
        ("FP64", "fp64_contents", [0.1, -2.0]),
    ],
)
def test_typed_contents_are_the_bytes_that_raw_ones_would_be(datatype: str, field: str, values: list[Any]) -> None:
    expected = np.array(values, NUMPY_TYPES[datatype]).tobytes()
    assert one(datatype, {field: values}).data == expected
    assert one(datatype, raw=expected).data == expected


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_sixteen_bit_floats_travel_raw_only(datatype: str) -> None:
    assert one(datatype, raw=bytes(4)).data == bytes(4)
    with pytest.raises(ServiceError, match="in raw_input_contents"):
        one(datatype, {"fp32_contents": [1.0, 2.0]})


def test_typed_contents_of_the_wrong_field_number_or_range_are_refused() -> None:
    for contents, words in [
        ({"int_contents": [1, 2]}, "is in int_contents, not in fp32_contents"),
        ({"fp32_contents": [1.0]}, "has 1 elements"),
    ]:
        with pytest.raises(ServiceError, match=words):
            one("FP32", contents)
    with pytest.raises(ServiceError, match="an element that INT8 cannot hold"):
        one("INT8", {"int_contents": [128, 0]})


def answer(request: oip.ModelInferRequest) -> oip.ModelInferResponse:
    subject = reader()
    plan, _ = subject.read(request)
    outputs = subject.select_outputs(plan, [Tensor("FP32", (1, 2), bytes(range(8))), Tensor("INT8", (1,), b"\x09")])
    first, second = (oip.ModelInferResponse.FromString(plan.encode_response("m", outputs)) for _ in range(2))
    assert first == second  # the second begins with the stored bytes of the first
    return first


def test_an_answer_holds_the_id_and_every_output() -> None:
    response = answer(message(id="é7"))
    assert (response.model_name, response.model_version, response.id) == ("m", "1", "é7")
    assert [(o.name, o.datatype, list(o.shape)) for o in response.outputs] == [
        ("y", "FP32", [1, 2]),
        ("z", "INT8", [1]),
    ]
    assert list(response.raw_output_contents) == [bytes(range(8)), b"\x09"]


def test_an_answer_holds_the_outputs_asked_for_in_their_order() -> None:
    assert [o.name for o in answer(message(outputs=[{"name": "z"}, {"name": "y"}])).outputs] == ["z", "y"]
    only = answer(message(outputs=[{"name": "z"}]))
    assert list(only.raw_output_contents) == [b"\x09"]


def test_a_batch_is_checked_where_there_is_batching() -> None:
    assert reader().read(message(9))[0].key is None
    plan, _ = reader(max_batch_size=8).read(message(3))
    assert (plan.rows, plan.key) == (3, ((2,), (3,)))
    with pytest.raises(ServiceError, match="a batch of 9 rows: m takes at most 8"):
        reader(max_batch_size=8).read(message(9))
    uneven = message(2)
    uneven.inputs[0].shape[0] = 1
    uneven.raw_input_contents[0] = bytes(24)
    with pytest.raises(ServiceError, match="different numbers of rows"):
        reader(max_batch_size=8).read(uneven)


def test_priority_and_timeout_come_from_the_parameters() -> None:
    request = message()
    request.parameters["priority"].uint64_param = 1
    request.parameters["timeout"].int64_param = 2500
    plan, inputs = reader(priority_levels=2, default_priority=2).read(request)
    assert (plan.priority, plan.timeout_ns) == (1, 2_500_000)
    job = plan.make_job(inputs)
    assert job.expires_ns - job.arrived_ns == 2_500_000
    assert reader(priority_levels=2, default_priority=2).read(message())[0].priority == 2
    request.parameters["priority"].uint64_param = 3
    with pytest.raises(ServiceError, match="priority 3: expected 1 to 2"):
        reader(priority_levels=2).read(request)


def test_metadata_carries_the_batch_dimension_and_the_configuration_does_not() -> None:
    model = ServedModel(SPECIFICATION, BatchingPolicy(max_batch_size=8, preferred=(4,), max_queue_delay_us=5))
    assert [list(tensor.shape) for tensor in model_metadata(model).inputs] == [[-1, 2], [-1, 3]]
    described = model_configuration(model, "cuda", 2)
    assert [list(tensor.dims) for tensor in described.input] == [[2], [3]]
    assert [tensor.data_type for tensor in described.output] == [oip.TYPE_FP32, oip.TYPE_INT8]
    assert list(described.dynamic_batching.preferred_batch_size) == [4]
    assert described.instance_group[0].kind == oip.ModelInstanceGroup.KIND_GPU
    assert described.parameters["example_shape.b"].string_value == "1,3"
    assert described.parameters["example_high.b"].string_value == "9"


def test_without_batching_the_configuration_holds_every_dimension() -> None:
    described = model_configuration(ServedModel(SPECIFICATION), "cpu", 0)
    assert described.max_batch_size == 0
    assert [list(tensor.dims) for tensor in described.input] == [[-1, 2], [-1, 3]]
    assert described.WhichOneof("scheduling_choice") is None
