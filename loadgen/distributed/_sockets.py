"""Both ends of Locust's connection: the master's socket behind its door, and the generator's, which seals what it says.

Locust's own receiver ends at the first packet that it cannot read, and believes the name that a message gives itself.
"""

from __future__ import annotations

from typing import Any

import gevent
import zmq
from locust.exception import RPCError, RPCSendError
from locust.rpc import Message, zmqrpc
from locust.util.exception_handler import retry

from loadgen.distributed._signing import numbers, only_forks, seal, secret
from loadgen.distributed._validator import MALFORMED, Refused, door

#: A packet above this ends its connection before it is read.
LARGEST = 64 << 20


class Gate(zmqrpc.Server):
    """Locust's server socket, behind the door."""

    def __init__(self, host: str, port: int) -> None:
        if host == "*" and only_forks():
            # Nobody from elsewhere could take part.
            host = "127.0.0.1"
        zmqrpc.BaseSocket.__init__(self, zmq.ROUTER, self.ipv4_only(host, port))
        # Has to be said before the port is open; Locust's own constructor opens it at once.
        self.socket.setsockopt(zmq.MAXMSGSIZE, LARGEST)
        try:
            if port == 0:
                self.port = self.socket.bind_to_random_port(f"tcp://{host}")
            else:
                self.socket.bind(f"tcp://{host}:{port}")
                self.port = port
        except zmq.ZMQError as error:
            raise RPCError(f"Socket bind failure: {error}") from error

    def recv_from_client(self) -> tuple[str, Any]:
        """The next message that is let in, and whose it is."""
        while True:
            try:
                parts = self.socket.recv_multipart()
            except zmq.ZMQError as error:
                raise RPCError("ZMQ network broken") from error
            try:
                said = door.admit(parts)
                return said.client, Message(said.type, said.data, said.client)
            except Refused as refused:
                door.refused[str(refused)] += 1
                # A flood of them must not keep everything else from running.
                gevent.sleep(0)


class SealedClient(zmqrpc.Client):
    """Locust's connection from a worker to its master, with the seal as a part of its own behind each message."""

    def __init__(self, host: str, port: int, identity: str) -> None:
        super().__init__(host, port, identity)
        self._name = identity.encode()

    @retry()
    def send(self, msg: Any) -> None:
        """As Locust's: never waits, RPCSendError where the message cannot be queued."""
        body = msg.serialize()
        try:
            self.socket.send_multipart([body, seal(secret(), self._name, next(numbers), body)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            raise RPCSendError("ZMQ sent failure") from error


def install() -> None:
    """Puts both in the place of Locust's own."""
    zmqrpc.Server, zmqrpc.Client = Gate, SealedClient


def guard(runner: Any) -> None:
    """Messages that somebody registered for come in, and what handling one raises ends that message alone."""
    door.custom = runner.custom_messages
    handle = runner.handle_message

    def handle_message(client: str, message: Any) -> None:
        try:
            handle(client, message)
        except Exception:
            door.refused[MALFORMED] += 1

    runner.handle_message = handle_message
