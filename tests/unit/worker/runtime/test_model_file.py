"""A model file says by itself what it takes and gives; what cannot be served is refused in one line."""

from pathlib import Path

import pytest
import torch

from worker.errors import InputError
from worker.runtime import (
    Specification,
    TensorSpec,
    export_model,
    parse_tensor_spec,
    read_specification,
    shape_fits,
)
from worker.runtime.model_file import EXTRA_FILE, file_sha256, save_model, verified_copy
from worker.runtime.resnet import resnet18


def test_a_file_carries_its_own_specification(tmp_path: Path) -> None:
    specification = Specification(
        name="line",
        mode="trace",
        inputs=(TensorSpec(name="x", datatype="INT64", shape=(-1, 7), example=(1, 7), high=100),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 2)),),
    )
    path = tmp_path / "line.pt"
    save_model(torch.jit.trace(torch.nn.Identity(), torch.ones(1)), path, specification)
    assert read_specification(path) == specification
    assert read_specification(path, name="other").name == "other"


def test_a_foreign_file_needs_a_specification(tmp_path: Path) -> None:
    path = tmp_path / "foreign.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Identity(), torch.ones(1)), str(path))
    with pytest.raises(InputError, match="has no specification of its inputs: add --input"):
        read_specification(path)
    specification = read_specification(path, [parse_tensor_spec("x:INT64:-1,7")])
    assert (specification.name, specification.mode) == ("foreign", "foreign")
    assert specification.inputs[0].shape == (-1, 7)


def test_what_is_not_torchscript_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    torch.save({"weight": torch.ones(2)}, state)
    text = tmp_path / "text.pt"
    text.write_text("hello")
    for path in (state, text, tmp_path, tmp_path / "none.pt"):
        with pytest.raises(InputError, match=r"is not a TorchScript file|does not exist") as raised:
            read_specification(path)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("mode", ["trace", "script"])
def test_resnet18_is_exported_traced_and_scripted(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "resnet18.pt"
    specification = export_model("resnet18", mode, path)
    assert read_specification(path) == specification
    assert specification.mode == mode
    assert specification.is_batched
    image = torch.rand(2, 3, 224, 224)
    torch.manual_seed(0)
    model = resnet18().eval()
    with torch.no_grad():
        assert torch.equal(torch.jit.load(str(path))(image), model(image))
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_689_512  # as published


def test_scripting_gpt_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can only be traced"):
        export_model("gpt", "script", tmp_path / "gpt.pt")


@pytest.mark.parametrize(
    ("model", "mode", "weights"),
    [("bert", "trace", "random"), ("resnet18", "eager", "random"), ("gpt", "trace", "some")],
)
def test_an_export_that_there_is_not(tmp_path: Path, model: str, mode: str, weights: str) -> None:
    with pytest.raises(InputError):
        export_model(model, mode, tmp_path / "m.pt", weights)


@pytest.mark.parametrize("text", ["x", "x:FP32", "x:FP32:", "x:FP99:1", ":FP32:1", "x:FP32:0", "x:FP32:-2", "x:FP32:a"])
def test_an_input_that_cannot_be_read_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match="write NAME:DATATYPE:SHAPE") as raised:
        parse_tensor_spec(text)
    assert "\n" not in str(raised.value)


def test_a_shape_fits_where_each_dimension_is_free_or_equal() -> None:
    assert shape_fits((2, 7), (-1, 7))
    assert not shape_fits((2, 8), (-1, 7))
    assert not shape_fits((2,), (-1, 7))


def test_example_tensors_are_in_range_and_the_same_each_time() -> None:
    spec = TensorSpec(name="x", datatype="INT64", shape=(-1, -1), example=(1, 7), high=5)
    tensor = spec.example_tensor(3)
    assert tensor.shape == (3, 7)
    values = torch.frombuffer(bytearray(tensor.data), dtype=torch.int64)
    assert 0 <= int(values.min()) <= int(values.max()) < 5
    assert tensor == spec.example_tensor(3)


def test_the_bytes_that_were_hashed_are_the_bytes_that_are_loaded(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pt"
    specification = export_model("resnet18", "trace", path)
    digest = file_sha256(path)

    copy = verified_copy(path, digest.upper())
    path.write_bytes(b"another file, written after the verification")

    assert file_sha256(copy) == digest
    assert read_specification(copy) == specification
    torch.jit.load(str(copy))
    with copy.open("r+b", buffering=0) as file, pytest.raises(OSError, match="not permitted"):
        file.write(b"x")


@pytest.mark.parametrize("expected", ["0" * 64, "no digest", "ab" * 31])
def test_another_file_than_the_one_named_is_refused_in_one_line(tmp_path: Path, expected: str) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"another file")
    with pytest.raises(InputError, match="--sha256") as raised:
        verified_copy(path, expected)
    assert "\n" not in str(raised.value)


def test_a_specification_too_large_to_be_one_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.jit.save(
        torch.jit.trace(torch.nn.Identity(), torch.ones(1)),
        str(path),
        _extra_files={EXTRA_FILE: " " * (2 << 20)},
    )
    with pytest.raises(InputError, match="more than 1048576 bytes"):
        read_specification(path)
