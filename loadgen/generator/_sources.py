"""Sources of open arrivals: what a Locust user becomes where requests are due by a schedule."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import gevent

from loadgen._options import Options
from loadgen.generator._sender import RequestSender
from loadgen.schedule import Pacer, TracePlayer, arrival_offsets
from loadgen.targets import Route


@dataclass(frozen=True)
class Source:
    """A user's stream of requests. `number` is unique among all generators and gives its random arrivals;
    `next_request` returns None where nothing is to be sent; `deadline_s` None is the session's."""

    number: int
    pinned: Route
    candidates: tuple[Route, ...]
    next_request: Callable[[], tuple[Route, bytes] | None]
    deadline_s: float | None


class ScheduledSources:
    """Sources that send by --arrivals from the moment when they are added, none before `begins_ns`.

    A trace is one for all users of a generator: the first source plays it, and the others send nothing.
    """

    def __init__(
        self,
        options: Options,
        sender: RequestSender,
        trace: TracePlayer | None,
        begins_ns: int,
        on_trace_end: Callable[[], None],
    ) -> None:
        self._options = options
        self._sender = sender
        self._trace = trace
        self._begins_ns = begins_ns
        self._on_trace_end = on_trace_end
        self._active: set[int] = set()
        self._active_at_begin: set[int] | None = None
        self._pacer: Pacer | None = None

    def add(self, source: Source) -> int:
        """Starts a source. Returns its key, for `remove`."""
        if self._pacer is None:
            self._pacer = Pacer()
        offsets, next_request = self._schedule(source)
        fire, deadline_s, candidates = self._sender.fire, source.deadline_s, source.candidates
        key = self._pacer.add(
            max(time.monotonic_ns(), self._begins_ns),
            offsets,
            lambda due: fire(next_request(), due, deadline_s, candidates),
        )
        self._active.add(key)
        return key

    def _schedule(self, source: Source) -> tuple[Iterator[int], Callable[[], tuple[Route, bytes] | None]]:
        options = self._options
        if options.trace is not None:
            trace, self._trace = self._trace, None
            return trace.offsets(self._end_trace) if trace is not None else iter(()), self._next_of(trace)
        return arrival_offsets(options.arrivals, options.user_rate, source.number, (options.seed,)), source.next_request

    def _next_of(self, trace: TracePlayer | None) -> Callable[[], tuple[Route, bytes] | None]:
        """The requests of a trace's rows."""
        choose = self._sender.context.router.choose_model

        def next_request() -> tuple[Route, bytes] | None:
            if trace is None:
                return None
            row = trace.next_row()
            route = choose(row.model)
            return None if route is None else (route, route.message_of_size(row.size))

        return next_request

    def _end_trace(self) -> None:
        # In a greenlet of its own: the pacer is about to fire the last arrival of the trace.
        gevent.spawn(self._on_trace_end)

    def remove(self, key: int) -> None:
        """Ends a source."""
        if self._pacer is not None:
            self._pacer.remove(key)
        self._active.discard(key)

    def begin_measuring(self) -> None:
        """Notes which sources are active as the measured part begins."""
        self._active_at_begin = set(self._active)

    def planned_rates(self) -> list[float]:
        """Arrivals a second of each source; empty where there is no one plan for the whole measured part."""
        steady = self._active_at_begin == self._active
        return [self._options.user_rate] * len(self._active) if steady and not self._options.trace else []

    def close(self) -> None:
        """Ends all sources; what is overdue is still fired, so that it is counted."""
        if self._pacer is not None:
            pacer, self._pacer = self._pacer, None
            pacer.close()
