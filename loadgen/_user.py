"""The user class: when a request is due, it sends it and records what came of it. Public as `loadgen.InferenceUser`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
from gevent.event import Event
from locust import User
from locust.user.task import LOCUST_STATE_RUNNING, LOCUST_STATE_STOPPING

from loadgen import _plugin
from loadgen._reply import UNAVAILABLE
from loadgen._session import Session

#: How long a closed user waits after UNAVAILABLE.
PAUSE_WHILE_DOWN_S = 0.1


class InferenceUser(User):
    """One user of the targets: one request in flight where --arrivals is closed, else one source of arrivals.

    Subclass it in a locustfile of your own, and it does what `locust -f loadgen/` does: options, targets, measures and
    reports come with it.
    """

    abstract = True

    def requests(self) -> Iterator[bytes]:
        """Serialized ModelInferRequest messages, one a request; the model's own by default, without end."""
        message = self._route.payload.message
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
        self._route = session.pin()
        self._asked_to_stop = Event()
        try:
            self.on_start()
            if session.options.is_open:
                self._run_open(session)
            else:
                self._run_closed(session)
        except gevent.GreenletExit:
            pass
        finally:
            self.on_stop()

    def _run_closed(self, session: Session) -> None:
        for message in self.requests():
            route = session.choose(self._route) if session.issuing and self._is_running else None
            if route is None:
                return
            if session.call(route, message).code == UNAVAILABLE:
                # It came back at once: a loop without a pause would count millions of errors and let nothing else run.
                self._asked_to_stop.wait(PAUSE_WHILE_DOWN_S)

    def _run_open(self, session: Session) -> None:
        source = session.source(self._route, self.requests())
        try:
            self._asked_to_stop.wait()
        finally:
            session.silence(source)

    @property
    def _is_running(self) -> bool:
        return bool(self._state == LOCUST_STATE_RUNNING)

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
