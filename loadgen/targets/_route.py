"""A route to one target: its channel, its default request, its output check, its health and where its results go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from loadgen._options import Options
from loadgen.measure import ResultBuffer
from loadgen.targets._health import HealthChecker, health_check
from loadgen.targets._output_checks import OutputChecker, read_expected
from loadgen.targets._payloads import Payload, encode_request, file_tensors, named_tensors, random_tensors
from loadgen.targets._target import Target
from loadgen.transport import OK, WRONG_OUTPUT, Access, Channel, GrpcioChannel, Reply

INFER_METHOD = "/inference.GRPCInferenceService/ModelInfer"


class Transport(Protocol):
    """Carries requests: unary calls of one method of one address. A call that fails is a Reply, not an exception."""

    def prepare(self, payload: bytes) -> Any:
        """What `call` and `start` take in place of the bytes, for a payload that is sent many times."""

    def call(self, payload: Any, timeout_s: float | None = None) -> Reply:
        """Sends a request and waits for its reply. Blocks this greenlet only."""

    def start(self, payload: Any, timeout_s: float | None, done: Callable[[Reply], None]) -> Any:
        """Sends a request and returns at once; `done` is called exactly once and must not block."""

    @property
    def connected(self) -> bool:
        """False where a connection was there and is lost."""

    def renew(self, timeout_s: float) -> None:
        """The target is up: ends connections that do not answer and allows new ones. Blocks this greenlet only."""

    def close(self) -> None:
        """Closes the connections. Calls in flight end as CANCELLED."""


@dataclass
class Route:
    """One target as requests use it. `payload` is the default request; `prepared` is its message for the channel."""

    target: Target
    results: ResultBuffer
    channel: Transport
    payload: Payload
    prepared: Any
    outputs: OutputChecker
    health: HealthChecker
    _messages_by_size: dict[int, bytes] = field(default_factory=dict)

    def frame(self, message: bytes) -> Any:
        """The message as the channel sends it; the default one was prepared once."""
        return self.prepared if message is self.payload.message else message

    def reply_code(self, message: bytes, reply: Reply) -> int:
        """The reply's status code, or WRONG_OUTPUT where the status is OK and the output is not as expected."""
        if reply.code != OK:
            return reply.code
        if message is self.payload.message:
            return self.outputs.check(reply.payload)
        return OK if reply.payload else WRONG_OUTPUT

    def encode(self, request: bytes | Mapping[str, npt.NDArray[np.generic]]) -> bytes:
        """A user's request as a message: bytes as they are, tensors by name encoded for this target's model.

        Raises InputError where the model has no such input.
        """
        if isinstance(request, bytes):
            return request
        tensors = named_tensors(request, self.target.inputs)
        return encode_request(self.target.series.model, self.target.version, tensors).message

    def message_of_size(self, size: int | None) -> bytes:
        """The default request with the last open dimension of each input at `size`; None: the default request."""
        if size is None:
            return self.payload.message
        if size not in self._messages_by_size:
            shapes = {}
            for spec in self.target.inputs:
                shape = list(spec.example or (1 if length < 0 else length for length in spec.shape))
                if open_dimensions := [index for index, length in enumerate(spec.shape) if length < 0]:
                    shape[open_dimensions[-1]] = size
                shapes[spec.name] = tuple(shape)
            tensors = random_tensors(self.target.inputs, shapes)
            message = encode_request(self.target.series.model, self.target.version, tensors).message
            self._messages_by_size[size] = message
        return self._messages_by_size[size]


def open_routes(options: Options, targets: Sequence[Target], changed: Callable[[], None]) -> list[Route]:
    """Opens a route to each target. `changed` is called when the health of one of them changes.

    Raises InputError where no request can be built for a target.
    """
    expected = read_expected(options.expected) if options.expected else None
    routes = []
    for target in targets:
        if options.input_file is not None:
            tensors = file_tensors(options.input_file, target.inputs)
        else:
            tensors = random_tensors(target.inputs, options.input_shapes)
        payload = encode_request(target.series.model, target.version, tensors)
        channel = _open_transport(options, target.address)
        outputs = OutputChecker(options.check_outputs, expected)
        results = ResultBuffer(target.series)
        health = HealthChecker(results, channel, health_check(target.address, options.access), changed)
        routes.append(Route(target, results, channel, payload, channel.prepare(payload.message), outputs, health))
    return routes


def _open_transport(options: Options, address: str) -> Transport:
    """The transport of --transport to one address, with its connections and credentials."""
    access: Access = options.access
    if options.transport == "grpcio":
        return GrpcioChannel(address, method=INFER_METHOD, access=access)
    return Channel(
        address,
        method=INFER_METHOD,
        connections=options.connections,
        security=access.security,
        token=access.token,
    )
