"""From a request to a target: what carries it, what is sent by default, and which target is next."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from loadgen._errors import InputError
from loadgen._options import Options
from loadgen.measure import ResultBuffer
from loadgen.targets._discovery import INFER_METHOD, Target
from loadgen.targets._health import HealthCheck, HealthChecker, health_error
from loadgen.targets._output_checks import OutputChecker, expected_from
from loadgen.targets._payloads import Payload, encode, file_tensors, named_tensors, random_tensors
from loadgen.transport._channel import Channel
from loadgen.transport._grpcio import GrpcioChannel
from loadgen.transport._reply import OK, WRONG_OUTPUT, Reply

#: What is asked of a target that is in doubt.
HEALTH_METHOD = "/grpc.health.v1.Health/Check"


class Transport(Protocol):
    """What carries a request: unary calls of one method of one address. A failed call is a Reply, not an exception."""

    def prepare(self, payload: bytes) -> Any:
        """What `call` and `start` take as well as the bytes, for a payload that is sent many times."""

    def call(self, payload: Any, timeout_s: float | None = None) -> Reply:
        """Blocks this greenlet only."""

    def start(self, payload: Any, timeout_s: float | None, done: Callable[[Reply], None]) -> Any:
        """Returns at once; `done` is called exactly once and must not block."""

    @property
    def connected(self) -> bool:
        """False where a connection was there and is gone."""

    def renew(self, timeout_s: float) -> None:
        """The target is known to be well: looks through the connections. Blocks this greenlet only."""

    def close(self) -> None:
        """Calls in flight end as CANCELLED."""


def transport(options: Options, address: str) -> Transport:
    """The transport of --transport to one address, with its connections and credentials."""
    access = options.access
    if options.transport == "grpcio":
        return GrpcioChannel(address, method=INFER_METHOD, access=access)
    return Channel(
        address,
        method=INFER_METHOD,
        connections=options.connections,
        security=access.security,
        token=access.token,
    )


def health_check(options: Options, address: str) -> HealthCheck:
    """A health check of one address, each time on a connection of its own: the others may be what is wrong."""
    security, token = options.access.security, options.access.token

    def check(timeout_s: float) -> str:
        for _ in range(2):
            began = time.monotonic()
            asked = Channel(address, method=HEALTH_METHOD, security=security, token=token, connect_timeout_s=timeout_s)
            try:
                wrong = health_error(asked.call(b"", timeout_s))
            finally:
                asked.close()
            # Where this process stood still meanwhile, nobody heard the answer: it is asked once more.
            if not wrong or time.monotonic() - began < 1.5 * timeout_s:
                break
        return wrong

    return check


@dataclass
class Route:
    """A target as the load path sees it: where to send, what to send by default, where the result goes."""

    target: Target
    results: ResultBuffer
    channel: Transport
    payload: Payload
    prepared: Any
    outputs: OutputChecker
    health: HealthChecker
    sizes: dict[int, bytes] = field(default_factory=dict)

    def frame(self, message: bytes) -> Any:
        """The message as the channel sends it; the default one was framed once, for all its requests."""
        return self.prepared if message is self.payload.message else message

    def verdict(self, message: bytes, reply: Reply) -> int:
        """The reply's code, or WRONG_OUTPUT where gRPC was content and the answer is not the right one."""
        if reply.code != OK:
            return reply.code
        if message is self.payload.message:
            return self.outputs.code(reply.payload)
        return OK if reply.payload else WRONG_OUTPUT

    def message_of(self, request: bytes | Mapping[str, npt.NDArray[np.generic]]) -> bytes:
        """What a user yields, as bytes: prepared ones as they are, tensors by name encoded for this target's model."""
        if isinstance(request, bytes):
            return request
        tensors = named_tensors(request, self.target.inputs)
        return encode(self.target.series.model, self.target.version, tensors).message

    def message_of_size(self, size: int) -> bytes:
        """The default request with the last open dimension of each input at `size`."""
        if size not in self.sizes:
            shapes = {}
            for spec in self.target.inputs:
                shape = list(spec.example or (1 if one < 0 else one for one in spec.shape))
                if opened := [index for index, one in enumerate(spec.shape) if one < 0]:
                    shape[opened[-1]] = size
                shapes[spec.name] = tuple(shape)
            tensors = random_tensors(self.target.inputs, shapes)
            self.sizes[size] = encode(self.target.series.model, self.target.version, tensors).message
        return self.sizes[size]


def open_routes(options: Options, targets: Sequence[Target], changed: Callable[[HealthChecker], None]) -> list[Route]:
    """One route for each target; `changed` follows what their health does. InputError where no request can be built."""
    expected = expected_from(options.expected) if options.expected else None
    routes = []
    for target in targets:
        if options.input_file is not None:
            tensors = file_tensors(options.input_file, target.inputs)
        else:
            tensors = random_tensors(target.inputs, options.input_shapes)
        payload = encode(target.series.model, target.version, tensors)
        channel = transport(options, target.address)
        outputs = OutputChecker(options.check_outputs, expected)
        results = ResultBuffer(target.series)
        health = HealthChecker(results, channel, health_check(options, target.address), changed)
        routes.append(Route(target, results, channel, payload, channel.prepare(payload.message), outputs, health))
    return routes


class Router:
    """Which route is next, by --router; a target that is down gets nothing, unless all are or users are pinned to it.

    `unwell` says that some route is down or only coming back. `first` and `step` keep several generators from all
    beginning with the same.
    """

    def __init__(self, name: str, routes: Sequence[Route], first: int, seed: int) -> None:
        self._name = name
        self._routes = list(routes)
        self._next_user = first
        self._next_request = first
        self._random = random.Random(f"{seed}/{first}")
        self.unwell = False

    def heed(self, health: HealthChecker) -> None:
        """A target's health has changed."""
        self.unwell = any(not route.health.up or route.health.ramping for route in self._routes)

    def another(self, route: Route, candidates: Sequence[Route] | None) -> Route | None:
        """Where to send a request once more that came back from `route`: to the same model, by the same rules."""
        model = route.target.series.model
        peers = [one for one in candidates or self._routes if one.target.series.model == model]
        return self.choose(route, peers)

    def candidates(self, address: str, model: str) -> list[Route]:
        """Routes that a user may take: all, or those of one address or one model. Raises InputError for none."""
        found = [
            route
            for route in self._routes
            if (not address or route.target.address == address) and (not model or route.target.series.model == model)
        ]
        if not found:
            wanted = " and ".join(filter(None, (address and f"address {address}", model and f"model {model}")))
            raise InputError(f"no target of this run has {wanted}")
        return found

    def pin(self, candidates: Sequence[Route]) -> Route:
        """The route of a new user: each in turn."""
        route = candidates[self._next_user % len(candidates)]
        self._next_user += 1
        return route

    def choose(self, pinned: Route, candidates: Sequence[Route]) -> Route | None:
        """The route of the next request; None where nothing may be sent any more."""
        if self._name == "pinned":
            return pinned if pinned.results.budget != 0 else None
        open_routes = [route for route in candidates if route.results.budget != 0]
        if not open_routes:
            return None
        if self.unwell:
            # With none left all are asked: what is due is due, and an error says more than silence.
            open_routes = [one for one in open_routes if one.health.takes(self._random.random())] or open_routes
        if self._name == "random":
            return self._random.choice(open_routes)
        self._next_request += 1
        turned = self._next_request % len(open_routes)
        if self._name == "round-robin":
            return open_routes[turned]
        # Ties go round, so that idle targets share alike.
        return min(open_routes[turned:] + open_routes[:turned], key=lambda route: route.results.outstanding)
