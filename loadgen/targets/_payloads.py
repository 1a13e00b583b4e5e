"""Requests as bytes: ModelInfer messages from random tensors, from an .npz file, or from a user's own arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loadgen._errors import InputError
from worker.wire import DATA_TYPES
from worker.wire import open_inference_pb2 as pb

#: Random tensors are the same in every run and on every generator.
SEED = 20260101
#: Integer inputs are mostly indices (tokens, categories): small ones are inside every vocabulary.
INTEGERS_BELOW = 128

#: The numpy types of the protocol's data types; BYTES and BF16 have none.
NUMPY_TYPES = {name: np.dtype(data_type.numpy) for name, data_type in DATA_TYPES.items() if data_type.numpy is not None}
_DATA_TYPE_NAMES = {numpy_type: name for name, numpy_type in NUMPY_TYPES.items()}

#: Tensors by input name, each with the name of its data type.
Tensors = dict[str, tuple[str, npt.NDArray[np.generic]]]


@dataclass(frozen=True)
class TensorSpec:
    """One input of a model by its metadata: -1 in `shape` is a dimension of any size.

    `example` is a typical shape by the model's owner, `below` the exclusive upper bound of its integers; both may be
    absent.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    example: tuple[int, ...] = ()
    below: int | None = None


@dataclass(frozen=True)
class Payload:
    """A serialized ModelInferRequest, and its tensors as a report names them (`x INT64 [1, 7]`)."""

    message: bytes
    shapes: str


def random_tensors(specs: Sequence[TensorSpec], sizes: Mapping[str, Sequence[int]]) -> Tensors:
    """Random tensors of a fixed seed. Open dimensions take the sizes in `sizes`, else those of the example, else 1.

    Raises InputError where `sizes` names an unknown input or contradicts a fixed dimension, and for BYTES, which have
    no random value, and BF16, which numpy does not have: those need --input.
    """
    if unknown := sorted(set(sizes) - {spec.name for spec in specs}):
        names = ", ".join(spec.name for spec in specs)
        raise InputError(f"--input-shape {unknown[0]}: the model has no such input (its inputs are {names})")
    generator = np.random.default_rng(SEED)
    tensors: Tensors = {}
    for spec in specs:
        shape = _complete_shape(spec, sizes.get(spec.name))
        if spec.datatype not in NUMPY_TYPES:
            raise InputError(
                f"input {spec.name} is {spec.datatype}: no random tensor can be made, use --input FILE.npz"
            )
        numpy_type = NUMPY_TYPES[spec.datatype]
        values: npt.NDArray[np.generic]
        if numpy_type.kind == "f":
            values = generator.standard_normal(shape).astype(numpy_type)
        elif numpy_type.kind == "b":
            values = generator.integers(0, 2, shape).astype(numpy_type)
        else:
            values = generator.integers(0, spec.below or INTEGERS_BELOW, shape).astype(numpy_type)
        tensors[spec.name] = (spec.datatype, values)
    return tensors


def _complete_shape(spec: TensorSpec, sizes: Sequence[int] | None) -> tuple[int, ...]:
    if sizes is None:
        return spec.example or tuple(1 if size < 0 else size for size in spec.shape)
    fits = len(sizes) == len(spec.shape) and all(
        length in (-1, size) for length, size in zip(spec.shape, sizes, strict=True)
    )
    if not fits:
        raise InputError(
            f"--input-shape {spec.name}:{_join(sizes)}: expected a shape like {spec.name}:{_join(spec.shape)}"
        )
    return tuple(sizes)


def file_tensors(path: Path, specs: Sequence[TensorSpec]) -> Tensors:
    """The arrays of an .npz file, one for each input. Empty `specs`: any arrays are accepted.

    Raises InputError where the file cannot be read, or its names or types are not those of the model.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise InputError(f"--input {path}: expected an .npz file of plain arrays ({error})") from None
    inputs = {spec.name: spec for spec in specs}
    if inputs and (missing := sorted(set(inputs) - set(arrays))):
        raise InputError(f"--input {path}: no array named {missing[0]} (the model's inputs are {', '.join(inputs)})")
    tensors: Tensors = {}
    for name, array in arrays.items():
        if inputs and name not in inputs:
            raise InputError(f"--input {path}: the model has no input {name} (its inputs are {', '.join(inputs)})")
        datatype = _DATA_TYPE_NAMES.get(array.dtype)
        expected = inputs[name].datatype if inputs else datatype
        if datatype is None or datatype != expected:
            raise InputError(f"--input {path}: {name} is {array.dtype}, expected {expected}")
        tensors[name] = (datatype, np.ascontiguousarray(array))
    return tensors


def named_tensors(arrays: Mapping[str, npt.NDArray[np.generic]], specs: Sequence[TensorSpec]) -> Tensors:
    """A user's own arrays by input name, each with its own data type. Empty `specs`: any names are accepted.

    Raises InputError for a name that the model does not have, or an array whose type the protocol does not have.
    """
    names = {spec.name for spec in specs}
    tensors: Tensors = {}
    for name, array in arrays.items():
        if names and name not in names:
            raise InputError(f"the model has no input {name} (its inputs are {', '.join(sorted(names))})")
        if (datatype := _DATA_TYPE_NAMES.get(array.dtype)) is None:
            raise InputError(f"input {name} is {array.dtype}: the protocol has no such type")
        tensors[name] = (datatype, np.ascontiguousarray(array))
    return tensors


def encode_request(
    model: str, version: str, tensors: Mapping[str, tuple[str, npt.NDArray[np.generic]]], *, identifier: str = ""
) -> Payload:
    """A ModelInferRequest with raw little-endian contents: the same bytes for the same tensors."""
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=identifier)
    for name, (datatype, array) in tensors.items():
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
        request.raw_input_contents.append(little_endian.tobytes())
    shapes = ", ".join(f"{name} {datatype} {list(array.shape)}" for name, (datatype, array) in tensors.items())
    return Payload(request.SerializeToString(), shapes)


def _join(sizes: Sequence[int]) -> str:
    return ",".join(map(str, sizes))
