"""What a pool of single-threaded ordinals is asked to do, and what came of it, as all queues take it. Times in µs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

OK, DEADLINE_EXCEEDED, UNAVAILABLE = 0, 4, 14

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: Time of a pass of so many rows on this ordinal, by the number of a quantile.
Table = Callable[[int, int], Sequence[float]]


@dataclass(frozen=True)
class Batching:
    """Dynamic batching as a worker has it: --max-batch-size, --max-queue-delay-us, --preferred-batch-size,
    --max-queue-size (None: no bound). `max_size` 1: every request is a pass of its own."""

    max_size: int = 1
    delay_us: float = 0.0
    preferred: tuple[int, ...] = ()
    queue_limit: int | None = None

    def __post_init__(self) -> None:
        if self.max_size < 1 or self.delay_us < 0 or (self.queue_limit is not None and self.queue_limit < 1):
            raise ValueError(f"batching has a size and a queue of at least 1 and no negative delay, not {self}")
        if any(not 1 <= size <= self.max_size for size in self.preferred):
            raise ValueError(f"preferred batch sizes lie between 1 and {self.max_size}, not {self.preferred}")


@dataclass(frozen=True)
class Work:
    """n requests for k ordinals: when each is due (ascending), and which quantiles its pass and its overhead are.

    `passes(ordinal, rows)` and `overheads[ordinal]` are tables of equally likely times. `routes`, shape (n,), says the
    ordinal of each; None: the one with the fewest outstanding. `down` has (ordinal, from, to). `noticed` after its
    beginning the router goes around it: `around(i, up)` is then the ordinal of request i, where there are `routes`.
    """

    due: Floats
    quantile: Ints
    overhead_quantile: Ints
    passes: Table
    overheads: Sequence[Sequence[float]]
    routes: Ints | None
    batching: Batching
    deadline: float = math.inf
    down: tuple[tuple[int, float, float], ...] = ()
    noticed: float = math.inf
    around: Callable[[int, Sequence[int]], int] | None = None


@dataclass
class Played:
    """Of each request: latency in µs (inf where it failed), gRPC code, ordinal, rows of its pass (0: never run).

    `busy_us` is how long passes held each ordinal, `passes` how many of each size there were.
    """

    latency: Floats
    code: NDArray[np.int8]
    worker: NDArray[np.int32]
    rows: NDArray[np.int32]
    busy_us: Floats
    passes: dict[int, int] = field(default_factory=dict)
