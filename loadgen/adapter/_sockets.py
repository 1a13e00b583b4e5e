"""Locust's ZeroMQ sockets with authentication: the master validates every message; generators sign theirs with HMAC.

Locust's own receiver ends at the first packet that it cannot read, and trusts the client name inside a message.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import gevent
import zmq
from locust.exception import RPCError, RPCSendError
from locust.rpc import Message, zmqrpc
from locust.util.exception_handler import retry

from loadgen._errors import MessageRefused
from loadgen.distributed import TOKEN_VARIABLE, MessageSigner, MessageValidator, RunToken

#: A packet above this ends its connection before it is read.
PACKET_LIMIT = 64 << 20


class ValidatingServer(zmqrpc.Server):
    """Locust's server socket; only messages that the validator accepts reach Locust's master.

    If only forks of this command can take part, the port is open on the loopback interface alone.
    """

    def __init__(self, validator: MessageValidator, token: RunToken, host: str, port: int) -> None:
        self._validator = validator
        if host == "*" and token.forks_only:
            host = "127.0.0.1"
        zmqrpc.BaseSocket.__init__(self, zmq.ROUTER, self.ipv4_only(host, port))
        # The limit has to be set before the port is open, and Locust's own constructor opens it at once.
        self.socket.setsockopt(zmq.MAXMSGSIZE, PACKET_LIMIT)
        try:
            if port == 0:
                self.port = self.socket.bind_to_random_port(f"tcp://{host}")
            else:
                self.socket.bind(f"tcp://{host}:{port}")
                self.port = port
        except zmq.ZMQError as error:
            raise RPCError(f"Socket bind failure: {error}") from error

    def recv_from_client(self) -> tuple[str, Any]:
        """Waits for the next accepted message. Returns its client's name and Locust's message object."""
        while True:
            try:
                parts = self.socket.recv_multipart()
            except zmq.ZMQError as error:
                raise RPCError("ZMQ network broken") from error
            try:
                message = self._validator.validate(parts)
            except MessageRefused as refusal:
                self._validator.refused[str(refusal)] += 1
                # A flood of refused packets must not block the other greenlets.
                gevent.sleep(0)
            else:
                return message.client, Message(message.type, message.data, message.client)


class SigningClient(zmqrpc.Client):
    """Locust's connection from a generator to the master; each message is followed by its signature as a part."""

    def __init__(self, signer: MessageSigner, host: str, port: int, identity: str) -> None:
        super().__init__(host, port, identity)
        self._signer = signer
        self._name = identity.encode()

    @retry()
    def send(self, msg: Any) -> None:
        """Sends a message without waiting. Raises RPCSendError if it cannot be queued."""
        body = msg.serialize()
        try:
            self.socket.send_multipart([body, self._signer.sign(self._name, body)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            raise RPCSendError("ZMQ sent failure") from error


class SocketReplacement:
    """Replaces the socket classes that Locust's runners open, and restores Locust's own.

    The replacement has to happen before Locust creates its runner, thus before a run exists.
    """

    def __init__(self, validator: MessageValidator, token: RunToken) -> None:
        self._validator = validator
        self._token = token
        self._locust_classes: tuple[Any, Any] | None = None

    def apply(self) -> None:
        """Replaces the classes, unless this was done before."""
        if self._locust_classes is None:
            self._locust_classes = zmqrpc.Server, zmqrpc.Client
            zmqrpc.Server = partial(ValidatingServer, self._validator, self._token)
            zmqrpc.Client = partial(SigningClient, MessageSigner(self._token))

    def restore(self) -> None:
        """Puts Locust's own classes back."""
        if self._locust_classes is not None:
            zmqrpc.Server, zmqrpc.Client = self._locust_classes
            self._locust_classes = None


def open_port_warning(bind_host: str, port: int, token: RunToken) -> str | None:
    """Returns a warning about a master's port that other hosts can reach; None if there is nothing to warn of."""
    if bind_host not in ("*", "0.0.0.0", "::") or (bind_host == "*" and token.forks_only):
        return None
    text = f"warning: port {port} is open on all interfaces of this host"
    if token.key:
        return f"{text}; messages of generators are signed, not encrypted. --master-bind-host selects an interface"
    return (
        f"{text}, and anybody who reaches it can take part in the run: --master-bind-host selects an interface, "
        f"and a --run-token-file (or {TOKEN_VARIABLE}) limits who may take part"
    )
