"""The user class: when a request is due, it sends it and records what came of it. Public as `loadgen.InferenceUser`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gevent
import numpy as np
import numpy.typing as npt
from gevent.event import Event
from locust import User
from locust.user.task import LOCUST_STATE_RUNNING, LOCUST_STATE_STOPPING

from loadgen import _locust as _plugin
from loadgen._errors import InputError
from loadgen.run._session import Session
from loadgen.targets._router import Route
from loadgen.transport._reply import UNAVAILABLE
from worker.wire import parse_duration_ns

#: How long a closed user waits after UNAVAILABLE.
PAUSE_WHILE_DOWN_S = 0.1

#: What `requests` may yield: tensors by input name, or a serialized ModelInferRequest.
Request = bytes | Mapping[str, npt.NDArray[np.generic]]


class InferenceUser(User):
    """One user of the targets: one request in flight where --arrivals is closed, else one source of arrivals.

    Subclass it in a locustfile of your own, and it does what `locust -f loadgen/` does: options, targets, measures and
    reports come with it. It mixes with Locust's other users, whose figures stay Locust's own.
    """

    abstract = True

    #: Only this address of the run's targets, HOST:PORT; empty: any.
    target: str = ""
    #: Only targets that serve this model; empty: any.
    model: str = ""
    #: A deadline of its own, such as "250ms"; empty: --deadline.
    deadline: str = ""

    def requests(self) -> Iterator[Request]:
        """One request after another; when it ends, the user ends. By default the model's own request, without end."""
        message = self._pinned.payload.message
        while True:
            yield message

    #: What Locust's task ratio and web UI show of this user.
    tasks = [requests]  # noqa: RUF012

    # Locust marks `run` final because a TaskSet's loop hangs on it; here a loop of our own takes its place, as Locust's
    # PytestUser does, since a task per request would cost more than the request.
    def run(self) -> None:
        """The life of this user, in its greenlet."""
        session = _plugin.current_session()
        if session is None:
            return
        self._state = LOCUST_STATE_RUNNING
        self._asked_to_stop = Event()
        try:
            self._candidates = session.router.candidates(self.target, self.model)
            self._pinned = session.router.pin(self._candidates)
            self._deadline_s = parse_duration_ns(self.deadline) / 1e9 if self.deadline else None
        except (InputError, ValueError) as error:
            _plugin.abort(self.environment, error)
            return
        try:
            self.on_start()
            self._given = iter(self.requests())
            if session.options.is_open:
                self._run_open(session)
            else:
                self._run_closed(session)
        except gevent.GreenletExit:
            pass
        finally:
            self.on_stop()

    def _next(self, session: Session) -> tuple[Route, bytes] | None:
        """The next request and where it goes; None where there is none, or it may not be sent."""
        route = session.router.choose(self._pinned, self._candidates)
        request = next(self._given, None) if route is not None else None
        if route is None or request is None:
            return None
        # The default request was built for the pinned target; another one may serve another model.
        if request is self._pinned.payload.message:
            return route, route.payload.message
        try:
            return route, route.message_of(request)
        except InputError as error:
            _plugin.abort(self.environment, error)
            return None

    def _run_closed(self, session: Session) -> None:
        while session.issuing and self._state == LOCUST_STATE_RUNNING:
            if (sendable := self._next(session)) is None:
                return
            if session.call(*sendable, self._deadline_s, self._candidates) == UNAVAILABLE:
                # It came back at once: a loop without a pause would count millions of errors and let nothing else run.
                self._asked_to_stop.wait(PAUSE_WHILE_DOWN_S)

    def _run_open(self, session: Session) -> None:
        source = session.source(lambda: self._next(session), self._pinned, self._candidates, self._deadline_s)
        try:
            self._asked_to_stop.wait()
        finally:
            session.silence(source)

    def stop(self, force: bool = False) -> bool:
        """Asks the user to end. It finishes the request in flight, which the deadline bounds: nothing is cut short."""
        if self._state is None:
            self._group.killone(self._greenlet)
            return True
        self._state = LOCUST_STATE_STOPPING
        self._asked_to_stop.set()
        return False

    def wait(self) -> Any:
        """Not used: pacing is --arrivals, not a wait between tasks."""
        return None


_plugin.install()
