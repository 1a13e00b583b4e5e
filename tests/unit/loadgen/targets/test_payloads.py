"""Requests: the same bytes in every run, tensors of the right type and shape, wrong ones refused in words."""

from pathlib import Path

import numpy as np
import pytest

from loadgen._errors import InputError
from loadgen.targets._payloads import INTEGERS_BELOW, TensorSpec, encode_request, file_tensors, random_tensors
from worker.wire import open_inference_pb2 as pb

SPECS = (TensorSpec("tokens", "INT64", (-1, 7)), TensorSpec("image", "FP32", (1, 3, -1, -1)))


def test_random_tensors_fill_open_dimensions_and_are_the_same_every_time() -> None:
    first = random_tensors(SPECS, {"image": (1, 3, 8, 9)})
    again = random_tensors(SPECS, {"image": (1, 3, 8, 9)})

    assert first["tokens"][1].shape == (1, 7)
    assert first["image"][1].shape == (1, 3, 8, 9)
    assert first["tokens"][1].dtype == np.int64
    assert 0 <= first["tokens"][1].min() <= first["tokens"][1].max() < INTEGERS_BELOW
    assert all(np.array_equal(first[name][1], again[name][1]) for name in first)
    assert encode_request("m", "", first) == encode_request("m", "", again)


def test_the_models_own_example_is_taken_where_nothing_else_is_said() -> None:
    spec = TensorSpec("tokens", "INT64", (-1, -1), (1, 7), 40_000)

    tokens = random_tensors([spec], {})["tokens"][1]

    assert tokens.shape == (1, 7)
    assert INTEGERS_BELOW < tokens.max() < 40_000
    assert random_tensors([spec], {"tokens": (2, 3)})["tokens"][1].shape == (2, 3)


@pytest.mark.parametrize(
    "datatype",
    ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"],
)
def test_every_plain_datatype_travels_raw_and_comes_back_equal(datatype: str) -> None:
    tensors = random_tensors([TensorSpec("x", datatype, (2, 3))], {})

    request = pb.ModelInferRequest.FromString(encode_request("m", "", tensors).message)

    array = tensors["x"][1]
    assert (request.inputs[0].datatype, list(request.inputs[0].shape)) == (datatype, [2, 3])
    assert np.array_equal(np.frombuffer(request.raw_input_contents[0], array.dtype).reshape(2, 3), array)


def test_tensors_from_a_file_are_sent_as_they_are(tmp_path: Path) -> None:
    tokens = np.arange(7, dtype=np.int64).reshape(1, 7)
    np.savez(tmp_path / "in.npz", tokens=tokens)

    payload = encode_request("gpt", "", file_tensors(tmp_path / "in.npz", SPECS[:1]))

    request = pb.ModelInferRequest.FromString(payload.message)
    assert request.raw_input_contents[0] == tokens.tobytes()
    assert payload.shapes == "tokens INT64 [1, 7]"


def test_wrong_tensors_are_refused_in_words(tmp_path: Path) -> None:
    np.savez(tmp_path / "short.npz", tokens=np.zeros((1, 7), np.int64))
    np.savez(tmp_path / "typed.npz", tokens=np.zeros((1, 7), np.int32))
    np.savez(tmp_path / "extra.npz", tokens=np.zeros((1, 7), np.int64), more=np.zeros(1))
    (tmp_path / "not.npz").write_text("hello")

    for name, specs, sentence in [
        ("short", SPECS, "no array named image"),
        ("typed", SPECS[:1], "tokens is int32, expected INT64"),
        ("extra", SPECS[:1], "no input more"),
        ("not", SPECS, "expected an .npz"),
    ]:
        with pytest.raises(InputError, match=sentence):
            file_tensors(tmp_path / f"{name}.npz", specs)
    with pytest.raises(InputError, match="expected a shape like tokens:-1,7"):
        random_tensors(SPECS, {"tokens": (1, 8)})
    with pytest.raises(InputError, match="inputs are tokens, image"):
        random_tensors(SPECS, {"token": (1, 7)})
    with pytest.raises(InputError, match="BYTES"):
        random_tensors([TensorSpec("text", "BYTES", (1,))], {})
