"""What is sent: a ModelInfer message, built once from the model's metadata and turned into bytes."""

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

DTYPES = {name: np.dtype(data_type.numpy) for name, data_type in DATA_TYPES.items() if data_type.numpy is not None}

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class TensorSpec:
    """One input as ModelMetadata tells it: -1 in `shape` is a dimension of any size.

    `example` is a shape that the model's owner gave as typical, `below` the bound of its integers; both may be absent.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    example: tuple[int, ...] = ()
    below: int | None = None


@dataclass(frozen=True)
class Payload:
    """A serialized ModelInferRequest, and how to name it in a report (`x INT64 [1, 7]`)."""

    message: bytes
    shapes: str


def random_tensors(
    specs: Sequence[TensorSpec], sizes: Mapping[str, Sequence[int]]
) -> dict[str, tuple[str, npt.NDArray[np.generic]]]:
    """Tensors of a fixed seed, by name with their datatype. Open dimensions take what `sizes` says for the name, else
    the model's own example, else 1.

    Raises InputError where `sizes` names an input that is not there or contradicts a fixed dimension, and for a
    datatype that cannot be made up (BYTES) or that numpy does not have (BF16): those need --input.
    """
    if unknown := sorted(set(sizes) - {spec.name for spec in specs}):
        raise InputError(f"--input-shape {unknown[0]}: the model's inputs are {', '.join(s.name for s in specs)}")
    generator = np.random.default_rng(SEED)
    tensors: dict[str, tuple[str, npt.NDArray[np.generic]]] = {}
    for spec in specs:
        shape = _fill(spec, sizes.get(spec.name))
        if spec.datatype not in DTYPES:
            raise InputError(f"input {spec.name} is {spec.datatype}, for which no random tensor is made: use --input")
        dtype = DTYPES[spec.datatype]
        values: npt.NDArray[np.generic]
        if dtype.kind == "f":
            values = generator.standard_normal(shape).astype(dtype)
        elif dtype.kind == "b":
            values = generator.integers(0, 2, shape).astype(dtype)
        else:
            values = generator.integers(0, spec.below or INTEGERS_BELOW, shape).astype(dtype)
        tensors[spec.name] = (spec.datatype, values)
    return tensors


def _fill(spec: TensorSpec, sizes: Sequence[int] | None) -> tuple[int, ...]:
    if sizes is None:
        return spec.example or tuple(1 if size < 0 else size for size in spec.shape)
    fits = len(sizes) == len(spec.shape) and all(
        have in (-1, want) for have, want in zip(spec.shape, sizes, strict=True)
    )
    if not fits:
        raise InputError(f"--input-shape {spec.name}:{_join(sizes)}: the model takes {spec.name}:{_join(spec.shape)}")
    return tuple(sizes)


def file_tensors(path: Path, specs: Sequence[TensorSpec]) -> dict[str, tuple[str, npt.NDArray[np.generic]]]:
    """Tensors by name from an .npz. Datatypes follow the metadata, where it has one for the name."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise InputError(f"--input {path}: not an .npz of plain arrays ({error})") from None
    wanted = {spec.name: spec for spec in specs}
    if wanted and (missing := sorted(set(wanted) - set(arrays))):
        raise InputError(f"--input {path}: has no array named {missing[0]}; the model takes {', '.join(wanted)}")
    tensors: dict[str, tuple[str, npt.NDArray[np.generic]]] = {}
    for name, array in arrays.items():
        if wanted and name not in wanted:
            raise InputError(f"--input {path}: the model has no input {name}; it takes {', '.join(wanted)}")
        datatype = _NAMES.get(array.dtype)
        expected = wanted[name].datatype if wanted else datatype
        if datatype is None or datatype != expected:
            raise InputError(f"--input {path}: {name} is {array.dtype}, the model takes {expected}")
        tensors[name] = (datatype, np.ascontiguousarray(array))
    return tensors


def named_tensors(
    arrays: Mapping[str, npt.NDArray[np.generic]], specs: Sequence[TensorSpec]
) -> dict[str, tuple[str, npt.NDArray[np.generic]]]:
    """A user's own arrays by input name, with the datatype that each array has.

    Raises InputError for a name that the model has not, or an array of a type that does not travel.
    """
    wanted = {spec.name for spec in specs}
    tensors: dict[str, tuple[str, npt.NDArray[np.generic]]] = {}
    for name, array in arrays.items():
        if wanted and name not in wanted:
            raise InputError(f"the model has no input {name}; it takes {', '.join(sorted(wanted))}")
        if (datatype := _NAMES.get(array.dtype)) is None:
            raise InputError(f"input {name} is {array.dtype}, which does not travel")
        tensors[name] = (datatype, np.ascontiguousarray(array))
    return tensors


def encode(
    model: str, version: str, tensors: Mapping[str, tuple[str, npt.NDArray[np.generic]]], *, identifier: str = ""
) -> Payload:
    """The message with raw little-endian contents: the same bytes for the same tensors."""
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=identifier)
    for name, (datatype, array) in tensors.items():
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        request.raw_input_contents.append(little.tobytes())
    shapes = ", ".join(f"{name} {datatype} {list(array.shape)}" for name, (datatype, array) in tensors.items())
    return Payload(request.SerializeToString(), shapes)


def _join(sizes: Sequence[int]) -> str:
    return ",".join(map(str, sizes))
