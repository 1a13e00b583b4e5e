"""Sends requests: one at a time for a user of a closed loop, at its due time for a source of open arrivals."""

from __future__ import annotations

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
        return InFlightRequest().call(self.context, route, message, deadline_s, candidates)

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
        if request is not None:
            InFlightRequest().start(self.context, request[0], request[1], due, deadline_s, candidates)
