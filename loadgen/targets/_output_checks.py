"""Is a reply the right one: its size always, and its tensors for every n-th, against what is expected."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from loadgen._errors import InputError
from loadgen.targets._payloads import DTYPES
from loadgen.transport._reply import OK, WRONG_OUTPUT
from worker.wire import open_inference_pb2 as pb

#: Relative and absolute: what float32 kernels of different batch sizes differ by, and well under a wrong answer.
TOLERANCE = 1e-3


class OutputChecker:
    """Replies to one request, which are to be alike. `every` 0: no tensors are looked at, only sizes.

    Without `expected` the first whole reply is what the others are held against.
    """

    def __init__(self, every: int, expected: Mapping[str, npt.NDArray[np.generic]] | None = None) -> None:
        self._every = every
        self._expected = dict(expected) if expected is not None else None
        self._size: int | None = None
        self._seen = 0

    def code(self, payload: bytes | None) -> int:
        """OK, or WRONG_OUTPUT, for the message of a reply that gRPC calls OK."""
        if not payload:
            return WRONG_OUTPUT
        if self._size is None:
            self._size = len(payload)
        elif len(payload) != self._size:
            return WRONG_OUTPUT
        self._seen += 1
        if self._every and self._seen % self._every == 1 % self._every:
            return self._compare(payload)
        return OK

    def _compare(self, payload: bytes) -> int:
        try:
            found = tensors(payload)
        except ValueError:
            return WRONG_OUTPUT
        if self._expected is None:
            self._expected = found
        for name, wanted in self._expected.items():
            have = found.get(name)
            if have is None or have.shape != wanted.shape or have.dtype != wanted.dtype:
                return WRONG_OUTPUT
            close = (
                np.allclose(have, wanted, TOLERANCE, TOLERANCE, equal_nan=True)
                if have.dtype.kind == "f"
                else np.array_equal(have, wanted)
            )
            if not close:
                return WRONG_OUTPUT
        return OK


def tensors(payload: bytes) -> dict[str, npt.NDArray[np.generic]]:
    """A ModelInferResponse's outputs by name; ValueError where it is not one, or has a type that numpy has not."""
    try:
        response = pb.ModelInferResponse.FromString(payload)
    except DecodeError:
        raise ValueError("not a ModelInferResponse") from None
    if len(response.raw_output_contents) != len(response.outputs):
        raise ValueError("outputs and their raw contents differ in number")
    found = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if output.datatype not in DTYPES:
            raise ValueError(f"{output.datatype} has no place in an array")
        found[output.name] = np.frombuffer(raw, DTYPES[output.datatype]).reshape(tuple(output.shape))
    return found


def expected_from(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Expected outputs by name from an .npz. Raises InputError."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise InputError(f"--expected {path}: not an .npz of plain arrays ({error})") from None
