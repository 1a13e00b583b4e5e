"""The run's token, and the seal that every message of a generator carries to the master.

The token stays in the process that it was given to: it is in no option, since Locust sends those to every worker.
"""

from __future__ import annotations

import argparse
import hmac
import os
import secrets
import struct
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

TOKEN_VARIABLE = "INFERLOAD_RUN_TOKEN"
#: A seal is the message's number and this digest of who sent it, the number, and the message.
_DIGEST = "sha256"
_NUMBER = struct.Struct(">Q")
_NAME = struct.Struct(">I")
SEAL_BYTES = _NUMBER.size + 32

# Made before `--processes` forks, so that a master and its own children share it and nobody else does.
_private = secrets.token_bytes(32)
_token = b""
# Of this process; it starts at the clock so that a number is never used twice under one name.
numbers = count(time.time_ns())


def take_token(text: str) -> str:
    """Keeps the token of the command line, else of the environment. Returns what the options show of it: nothing."""
    global _token
    if given := text or os.environ.get(TOKEN_VARIABLE, ""):
        _token = given.encode()
    return ""


def take_token_file(path: str) -> str:
    """As `take_token`, from a file of one line: nothing of the token is in the list of processes."""
    try:
        text = Path(path).read_text(encoding="utf-8").strip() if path else ""
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{path}: {getattr(error, 'strerror', None) or 'not a text'}") from None
    if path and not text:
        raise argparse.ArgumentTypeError(f"{path}: there is no token in it")
    return take_token(text)


def register_options(parser: Any) -> None:
    """Adds the options of the run's token to Locust's parser."""
    group = parser.add_argument_group("inferload, several generators", "Which processes may take part in the run.")
    group.add_argument(
        "--run-token",
        default="",
        type=take_token,
        metavar="TOKEN",
        help=f"Generators without it are refused; every process needs it, best in {TOKEN_VARIABLE} or in a file.",
    ).include_in_web_ui = False
    group.add_argument(
        "--run-token-file",
        default="",
        type=take_token_file,
        metavar="FILE",
        help="The run's token, from a file: the list of processes does not show it.",
    ).include_in_web_ui = False


def secret() -> bytes:
    """What this process seals with; empty where anybody may take part."""
    return _token or (_private if only_forks() else b"")


def only_forks() -> bool:
    """Whether nobody but the forks of one command can take part in this run."""
    return not _token and _forks_its_workers(sys.argv[1:])


def _forks_its_workers(arguments: Sequence[str]) -> bool:
    forks = any(word.partition("=")[0] == "--processes" for word in arguments) or "LOCUST_PROCESSES" in os.environ
    return forks and "--worker" not in arguments and "LOCUST_MODE_WORKER" not in os.environ


def seal(key: bytes, name: bytes, number: int, body: bytes) -> bytes:
    """The seal of a message by the client of this name."""
    head = _NUMBER.pack(number)
    return head + hmac.digest(key, _NAME.pack(len(name)) + name + head + body, _DIGEST)


def opened(key: bytes, name: bytes, body: bytes, sealed: bytes) -> int | None:
    """The message's number where the seal is right; None where it is not."""
    if len(sealed) != SEAL_BYTES:
        return None
    (number,) = _NUMBER.unpack_from(sealed)
    return int(number) if hmac.compare_digest(seal(key, name, number, body), sealed) else None
