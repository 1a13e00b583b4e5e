"""Which target a request goes to: the values of --router. No clock and no socket; routes are only read."""

from __future__ import annotations

import random
from collections.abc import Sequence

from loadgen._errors import InputError
from loadgen.targets._route import Route


class Router:
    """Chooses among routes by the value of --router, `name`.

    A route whose budget is 0 is never chosen. A target that is down is sent nothing, unless all are down or users are
    pinned to it. `first` is the number of this generator: several generators do not all begin with the same target.
    """

    def __init__(self, name: str, routes: Sequence[Route], first: int, seed: int) -> None:
        self._name = name
        self._routes = list(routes)
        self._next_user = first
        self._next_request = first
        self._random = random.Random(f"{seed}/{first}")
        self._degraded = False

    def update_health(self) -> None:
        """Reads whether some target is down or in its ramp. Call it after the health of a target has changed."""
        self._degraded = any(not route.health.up or route.health.ramping for route in self._routes)

    def candidates(self, address: str, model: str) -> list[Route]:
        """The routes to one address, or to targets of one model; empty means any. Raises InputError where none is."""
        routes = [
            route
            for route in self._routes
            if (not address or route.target.address == address) and (not model or route.target.series.model == model)
        ]
        if not routes:
            condition = " and ".join(filter(None, (address and f"address {address}", model and f"model {model}")))
            available = ", ".join(f"{route.target.address} ({route.target.series.model})" for route in self._routes)
            raise InputError(f"no target of this run has {condition}; its targets are {available}")
        return routes

    def pin(self, candidates: Sequence[Route]) -> Route:
        """The route of a new user: each candidate in turn."""
        route = candidates[self._next_user % len(candidates)]
        self._next_user += 1
        return route

    def choose(self, pinned: Route, candidates: Sequence[Route]) -> Route | None:
        """The route of the next request; None where no candidate has a budget."""
        if self._name == "pinned":
            return pinned if pinned.results.budget != 0 else None
        routes = [route for route in candidates if route.results.budget != 0]
        if not routes:
            return None
        if self._degraded:
            # Where no target accepts, all are used: a request that is due is sent, and its error is recorded.
            routes = [route for route in routes if route.health.accepts(self._random.random())] or routes
        if self._name == "random":
            return self._random.choice(routes)
        self._next_request += 1
        start = self._next_request % len(routes)
        if self._name == "round-robin":
            return routes[start]
        # Ties are broken in turn, so that idle targets get equal shares.
        return min(routes[start:] + routes[:start], key=lambda route: route.results.outstanding)

    def choose_again(self, route: Route, candidates: Sequence[Route] | None) -> Route | None:
        """The route of a request that `route` has refused: one of the same model. None for candidates: all routes."""
        model = route.target.series.model
        peers = [peer for peer in candidates or self._routes if peer.target.series.model == model]
        return self.choose(route, peers)

    def choose_model(self, model: str) -> Route | None:
        """The route of a row of a trace, which names its model or, empty, any. Raises InputError where none has it."""
        candidates = self.candidates("", model)
        return self.choose(self.pin(candidates), candidates)
