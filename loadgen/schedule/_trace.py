"""A trace being open_trace: when its requests are due, and what each of them asks for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from loadgen._errors import InputError
from loadgen._options import Options
from loadgen.schedule._arrivals import Arrival, read_trace, trace
from loadgen.targets._router import Route, Router


class TracePlayer:
    """A trace being open_trace: due times for the pacer, and for each the request that its row asks for."""

    def __init__(self, rows: Iterator[tuple[int, Arrival]], router: Router) -> None:
        self._rows = rows
        self._router = router
        self._waiting: deque[Arrival] = deque()

    def offsets(self, over: Callable[[], None]) -> Iterator[int]:
        for due, arrival in self._rows:
            self._waiting.append(arrival)
            yield due
        over()

    def next_request(self) -> tuple[Route, bytes] | None:
        arrival = self._waiting.popleft()
        candidates = self._router.candidates("", arrival.model)
        route = self._router.choose(self._router.pin(candidates), candidates)
        if route is None:
            return None
        return route, route.payload.message if arrival.size is None else route.message_of_size(arrival.size)


class Silence(TracePlayer):
    """What is left of a trace that another user plays."""

    def __init__(self) -> None:
        self._waiting = deque()

    def offsets(self, over: Callable[[], None]) -> Iterator[int]:
        return iter(())


def open_trace(options: Options, share: tuple[int, int], router: Router) -> TracePlayer:
    assert options.trace is not None
    try:
        arrivals = read_trace(options.trace)
    except (OSError, ValueError) as error:
        raise InputError(f"--arrivals trace: {error}") from None
    for model in {arrival.model for arrival in arrivals if arrival.model}:
        router.candidates("", model)
    rows = trace(arrivals, scale=options.trace_scale, keep=options.trace_keep, seed=options.seed)
    # Thinned first and dealt out then, so that any number of generators plays the same arrivals.
    return TracePlayer((row for number, row in enumerate(rows) if number % share[1] == share[0]), router)
