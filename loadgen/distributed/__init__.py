"""Runs with many generators: snapshots to the master, validation and signing of messages, clock sync, local logs."""

from loadgen.distributed._clock_sync import answer_pings
from loadgen.distributed._generator_node import GeneratorNode
from loadgen.distributed._links import GeneratorLink, MasterLink
from loadgen.distributed._remote_generators import RemoteGenerators
from loadgen.distributed._signing import TOKEN_VARIABLE, MessageSigner, RunToken
from loadgen.distributed._validator import MessageValidator

__all__ = [
    "TOKEN_VARIABLE",
    "GeneratorLink",
    "GeneratorNode",
    "MasterLink",
    "MessageSigner",
    "MessageValidator",
    "RemoteGenerators",
    "RunToken",
    "answer_pings",
]
