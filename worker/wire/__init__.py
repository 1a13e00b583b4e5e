"""What worker, load generator and analysis share: gRPC stubs (`make stubs` writes them from `proto/`), HTTP/2, and
plain formats. This file imports no stub, so that the plain formats stay cheap to import."""

from worker.wire.datatypes import DATA_TYPES, DataType
from worker.wire.durations import display_duration, format_duration, parse_duration_ns
from worker.wire.errors import FormatError
from worker.wire.status import StatusCode
from worker.wire.targets_file import TARGETS_FILE, TargetEntry, parse_targets, read_targets_file, write_targets_file

__all__ = [
    "DATA_TYPES",
    "TARGETS_FILE",
    "DataType",
    "FormatError",
    "StatusCode",
    "TargetEntry",
    "display_duration",
    "format_duration",
    "parse_duration_ns",
    "parse_targets",
    "read_targets_file",
    "write_targets_file",
]
