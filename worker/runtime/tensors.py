"""Tensors as requests carry them, their specifications, and numpy's types for their elements."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from worker.errors import InputError
from worker.wire import DATA_TYPES

# Every data type whose elements have one size -> numpy dtype of the same bytes. The bytes of BF16, which numpy lacks,
# are handled as int16.
NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(data_type.numpy or "<i2")
    for name, data_type in DATA_TYPES.items()
    if data_type.element_bytes is not None
}
_ELEMENT_BYTES = {name: dtype.itemsize for name, dtype in NUMPY_TYPES.items()}


class Tensor(NamedTuple):
    """One tensor: datatype by its protocol name, shape, and its elements, little-endian and row-major."""

    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


class TensorSpec(BaseModel):
    """Name, data type and shape of one input or output of a model. A dimension of -1 may have any size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    datatype: str
    shape: tuple[int, ...]
    # For inputs: a typical shape without -1, and the first integer that is out of range.
    example: tuple[int, ...] | None = None
    high: int | None = None

    @field_validator("datatype")
    @classmethod
    def _check_datatype(cls, value: str) -> str:
        if value not in NUMPY_TYPES:
            raise ValueError(f"unknown data type {value!r} (choose one of {', '.join(NUMPY_TYPES)})")
        return value

    @field_validator("shape")
    @classmethod
    def _check_shape(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(size < -1 or size == 0 for size in value):
            raise ValueError("write each dimension as a positive number, or -1 for any size")
        return value

    def example_shape(self, rows: int | None = None, any_size: int = 1) -> tuple[int, ...]:
        """Returns a shape that fits: the example, or `any_size` for each -1; `rows` for a free first dimension."""
        shape = self.example or tuple(any_size if size == -1 else size for size in self.shape)
        return (rows, *shape[1:]) if rows is not None and self.shape[:1] == (-1,) else shape

    def example_tensor(self, rows: int | None = None, any_size: int = 1, seed: int = 0) -> Tensor:
        """Returns elements that any model accepts: normal floats, integers below `high`, or zeros without it."""
        shape = self.example_shape(rows, any_size)
        rng = np.random.default_rng(seed)
        dtype = NUMPY_TYPES[self.datatype]
        if self.datatype == "BF16":
            values = (rng.standard_normal(shape, np.float32).view(np.uint32) >> 16).astype(np.int16)
        elif dtype.kind == "f":
            values = rng.standard_normal(shape).astype(dtype)
        elif self.high is not None:
            values = rng.integers(0, self.high, shape).astype(dtype)
        else:
            values = np.zeros(shape, dtype)
        return Tensor(self.datatype, shape, values.tobytes())


def parse_tensor_spec(text: str) -> TensorSpec:
    """Returns the specification that `NAME:DATATYPE:SHAPE` describes, for example `x:INT64:-1,7`. Raises InputError."""
    name, _, rest = text.partition(":")
    datatype, _, shape = rest.partition(":")
    try:
        sizes = tuple(int(size) for size in shape.split(","))
    except ValueError:
        raise InputError(f"--input {text!r}: write NAME:DATATYPE:SHAPE such as x:INT64:-1,7") from None
    try:
        return TensorSpec(name=name, datatype=datatype, shape=sizes)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"--input {text!r}: write NAME:DATATYPE:SHAPE such as x:INT64:-1,7 ({reason})") from None


def shape_fits(shape: Sequence[int], spec: Sequence[int]) -> bool:
    """Returns True where `shape` has as many dimensions as `spec`, and each equals its own or that is -1."""
    return len(shape) == len(spec) and all(size in (-1, actual) for actual, size in zip(shape, spec, strict=True))


def byte_size(datatype: str, shape: Sequence[int]) -> int:
    """Returns the bytes that the elements of a tensor take."""
    return _ELEMENT_BYTES[datatype] * math.prod(shape)
