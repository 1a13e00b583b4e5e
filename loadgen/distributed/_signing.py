"""The token that the processes of one run share, and the signature that every message of a generator carries."""

from __future__ import annotations

import argparse
import hmac
import secrets
import struct
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

TOKEN_VARIABLE = "INFERLOAD_RUN_TOKEN"
_DIGEST = "sha256"
_NUMBER = struct.Struct(">Q")
_NAME_LENGTH = struct.Struct(">I")
#: A signature is the message's number followed by an HMAC-SHA256 of the sender's name, the number and the message.
SIGNATURE_BYTES = _NUMBER.size + 32


class RunToken:
    """The secret of a run. It stays in this object: Locust sends all parsed options to every generator.

    The token comes from the command line, from a file, or from the environment variable INFERLOAD_RUN_TOKEN. Without
    one, a command that forks its generators (`--processes`) uses a random key that only its forks inherit.

    Args:
        arguments: the command line of this process, without the program's name.
        environment: the environment variables of this process.
    """

    def __init__(self, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> None:
        environment = environment or {}
        self._token = environment.get(TOKEN_VARIABLE, "").encode()
        # Created before Locust forks, so that a master and its forks share it and no other process has it.
        self._fork_key = secrets.token_bytes(32)
        self._forks_generators = (
            any(argument.partition("=")[0] == "--processes" for argument in arguments)
            or "LOCUST_PROCESSES" in environment
        ) and not ("--worker" in arguments or "LOCUST_MODE_WORKER" in environment)

    @property
    def key(self) -> bytes:
        """The HMAC key of this run; empty if any process may take part."""
        return self._token or (self._fork_key if self.forks_only else b"")

    @property
    def forks_only(self) -> bool:
        """Whether only forks of this command can take part in the run."""
        return self._forks_generators and not self._token

    def add_options(self, parser: Any) -> None:
        """Adds --run-token and --run-token-file to Locust's parser. Their parsed values are empty strings."""
        group = parser.add_argument_group("inferload, several generators", "Which processes may take part in the run.")
        token = group.add_argument(
            "--run-token",
            default="",
            type=self.set,
            metavar="TOKEN",
            help=f"Generators without it are refused; every process needs it, best in {TOKEN_VARIABLE} or in a file.",
        )
        file = group.add_argument(
            "--run-token-file",
            default="",
            type=self.read_file,
            metavar="FILE",
            help="The run's token, from a file: the list of processes does not show it.",
        )
        # An argparse group does not take Locust's keyword of this name.
        token.include_in_web_ui = file.include_in_web_ui = False

    def set(self, text: str) -> str:
        """Takes the token unless `text` is empty. Returns "", which is what the parsed options show."""
        if text:
            self._token = text.encode()
        return ""

    def read_file(self, path: str) -> str:
        """Takes the token from a file of one line. Returns "". Raises argparse.ArgumentTypeError for a useless file."""
        if not path:
            return ""
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise argparse.ArgumentTypeError(f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
        if not text:
            raise argparse.ArgumentTypeError(f"{path}: the file is empty, expected a token")
        return self.set(text)


class MessageSigner:
    """Signs the messages of this process; each signature carries a number that is never used twice."""

    def __init__(self, token: RunToken) -> None:
        self._token = token
        # Starts at the clock, so that a process that is started again under the same name uses higher numbers.
        self._numbers = count(time.time_ns())

    def sign(self, client: bytes, body: bytes) -> bytes:
        """Returns the signature of a message that `client` sends."""
        return sign(self._token.key, client, next(self._numbers), body)


def sign(key: bytes, client: bytes, number: int, body: bytes) -> bytes:
    """Returns the signature of message `number` of a client: SIGNATURE_BYTES bytes."""
    head = _NUMBER.pack(number)
    return head + hmac.digest(key, _NAME_LENGTH.pack(len(client)) + client + head + body, _DIGEST)


def verify(key: bytes, client: bytes, body: bytes, signature: bytes) -> int | None:
    """Returns the message's number if the signature is valid, else None."""
    if len(signature) != SIGNATURE_BYTES:
        return None
    (number,) = _NUMBER.unpack_from(signature)
    return int(number) if hmac.compare_digest(sign(key, client, number, body), signature) else None
