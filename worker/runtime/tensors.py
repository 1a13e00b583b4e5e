"""Tensors as they travel: datatype names, element sizes, specifications, and the bytes between them."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from worker.wire import DATA_TYPES

# Every data type whose elements have one size -> numpy dtype of the same bytes. The bytes of BF16, which numpy lacks,
# are handled as int16.
NUMPY: dict[str, np.dtype[Any]] = {
    name: np.dtype(data_type.numpy or "<i2")
    for name, data_type in DATA_TYPES.items()
    if data_type.element_bytes is not None
}
_ELEMENT_BYTES = {name: dtype.itemsize for name, dtype in NUMPY.items()}


class Tensor(NamedTuple):
    """One tensor: datatype by its protocol name, shape, and its elements, little-endian and row-major."""

    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


class TensorSpec(BaseModel):
    """What a model takes or gives under one name. A dimension of -1 may be of any size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    datatype: str
    shape: tuple[int, ...]
    # For inputs: a shape without -1 that a client may start from, and the first integer that is out of range.
    example: tuple[int, ...] | None = None
    high: int | None = None

    @field_validator("datatype")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in NUMPY:
            raise ValueError(f"datatype {value} is not one of {', '.join(NUMPY)}")
        return value

    @field_validator("shape")
    @classmethod
    def _sizes(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(size < -1 or size == 0 for size in value):
            raise ValueError("dimensions are positive, or -1 for any size")
        return value

    def example_shape(self, rows: int | None = None, any_size: int = 1) -> tuple[int, ...]:
        """A shape that fits: the example, or -1 as `any_size`; the first dimension as `rows` where it is free."""
        shape = self.example or tuple(any_size if size == -1 else size for size in self.shape)
        return (rows, *shape[1:]) if rows is not None and self.shape[:1] == (-1,) else shape

    def example_tensor(self, rows: int | None = None, any_size: int = 1, seed: int = 0) -> Tensor:
        """Elements that any model should take: normal floats, integers below `high`, zeros where that is unknown."""
        shape = self.example_shape(rows, any_size)
        rng = np.random.default_rng(seed)
        dtype = NUMPY[self.datatype]
        if self.datatype == "BF16":
            values = (rng.standard_normal(shape, np.float32).view(np.uint32) >> 16).astype(np.int16)
        elif dtype.kind == "f":
            values = rng.standard_normal(shape).astype(dtype)
        elif self.high is not None:
            values = rng.integers(0, self.high, shape).astype(dtype)
        else:
            values = np.zeros(shape, dtype)
        return Tensor(self.datatype, shape, values.tobytes())


def parse_spec(text: str) -> TensorSpec:
    """`NAME:DATATYPE:SHAPE`, for example `x:INT64:-1,7`. ValueError in one sentence."""
    name, _, rest = text.partition(":")
    datatype, _, shape = rest.partition(":")
    try:
        sizes = tuple(int(size) for size in shape.split(","))
    except ValueError:
        raise ValueError(f"{text!r} is not NAME:DATATYPE:SHAPE, for example x:INT64:-1,7") from None
    try:
        return TensorSpec(name=name, datatype=datatype, shape=sizes)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ValueError(f"{text!r} is not NAME:DATATYPE:SHAPE: {reason}") from None


def fits(shape: Sequence[int], spec: Sequence[int]) -> bool:
    """True where every dimension of `spec` is -1 or the same, and there are as many."""
    return len(shape) == len(spec) and all(want in (-1, size) for size, want in zip(shape, spec, strict=True))


def byte_size(datatype: str, shape: Sequence[int]) -> int:
    return _ELEMENT_BYTES[datatype] * math.prod(shape)
