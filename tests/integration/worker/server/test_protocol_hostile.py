"""Ten thousand hostile messages: none ends or blocks a worker, each gets a clean code, and what is answered is right.

The worker adds two integer tensors: every answer can be checked, also where the message is an unusual one.
"""

import contextlib
import os
import queue
import random
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from worker.runtime import NUMPY_TYPES
from worker.wire import DATA_TYPES
from worker.wire import open_inference_pb2 as oip

SERVICE = "/inference.GRPCInferenceService/"
#: The statuses of a client's own error; INTERNAL and UNKNOWN would be the worker's fault.
CLEAN = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "UNAVAILABLE"}
#: No message may take longer, least of all the good one that follows.
HANG_S = 20
EVERY = 100
#: Drawing a message costs more than sending it: so many come of one draw.
FOLD = 5


def hostile(examples: int) -> Callable[..., Any]:
    """So many messages, other ones in each run; what fails is shrunk to the least that does."""
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


class Adding(torch.nn.Module):
    def forward(self, one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return one + other, one - other


class Client:
    """Sends bytes as they are, and holds every answer against what the message says."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self.sent = 0
        self._infer = self.channel.unary_unary(SERVICE + "ModelInfer")

    def call(self, method: str, data: bytes) -> tuple[str, bytes]:
        """The code's name, and the answer's bytes."""
        try:
            return "OK", self.channel.unary_unary(SERVICE + method)(data, timeout=HANG_S)
        except grpc.RpcError as error:
            return error.code().name if error.details() else "no reason given", b""

    def infer(self, data: bytes) -> None:
        """One hostile message."""
        code, answer = self.call("ModelInfer", data)
        assert code in CLEAN, code
        if code == "OK":
            assert_right(oip.ModelInferRequest.FromString(data), oip.ModelInferResponse.FromString(answer))
        self.count()

    def count(self) -> None:
        """After every hundred, a good request is answered, and rightly."""
        self.sent += 1
        if self.sent % EVERY == 0:
            request = good(id=str(self.sent))
            answer = oip.ModelInferResponse.FromString(self._infer(request.SerializeToString(), timeout=HANG_S))
            assert answer.id == request.id
            assert len(answer.outputs) == 2
            assert_right(request, answer)


def good(rows: int = 1, **more: Any) -> oip.ModelInferRequest:
    arrays = np.random.default_rng(rows).integers(-(2**31), 2**31, (2, rows, 4)).astype("<i4")
    request = oip.ModelInferRequest(model_name="adding", **more)
    for name, array in zip(("A", "B"), arrays, strict=True):
        request.inputs.add(name=name, datatype="INT32", shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request


def assert_right(request: oip.ModelInferRequest, answer: oip.ModelInferResponse) -> None:
    """The answer is that of the inputs that the message holds, as protobuf reads it."""
    raw = iter(request.raw_input_contents)
    inputs = {}
    for tensor in request.inputs:
        if "shared_memory_region" in tensor.parameters:
            return  # its elements may have changed since
        data = next(raw) if request.raw_input_contents else np.array(tensor.contents.int_contents, "<i4").tobytes()
        inputs[tensor.name] = np.frombuffer(data, "<i4").reshape(tuple(tensor.shape))
    expected = {"output_0": inputs["A"] + inputs["B"], "output_1": inputs["A"] - inputs["B"]}
    assert answer.id == request.id
    assert [output.name for output in answer.outputs] == [o.name for o in request.outputs] or list(expected)
    for output, data in zip(answer.outputs, answer.raw_output_contents, strict=True):
        if "shared_memory_region" not in output.parameters:
            assert tuple(output.shape) == expected[output.name].shape
            assert data == expected[output.name].tobytes()


@pytest.fixture(scope="module")
def adding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "adding.pt"
    zeros = torch.zeros(2, 4, dtype=torch.int32)
    torch.jit.save(torch.jit.trace(Adding(), (zeros, zeros)), str(path))
    return path


@pytest.fixture
def client(request: pytest.FixtureRequest, serve: Callable[..., Any], adding: Path) -> Iterator[Client]:
    """Of a worker that must be as well at the end as it was at the beginning."""
    joined = ("--max-batch-size", "4", "--priority-levels", "3") if request.param == "joined" else ()
    worker = serve(str(adding), "--input", "A:INT32:-1,4", "--input", "B:INT32:-1,4", *joined)
    client = Client(worker.address)
    yield client
    client.infer(good().SerializeToString())
    client.channel.close()
    assert worker.end() == 0


# What a hostile message may hold.

REGIONS = ("region", "other", "cut", "none", "")
names = st.sampled_from(["A", "B", "output_0", "output_1", "adding", "C", "", "1", *REGIONS]) | st.text(max_size=20)
whole = st.sampled_from([0, 1, -1, 2, 4, 16, 64, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63)]) | st.integers(-9, 99)
unsigned = whole.map(lambda value: value % 2**64)
datatypes = st.sampled_from([*NUMPY_TYPES, "BYTES", "", "INT", "int32"]) | st.text(max_size=8)
shapes = st.lists(whole, max_size=5) | st.sampled_from([[1, 4], [2, 4], [4, 4], [5, 4], [4], [1, 1, 4], [0, 4]])
elements = st.binary(max_size=80) | st.sampled_from([16, 32, 64]).map(bytes)
parameter = st.one_of(
    st.builds(oip.InferParameter, bool_param=st.booleans()),
    st.builds(oip.InferParameter, int64_param=whole),
    st.builds(oip.InferParameter, string_param=names),
    st.builds(oip.InferParameter, double_param=st.floats()),
    st.builds(oip.InferParameter, uint64_param=unsigned),
    st.just(oip.InferParameter()),
)
KEYS = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "classification", "binary_data")
parameters = st.dictionaries(st.sampled_from([*KEYS, "priority", "timeout"]) | names, parameter, max_size=3)
CONTENTS = {
    "bool_contents": st.booleans(),
    "int_contents": st.integers(-(2**31), 2**31 - 1),
    "int64_contents": whole,
    "uint_contents": st.integers(0, 2**32 - 1),
    "uint64_contents": unsigned,
    "fp32_contents": st.floats(width=32),
    "fp64_contents": st.floats(),
    "bytes_contents": st.binary(max_size=8),
}
assert set(CONTENTS) >= {one.contents_field for one in DATA_TYPES.values() if one.contents_field}
typed = st.sampled_from(sorted(CONTENTS)).flatmap(
    lambda name: st.builds(
        lambda values: oip.InferTensorContents(**{name: values}), st.lists(CONTENTS[name], min_size=0, max_size=8)
    )
)
foreign_input = st.builds(
    oip.ModelInferRequest.InferInputTensor,
    name=names,
    datatype=datatypes,
    shape=shapes,
    parameters=parameters,
    contents=st.none() | typed,
)
foreign_output = st.builds(oip.ModelInferRequest.InferRequestedOutputTensor, name=names, parameters=parameters)


def _set(field: str) -> Callable[[oip.ModelInferRequest, Any], None]:
    return lambda request, value: setattr(request, field, value)


def _one(request: oip.ModelInferRequest) -> Any:
    return request.inputs[0] if request.inputs else request.inputs.add()


def _reshape(request: oip.ModelInferRequest, shape: list[int]) -> None:
    _one(request).shape[:] = shape


def _retype(request: oip.ModelInferRequest, datatype: str) -> None:
    _one(request).datatype = datatype


def _rename(request: oip.ModelInferRequest, name: str) -> None:
    _one(request).name = name


def _fill(request: oip.ModelInferRequest, contents: oip.InferTensorContents) -> None:
    _one(request).contents.CopyFrom(contents)
    request.ClearField("raw_input_contents")


def _set_parameters(request: oip.ModelInferRequest, values: dict[str, oip.InferParameter]) -> None:
    for key, value in values.items():
        _one(request).parameters[key].CopyFrom(value)


def _set_request_parameters(request: oip.ModelInferRequest, values: dict[str, oip.InferParameter]) -> None:
    for key, value in values.items():
        request.parameters[key].CopyFrom(value)


def _raw(request: oip.ModelInferRequest, contents: list[bytes]) -> None:
    request.raw_input_contents[:] = contents


MUTATIONS: list[tuple[Callable[[oip.ModelInferRequest, Any], None], st.SearchStrategy[Any]]] = [
    (_set("model_name"), names),
    (_set("model_version"), names),
    (_set("id"), st.text(max_size=40)),
    (_reshape, shapes),
    (_retype, datatypes),
    (_rename, names),
    (_fill, typed),
    (_set_parameters, parameters),
    (_set_request_parameters, parameters),
    (_raw, st.lists(elements, max_size=4)),
    (lambda request, tensor: request.inputs.append(tensor), foreign_input),
    (lambda request, tensor: request.outputs.append(tensor), foreign_output),
    (lambda request, place: request.inputs.pop(place), st.sampled_from([0, -1])),
    (lambda request, backwards: request.inputs.sort(key=lambda t: t.name, reverse=backwards), st.booleans()),
]
mutation = st.sampled_from(MUTATIONS).flatmap(lambda pair: st.tuples(st.just(pair[0]), pair[1]))


@st.composite
def structured(draw: st.DrawFn) -> oip.ModelInferRequest:
    """A good request, changed in one to three places."""
    request = good(draw(st.integers(1, 5)))
    for change, value in draw(st.lists(mutation, min_size=1, max_size=3)):
        with contextlib.suppress(IndexError):  # nothing left to take away
            change(request, value)
    return request


def broken(data: bytes, rng: random.Random) -> bytes:
    """The bytes cut, overwritten, inserted into or repeated in one to three places, or others in their place."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(changed))
        match rng.choice(["cut", "overwrite", "insert", "repeat", "forget"]):
            case "cut":
                del changed[at:]
            case "overwrite":
                part = rng.randbytes(rng.randint(1, 6))
                changed[at : at + len(part)] = part
            case "insert":
                changed[at:at] = rng.randbytes(rng.randint(1, 12))
            case "repeat":
                changed += changed[at:]
            case "forget":
                return rng.randbytes(rng.randint(0, 200))
    return bytes(changed)


@st.composite
def messages(draw: st.DrawFn) -> list[bytes]:
    """FOLD messages: a good request changed in its fields, then that one and a good one broken in their bytes."""
    wrong = draw(structured()).SerializeToString()
    rng = random.Random(draw(st.integers(0, 2**32 - 1)))
    right = good().SerializeToString()
    return [wrong, *(broken(rng.choice([wrong, right]), rng) for _ in range(FOLD - 1))]


@pytest.mark.parametrize("client", ["alone", "joined"], indirect=True)
def test_inference_requests_that_are_wrong_or_broken(client: Client) -> None:
    @hostile(2500 // FOLD)
    @given(messages())
    def run(several: list[bytes]) -> None:
        for data in several:
            client.infer(data)

    run()


@pytest.mark.parametrize("client", ["joined"], indirect=True)
def test_streams_of_wrong_and_broken_requests(client: Client) -> None:
    """One stream for all: every message is answered on it, and it goes on."""
    sent: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    answers = client.channel.stream_stream(SERVICE + "ModelStreamInfer")(iter(sent.get, None))

    @hostile(2500 // FOLD)
    @given(messages())
    def run(several: list[bytes]) -> None:
        for data in several:
            sent.put(data)
            answer = oip.ModelStreamInferResponse.FromString(next(answers))
            if answer.error_message:
                with contextlib.suppress(DecodeError):  # what cannot be read has no id
                    assert answer.infer_response.id == oip.ModelInferRequest.FromString(data).id
            else:
                assert_right(oip.ModelInferRequest.FromString(data), answer.infer_response)
            client.count()

    run()
    sent.put(None)
    assert list(answers) == []


@contextlib.contextmanager
def memories() -> Iterator[dict[str, SharedMemory]]:
    regions = {name: SharedMemory(create=True, size=4096) for name in ("one", "two")}
    try:
        yield regions
    finally:
        for memory in regions.values():
            memory.close()
            memory.unlink()


@pytest.mark.parametrize("client", ["alone"], indirect=True)
def test_shared_memory_that_is_not_there_too_small_or_taken_away(client: Client) -> None:
    with memories() as regions:
        keys = st.sampled_from([f"/{memory.name}" for memory in regions.values()])
        keys |= st.sampled_from(["", "/", "/../../etc/passwd", "/dev/null", "\0", "/" + "x" * 300])
        calls = st.one_of(
            st.builds(oip.SystemSharedMemoryRegisterRequest, name=names, key=keys, offset=unsigned, byte_size=unsigned),
            st.builds(
                oip.SystemSharedMemoryRegisterRequest, name=st.sampled_from(REGIONS), key=keys, byte_size=st.just(4096)
            ),
            st.builds(oip.SystemSharedMemoryUnregisterRequest, name=names),
            st.builds(oip.SystemSharedMemoryStatusRequest, name=names),
            st.tuples(st.sampled_from(["inputs", "outputs"]), st.sampled_from(REGIONS), whole, whole),
            st.tuples(st.sampled_from(sorted(regions)), st.sampled_from([0, 1, 100, 4096])),
            st.tuples(st.sampled_from(["Register", "Status", "Unregister"]), st.binary(max_size=40)),
        )

        @hostile(2500)
        @given(calls)
        def run(call: Any) -> None:
            match call:
                case (str(kind), str(region), int(size), int(offset)):
                    request = good()
                    request.outputs.add(name="output_0")
                    for key, value in zip(KEYS, (region, size, offset), strict=False):
                        field = "string_param" if isinstance(value, str) else "int64_param"
                        setattr(getattr(request, kind)[0].parameters[key], field, value)
                    if kind == "inputs":
                        del request.raw_input_contents[0]
                    client.infer(request.SerializeToString())
                    return
                case (str(name), int(size)):
                    os.truncate(f"/dev/shm/{regions[name].name}", size)  # under the worker's hands
                case (str(name), bytes(data)):
                    code, _ = client.call(f"SystemSharedMemory{name}", data)
                    assert code in CLEAN, code
                case _:
                    method = type(call).__name__.removesuffix("Request")
                    code, _ = client.call(method, call.SerializeToString())
                    assert code in CLEAN, code
            client.count()

        run()
        client.call("SystemSharedMemoryUnregister", b"")
