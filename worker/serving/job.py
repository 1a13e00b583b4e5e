"""What waits in the queue: a job, how it ended, and the policy by which jobs are joined."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from worker.runtime.context import Ran
from worker.runtime.tensors import Tensor


@dataclass(frozen=True)
class Policy:
    """Triton's dynamic batching, with its meanings and defaults. `max_batch_size` 0: requests are never joined."""

    max_batch_size: int = 0
    # How long the oldest request may wait for others.
    max_queue_delay_us: int = 0
    # Sizes to form as soon as they can be; none: only the largest.
    preferred: tuple[int, ...] = ()
    # Requests that may wait; 0: no bound.
    max_queue_size: int = 0
    # 0: no levels. Level 1 goes first.
    priority_levels: int = 0
    default_priority: int = 0


class Job:
    """One request on its way through the queue."""

    __slots__ = (
        "_ticket",
        "arrived_ns",
        "begun_ns",
        "deadline_ns",
        "done",
        "expires_ns",
        "inputs",
        "key",
        "priority",
        "rows",
        "timer",
    )

    def __init__(
        self,
        inputs: Sequence[Tensor],
        *,
        rows: int = 1,
        key: Any = None,
        priority: int = 0,
        expires_ns: int = 0,
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        # Only requests of equal keys are joined: all shapes but for the first dimension.
        self.key = key
        self.priority = priority
        # By time.monotonic_ns; 0: never.
        self.expires_ns = expires_ns
        # When the caller stops waiting; gRPC cancels the call then. 0: never.
        self.deadline_ns = 0
        self.arrived_ns = time.monotonic_ns()
        self.begun_ns = 0
        # Called once, in the loop's thread, with how it ended; None once it was.
        self.done: Callable[[Done | BaseException], None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._ticket = [True]

    @property
    def claimed(self) -> bool:
        return not self._ticket

    def claim(self) -> bool:
        """True for the first caller only, from whichever thread: list.pop is atomic."""
        try:
            return self._ticket.pop()
        except IndexError:
            return False


class Done(NamedTuple):
    """How a job ended well: its outputs, the forward pass that it was part of, and how long it waited for it."""

    outputs: tuple[Tensor, ...]
    ran: Ran
    queue_ns: int
