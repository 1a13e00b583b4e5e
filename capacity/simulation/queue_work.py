"""The input and the result of every simulated queue of single-threaded ordinals. Times are in µs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from capacity.errors import InputError

# gRPC status codes of a simulated request.
OK, DEADLINE_EXCEEDED, UNAVAILABLE = 0, 4, 14

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: Arguments: an ordinal and a number of rows. Returns a table of equally likely times of such a pass, by quantile.
PassTable = Callable[[int, int], Sequence[float]]


@dataclass(frozen=True)
class Batching:
    """Dynamic batching with the options of a worker: --max-batch-size, --max-queue-delay-us, --preferred-batch-size and
    --max-queue-size (None: no bound). With `max_size` 1 every request is a pass of its own."""

    max_size: int = 1
    delay_us: float = 0.0
    preferred: tuple[int, ...] = ()
    queue_limit: int | None = None

    def __post_init__(self) -> None:
        if self.max_size < 1 or self.delay_us < 0 or (self.queue_limit is not None and self.queue_limit < 1):
            raise InputError(
                f"batching: expected a size and a queue of at least 1 and a delay of at least 0, not {self}"
            )
        if any(not 1 <= size <= self.max_size for size in self.preferred):
            raise InputError(f"preferred batch sizes: expected 1 to {self.max_size}, not {self.preferred}")


@dataclass(frozen=True)
class QueueWork:
    """n requests for k ordinals.

    `due`, shape (n,), ascends. `quantile` and `overhead_quantile`, shape (n,), index the tables of equally likely times
    `passes(ordinal, rows)` and `overheads[ordinal]`. `routes`, shape (n,), has the ordinal of each request; None: the
    one with the fewest requests outstanding. `failures` has (ordinal, from, to). From `detection_us` after the begin of
    a failure until its end the router avoids the ordinal: then `reroute(request, ordinals that are up)` chooses, where
    there are `routes`.
    """

    due: Floats
    quantile: Ints
    overhead_quantile: Ints
    passes: PassTable
    overheads: Sequence[Sequence[float]]
    routes: Ints | None
    batching: Batching
    deadline_us: float = math.inf
    failures: tuple[tuple[int, float, float], ...] = ()
    detection_us: float = math.inf
    reroute: Callable[[int, Sequence[int]], int] | None = None


@dataclass
class QueueResult:
    """What each request met, shapes (n,): latency in µs (inf where it failed), gRPC status code, ordinal, and the rows
    of its pass (0: never executed).

    `busy_us`, shape (k,), is how long passes occupied each ordinal; `passes` counts them by size.
    """

    latency_us: Floats
    code: NDArray[np.int8]
    ordinal: NDArray[np.int32]
    rows: NDArray[np.int32]
    busy_us: Floats
    passes: dict[int, int] = field(default_factory=dict)
