"""A model file says by itself what it takes and gives; what cannot be served is refused in one line."""

from pathlib import Path

import pytest
import torch

from worker.errors import InputError
from worker.runtime import model_file as models
from worker.runtime.model_file import Specification
from worker.runtime.resnet import resnet18
from worker.runtime.tensors import TensorSpec, fits, parse_spec


def test_a_file_carries_its_own_specification(tmp_path: Path) -> None:
    specification = Specification(
        name="line",
        mode="trace",
        inputs=(TensorSpec(name="x", datatype="INT64", shape=(-1, 7), example=(1, 7), high=100),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 2)),),
    )
    path = tmp_path / "line.pt"
    models.save(torch.jit.trace(torch.nn.Identity(), torch.ones(1)), path, specification)
    assert models.read_specification(path) == specification
    assert models.read_specification(path, name="other").name == "other"


def test_a_foreign_file_needs_to_be_told(tmp_path: Path) -> None:
    path = tmp_path / "foreign.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Identity(), torch.ones(1)), str(path))
    with pytest.raises(InputError, match="does not say what it takes; add --input"):
        models.read_specification(path)
    found = models.read_specification(path, [parse_spec("x:INT64:-1,7")])
    assert (found.name, found.mode) == ("foreign", "foreign")
    assert found.inputs[0].shape == (-1, 7)


def test_what_is_not_torchscript_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    torch.save({"weight": torch.ones(2)}, state)
    text = tmp_path / "text.pt"
    text.write_text("hello")
    for path in (state, text, tmp_path, tmp_path / "none.pt"):
        with pytest.raises(InputError, match=r"is not (a TorchScript file|there)") as raised:
            models.read_specification(path)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("mode", ["trace", "script"])
def test_resnet18_is_exported_traced_and_scripted(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "resnet18.pt"
    specification = models.export("resnet18", mode, path)
    assert models.read_specification(path) == specification
    assert specification.mode == mode
    assert specification.batches
    image = torch.rand(2, 3, 224, 224)
    torch.manual_seed(0)
    model = resnet18().eval()
    with torch.no_grad():
        assert torch.equal(torch.jit.load(str(path))(image), model(image))
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_689_512  # as published


def test_scripting_gpt_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can only be traced"):
        models.export("gpt", "script", tmp_path / "gpt.pt")


@pytest.mark.parametrize(
    ("model", "mode", "weights"),
    [("bert", "trace", "random"), ("resnet18", "eager", "random"), ("gpt", "trace", "some")],
)
def test_an_export_that_there_is_not(tmp_path: Path, model: str, mode: str, weights: str) -> None:
    with pytest.raises(InputError):
        models.export(model, mode, tmp_path / "m.pt", weights)


@pytest.mark.parametrize("text", ["x", "x:FP32", "x:FP32:", "x:FP99:1", ":FP32:1", "x:FP32:0", "x:FP32:-2", "x:FP32:a"])
def test_an_input_that_cannot_be_read_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="is not NAME:DATATYPE:SHAPE") as raised:
        parse_spec(text)
    assert "\n" not in str(raised.value)


def test_a_shape_fits_where_each_dimension_is_free_or_equal() -> None:
    assert fits((2, 7), (-1, 7))
    assert not fits((2, 8), (-1, 7))
    assert not fits((2,), (-1, 7))


def test_example_tensors_are_in_range_and_the_same_each_time() -> None:
    spec = TensorSpec(name="x", datatype="INT64", shape=(-1, -1), example=(1, 7), high=5)
    tensor = spec.example_tensor(3)
    assert tensor.shape == (3, 7)
    values = torch.frombuffer(bytearray(tensor.data), dtype=torch.int64)
    assert 0 <= int(values.min()) <= int(values.max()) < 5
    assert tensor == spec.example_tensor(3)


def test_the_bytes_that_were_hashed_are_the_bytes_that_are_loaded(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pt"
    specification = models.export("resnet18", "trace", path)
    digest = models.sha256(path)

    sealed = models.sealed(path, digest.upper())
    path.write_bytes(b"something else, put there after the look at it")

    assert models.sha256(sealed) == digest
    assert models.read_specification(sealed) == specification
    torch.jit.load(str(sealed))
    with sealed.open("r+b", buffering=0) as file, pytest.raises(OSError, match="not permitted"):
        file.write(b"x")


@pytest.mark.parametrize("wanted", ["0" * 64, "no digest", "ab" * 31])
def test_another_file_than_the_one_named_is_refused_in_one_line(tmp_path: Path, wanted: str) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"not what was asked for")
    with pytest.raises(InputError, match="--sha256") as raised:
        models.sealed(path, wanted)
    assert "\n" not in str(raised.value)


def test_a_specification_too_large_to_be_one_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.jit.save(
        torch.jit.trace(torch.nn.Identity(), torch.ones(1)),
        str(path),
        _extra_files={models.EXTRA_FILE: " " * (2 << 20)},
    )
    with pytest.raises(InputError, match="more than 1048576 bytes"):
        models.read_specification(path)
