"""`sim:N`: an accelerator that sleeps a service time drawn from a named distribution or from a recorded `.hlog`."""

import base64
import random
import time
import zlib
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from hdrh.histogram import HdrHistogram

from worker.accelerators import host
from worker.errors import UsageError
from worker.runtime.context import Ran, WarmUp
from worker.runtime.coupling import Siblings
from worker.runtime.model_file import Specification
from worker.runtime.tensors import Tensor, TensorSpec, byte_size
from worker.wire import FormatError, parse_duration_ns

DEFAULT_SPECIFICATION = Specification(
    name="sim",
    mode="foreign",
    inputs=(TensorSpec(name="INPUT", datatype="FP32", shape=(-1, 16), example=(1, 16)),),
    outputs=(TensorSpec(name="OUTPUT", datatype="FP32", shape=(-1, 16)),),
)

# An encoded histogram's head, and the most that a histogram of any configuration takes.
_COOKIE_AND_LENGTH, _MOST_HISTOGRAM = 8, 8 << 20

# Gives one service time in nanoseconds.
Draw = Callable[[random.Random], int]


def duration_ns(text: str) -> int:
    """Returns the nanoseconds of "10ms", "250us" or "1.5s". Raises UsageError."""
    try:
        return parse_duration_ns(text, allow_zero=True)
    except FormatError as error:
        raise UsageError(str(error)) from None


def parse(text: str) -> Draw:
    """`fixed:10ms`, `lognormal:5ms,0.2` (mean, coefficient of variation) or `replay:RUN:TAG`. UsageError otherwise."""
    kind, _, rest = text.partition(":")
    if kind == "fixed":
        constant = duration_ns(rest)
        return lambda rng: constant
    if kind == "lognormal":
        mean_text, _, cv_text = rest.partition(",")
        mean = duration_ns(mean_text)
        try:
            variation = float(cv_text)
        except ValueError:
            variation = -1.0
        if not 0 <= variation < 100 or mean == 0:
            raise UsageError(f"{text!r} is not lognormal:MEAN,CV such as lognormal:5ms,0.2")
        # A lognormal's mean is exp(mu + sigma²/2) and its squared coefficient of variation exp(sigma²) - 1.
        sigma = float(np.sqrt(np.log1p(variation**2)))
        mu = float(np.log(mean)) - sigma**2 / 2
        return lambda rng: round(rng.lognormvariate(mu, sigma))
    if kind == "replay":
        return _replay(text, rest)
    raise UsageError(f"{text!r} is no simulation; those are fixed:10ms, lognormal:5ms,0.2 and replay:RUN:TAG")


def _replay(text: str, rest: str) -> Draw:
    directory, _, tag = rest.partition(":")
    path = Path(directory)
    path = path / "run.hlog" if path.is_dir() else path
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{text}: {path} cannot be read ({getattr(error, 'strerror', None) or error})") from None
    intervals = [line.split(",") for line in lines if line.startswith("Tag=")]
    tags = sorted({fields[0].removeprefix("Tag=") for fields in intervals})
    chosen = [have for have in tags if tag in (have, unquote(have))] or [have for have in tags if tag in unquote(have)]
    if len(chosen) != 1:
        raise UsageError(
            f"{text}: {tag!r} is {'not a tag' if not chosen else 'not one tag'} of {path}; it has "
            f"{', '.join(tags) or 'none'}"
        )
    counts: dict[int, int] = {}
    for fields in intervals:
        if fields[0].removeprefix("Tag=") != chosen[0]:
            continue
        try:
            # The library inflates without a bound.
            packed = base64.b64decode(fields[4], validate=True)[_COOKIE_AND_LENGTH:]
            inflated = zlib.decompressobj().decompress(packed, _MOST_HISTOGRAM + 1)
            if len(inflated) > _MOST_HISTOGRAM:
                raise ValueError("too large to be a histogram")
            histogram = HdrHistogram.decode(fields[4])
        except Exception:  # the library raises whatever zlib, struct or ctypes do
            raise UsageError(f"{path} has a line for {chosen[0]} that is no histogram") from None
        for value in histogram.get_recorded_iterator():
            middle = histogram.get_lowest_equivalent_value(value.value_iterated_to)
            middle = (middle + value.value_iterated_to) // 2
            counts[middle] = counts.get(middle, 0) + value.count_added_in_this_iter_step
    values = sorted(counts)
    if not values:
        raise UsageError(f"{path} has no value under {chosen[0]}")
    running = np.cumsum([counts[value] for value in values]).tolist()
    return lambda rng: 1000 * values[bisect_left(running, rng.randint(1, running[-1]))]


@dataclass(frozen=True)
class Simulation:
    """What `--sim` and its companions said. `text` goes into Describe."""

    text: str = "fixed:10ms"
    # Added for each row of a batch beyond the first.
    per_row_ns: int = 0
    # Share of forward passes that fail, and one in how many stalls for how long.
    failure_rate: float = 0.0
    stall_rate: float = 0.0
    stall_ns: int = 0
    seed: int = 0


class InjectedFailure(RuntimeError):
    """What `--sim-failure-rate` asked for."""


class SimulatedContext:
    """Sleeps, then gives zeros of the shape that the specification says. Never imports torch."""

    def __init__(
        self,
        simulation: Simulation,
        specification: Specification = DEFAULT_SPECIFICATION,
        siblings: Siblings | None = None,
    ) -> None:
        self.specification = specification
        self.parameter_bytes = 0
        self.precision = ""
        self.threads = 0
        self._simulation = simulation
        self._siblings = siblings
        self._draw = parse(simulation.text)
        self._rng = random.Random(simulation.seed)

    def load(self) -> None:
        host.sleep_precisely()

    def run(self, batch: Sequence[Sequence[Tensor]]) -> Ran:
        begin = time.perf_counter_ns()
        rows = sum(request[0].shape[0] if request[0].shape else 1 for request in batch)
        simulation = self._simulation
        takes = self._draw(self._rng) + simulation.per_row_ns * (rows - 1)
        if simulation.stall_rate and self._rng.random() < simulation.stall_rate:
            takes += simulation.stall_ns
        if self._siblings is not None:
            takes = self._siblings.grown(takes)
        outputs = [self._zeros(request) for request in batch]
        if (left := begin + takes - time.perf_counter_ns()) > 0:
            time.sleep(left / 1e9)
        if simulation.failure_rate and self._rng.random() < simulation.failure_rate:
            raise InjectedFailure("a failure that --sim-failure-rate asked for")
        return Ran(outputs, 0, time.perf_counter_ns() - begin, 0)

    def warm_up(self, batch_sizes: Sequence[int]) -> WarmUp:
        """Nothing: a simulated accelerator has no first inference, and its failures are for requests."""
        return WarmUp(0, [])

    def peak_bytes(self) -> int:
        return 0

    def versions(self) -> dict[str, str]:
        return {}

    def _zeros(self, request: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """A free dimension of an output is as large as the first input's at the same place, or 1."""
        like = request[0].shape
        tensors = []
        for spec in self.specification.outputs:
            shape = tuple(
                size if size != -1 else like[place] if place < len(like) else 1 for place, size in enumerate(spec.shape)
            )
            tensors.append(Tensor(spec.datatype, shape, bytes(byte_size(spec.datatype, shape))))
        return tuple(tensors)
