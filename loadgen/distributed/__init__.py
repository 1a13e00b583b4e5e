"""Runs with many generators: snapshots to the master, validation and signing of messages, clock sync, local logs."""

from loadgen.distributed._generator import Generator
from loadgen.distributed._links import GeneratorLink, MasterLink
from loadgen.distributed._master import Master
from loadgen.distributed._signing import TOKEN_VARIABLE, MessageSigner, RunToken
from loadgen.distributed._validator import MessageValidator

__all__ = [
    "TOKEN_VARIABLE",
    "Generator",
    "GeneratorLink",
    "Master",
    "MasterLink",
    "MessageSigner",
    "MessageValidator",
    "RunToken",
]
