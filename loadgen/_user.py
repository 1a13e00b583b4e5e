"""The user class: it sends each request when it is due and records the result. Public as `loadgen.InferenceUser`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import gevent
import numpy as np
import numpy.typing as npt
from gevent.event import Event
from locust import User
from locust.user.task import LOCUST_STATE_RUNNING, LOCUST_STATE_STOPPING

from loadgen import _locust
from loadgen._errors import InputError
from loadgen.generator import LoadSession
from loadgen.targets import Route
from loadgen.transport import UNAVAILABLE
from worker.wire import FormatError, parse_duration_ns

#: How long a user of a closed loop waits after a reply UNAVAILABLE.
PAUSE_AFTER_UNAVAILABLE_S = 0.1

_logger = logging.getLogger(__name__)

#: What `requests` may yield: tensors by input name, or a serialized ModelInferRequest.
Request = bytes | Mapping[str, npt.NDArray[np.generic]]


class InferenceUser(User):
    """One user of the targets.

    With `--arrivals closed` a user has one request in flight at a time. In the other modes a user is one source of
    arrivals, `--user-rate` a second, and any number of its requests may be in flight.

    A locustfile that defines a subclass gets what `locust -f loadgen/` has: options, targets, measures and reports.
    Other users of Locust may run beside it; their figures are Locust's own and are not part of the run directory.

    A subclass may override:

    - `target`, `model` and `deadline`, the class attributes below,
    - `requests`, which yields what the user sends,
    - `on_start` and `on_stop`, which Locust's documentation describes,
    - `weight` and `fixed_count`, likewise.

    It may not override `run`, `stop`, `wait` and `tasks`. Wrong input (an unknown target or model, a deadline that is
    no duration, a request that does not fit the model) ends the run with one line and exit code 2.
    """

    abstract = True

    #: The one address, HOST:PORT, of the run's targets that this user sends to; empty: any.
    target: str = ""
    #: The model that this user's targets serve; empty: any.
    model: str = ""
    #: The deadline of this user's requests, for example "250ms"; empty: --deadline.
    deadline: str = ""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        _locust.install(InferenceUser)

    def requests(self) -> Iterator[Request]:
        """Yields one request after another; the user ends with the iterator. By default, the model's own request,
        without end."""
        message = self._pinned.payload.message
        while True:
            yield message

    #: Locust's task ratio and web UI show the tasks of a user.
    tasks = [requests]  # noqa: RUF012

    # Locust marks `run` final because the loop of a TaskSet depends on it. A loop of our own replaces it, as in
    # Locust's PytestUser, since one task per request would cost more than the request.
    def run(self) -> None:
        """Sends requests until the user is stopped. Locust calls it in the user's greenlet."""
        session = _locust.current_session()
        if session is None:
            return
        self._state = LOCUST_STATE_RUNNING
        self._stop_requested = Event()
        try:
            self._candidates = session.router.candidates(self.target, self.model)
            self._pinned = session.router.pin(self._candidates)
            self._deadline_s = self._own_deadline_s()
        except InputError as error:
            _locust.abort(self.environment, error)
            return
        try:
            self.on_start()
            self._requests = iter(self.requests())
            if session.options.is_open:
                self._run_open(session)
            else:
                self._run_closed(session)
        except gevent.GreenletExit:
            pass
        except Exception as error:
            # As Locust does for its own tasks: the exception is counted, and the exit code is not 0.
            self.environment.events.user_error.fire(user_instance=self, exception=error, tb=error.__traceback__)
            _logger.exception("a user of class %s ended with an exception", type(self).__name__)
        finally:
            self.on_stop()

    def _own_deadline_s(self) -> float | None:
        """Returns this class's deadline; None for --deadline. Raises InputError."""
        if not self.deadline:
            return None
        try:
            return parse_duration_ns(self.deadline) / 1e9
        except FormatError as error:
            raise InputError(f"deadline of {type(self).__name__}: {error}") from None

    def _next(self, session: LoadSession) -> tuple[Route, bytes] | None:
        """Returns the next request and its route; None if there is none, or if no route may take it."""
        route = session.router.choose(self._pinned, self._candidates)
        request = next(self._requests, None) if route is not None else None
        if route is None or request is None:
            return None
        # The default request was built for the pinned target; another target may serve another model.
        if request is self._pinned.payload.message:
            return route, route.payload.message
        try:
            return route, route.encode(request)
        except InputError as error:
            _locust.abort(self.environment, error)
            return None

    def _run_closed(self, session: LoadSession) -> None:
        while session.issuing and self._state == LOCUST_STATE_RUNNING:
            if (request := self._next(session)) is None:
                return
            if session.call(*request, self._deadline_s, self._candidates) == UNAVAILABLE:
                # The reply came at once: a loop without a pause would count millions of errors and block the process.
                self._stop_requested.wait(PAUSE_AFTER_UNAVAILABLE_S)

    def _run_open(self, session: LoadSession) -> None:
        source = session.add_source(lambda: self._next(session), self._pinned, self._candidates, self._deadline_s)
        try:
            self._stop_requested.wait()
        finally:
            session.remove_source(source)

    def stop(self, force: bool = False) -> bool:
        """Asks the user to end after its request in flight, which takes at most the deadline. Returns whether it has
        ended already."""
        if self._state is None:
            self._group.killone(self._greenlet)
            return True
        self._state = LOCUST_STATE_STOPPING
        self._stop_requested.set()
        return False

    def wait(self) -> Any:
        """Does nothing: --arrivals sets the pace, not a wait between tasks."""
        return None
