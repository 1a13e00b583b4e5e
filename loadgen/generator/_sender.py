"""Sends requests: one at a time for a user of a closed loop, at its due time for a source of open arrivals."""

from __future__ import annotations

import time
from collections.abc import Sequence

from loadgen.generator._request import InFlightRequest, RequestContext
from loadgen.targets import Route


class RequestSender:
    """Sends the requests of one session; `context` is what they share."""

    def __init__(self, context: RequestContext) -> None:
        self.context = context

    def call(
        self,
        route: Route,
        message: bytes,
        deadline_s: float | None = None,
        candidates: Sequence[Route] | None = None,
    ) -> int:
        """Sends one request of a closed loop, due now. Blocks this greenlet until it ended, and returns its code.

        `candidates` are the routes that --retries may take, of the same model; None: any.
        """
        return InFlightRequest(self.context, route, message, time.monotonic_ns(), deadline_s, candidates).call()

    def fire(
        self,
        request: tuple[Route, bytes] | None,
        due: int,
        deadline_s: float | None,
        candidates: Sequence[Route] | None = None,
    ) -> None:
        """Sends one request of an open loop, due at `due` in ns, without waiting for those before it.

        It is unsent where the run ends or too many are in flight. `request` is None where the source has none.
        """
        if request is None:
            return
        context = self.context
        in_flight = InFlightRequest(context, request[0], request[1], due, deadline_s, candidates)
        now = time.monotonic_ns()
        context.monitor.record_arrival(due, now)
        if not context.issuing or context.monitor.in_flight >= context.max_in_flight:
            in_flight.drop(now)
        else:
            in_flight.start(now)
