"""--retries: which refused requests are sent once more, and after which delay."""

from __future__ import annotations

import random
from collections.abc import Callable

from loadgen.transport import UNAVAILABLE, ConnectionLost, Reply

#: The delay before retry n (from 0) is uniform between 0 and FIRST_S × 2**n, at most LONGEST_S. This "full jitter"
#: keeps requests that were refused together from coming back together
#: (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
FIRST_S, LONGEST_S = 0.02, 1.0


class RetryPolicy:
    """Allows at most `limit` retries of a request. `uniform(low, high)` draws the jitter."""

    def __init__(self, limit: int, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._limit = limit
        self._uniform = uniform

    def delay_s(self, reply: Reply, retries: int, left_s: float) -> float | None:
        """Returns the seconds to wait before the next retry, or None where the request ends with this reply.

        `retries` is the number of retries so far and `left_s` what is left of the deadline in seconds. Only a request
        that was certainly not executed is sent again: UNAVAILABLE, unless the connection was lost with it in flight.
        """
        if retries >= self._limit or reply.code != UNAVAILABLE or isinstance(reply, ConnectionLost):
            return None
        delay_s = self._uniform(0, min(FIRST_S * 2**retries, LONGEST_S))
        return delay_s if delay_s < left_s else None
