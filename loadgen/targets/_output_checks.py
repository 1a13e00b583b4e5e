"""Checks replies: the size of each, and the tensors of every n-th against expected ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from loadgen._errors import InputError
from loadgen.targets._payloads import NUMPY_TYPES
from loadgen.transport import OK, WRONG_OUTPUT
from worker.wire import open_inference_pb2 as pb

#: Relative and absolute: above what float32 kernels of different batch sizes differ by, and well under a wrong answer.
TOLERANCE = 1e-3


class OutputChecker:
    """Checks the replies to one request, which must be alike. `every` 0: only their sizes are compared.

    Without `expected` tensors, those of the first reply that is decoded are expected of the others.
    """

    def __init__(self, every: int, expected: Mapping[str, npt.NDArray[np.generic]] | None = None) -> None:
        self._every = every
        self._expected = dict(expected) if expected is not None else None
        self._size: int | None = None
        self._replies = 0

    def check(self, payload: bytes | None) -> int:
        """OK or WRONG_OUTPUT, for the message of a reply whose status is OK."""
        if not payload:
            return WRONG_OUTPUT
        if self._size is None:
            self._size = len(payload)
        elif len(payload) != self._size:
            return WRONG_OUTPUT
        self._replies += 1
        if self._every and self._replies % self._every == 1 % self._every:
            return self._compare(payload)
        return OK

    def _compare(self, payload: bytes) -> int:
        try:
            outputs = decode_outputs(payload)
        except ValueError:
            return WRONG_OUTPUT
        if self._expected is None:
            self._expected = outputs
        for name, expected in self._expected.items():
            output = outputs.get(name)
            if output is None or output.shape != expected.shape or output.dtype != expected.dtype:
                return WRONG_OUTPUT
            close = (
                np.allclose(output, expected, TOLERANCE, TOLERANCE, equal_nan=True)
                if output.dtype.kind == "f"
                else np.array_equal(output, expected)
            )
            if not close:
                return WRONG_OUTPUT
        return OK


def decode_outputs(payload: bytes) -> dict[str, npt.NDArray[np.generic]]:
    """The outputs of a ModelInferResponse by name.

    Raises ValueError where it is none, or an output has a type that numpy does not have.
    """
    try:
        response = pb.ModelInferResponse.FromString(payload)
    except DecodeError:
        raise ValueError("expected a ModelInferResponse") from None
    if len(response.raw_output_contents) != len(response.outputs):
        raise ValueError("outputs and their raw contents differ in number")
    outputs = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if output.datatype not in NUMPY_TYPES:
            raise ValueError(f"numpy has no type {output.datatype}")
        outputs[output.name] = np.frombuffer(raw, NUMPY_TYPES[output.datatype]).reshape(tuple(output.shape))
    return outputs


def read_expected(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Expected outputs by name from an .npz file. Raises InputError."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise InputError(f"--expected {path}: expected an .npz file of plain arrays ({error})") from None
