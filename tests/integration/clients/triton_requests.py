"""Requests to the two workers that `triton_grpc.py` and `triton_aio.py` speak to, and what is right for an answer."""

import numpy as np
import tritonclient.grpc as triton

MODEL = "adding"
OUTPUTS = ("output_0", "output_1")


def values(rows: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows)
    one, other = rng.integers(-(2**30), 2**30, (2, rows, 16), dtype=np.int32)
    return one, other


def inputs(one: np.ndarray, other: np.ndarray) -> list[triton.InferInput]:
    given = []
    for name, array in (("INPUT0", one), ("INPUT1", other)):
        given.append(triton.InferInput(name, list(array.shape), "INT32"))
        given[-1].set_data_from_numpy(array)
    return given


def asked(*names: str) -> list[triton.InferRequestedOutput]:
    return [triton.InferRequestedOutput(name) for name in names]


def slow_inputs() -> list[triton.InferInput]:
    given = triton.InferInput("INPUT", [1, 16], "FP32")
    given.set_data_from_numpy(np.zeros((1, 16), np.float32))
    return [given]


def is_right(result: triton.InferResult, one: np.ndarray, other: np.ndarray) -> bool:
    pairs = zip(OUTPUTS, (one + other, one - other), strict=True)
    return all(np.array_equal(result.as_numpy(name), expected) for name, expected in pairs)
