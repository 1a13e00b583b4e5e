"""Accelerators of this host: one file per kind, their discovery, and the registry of kinds."""

from worker.accelerators.cpu import available_cores, usable_memory_bytes
from worker.accelerators.kind import EI_TOOL, Accelerator, AcceleratorKind, KindOptions
from worker.accelerators.registry import (
    KINDS,
    discover_accelerators,
    make_kind,
    parse_accelerator,
    parse_accelerators,
)

__all__ = [
    "EI_TOOL",
    "KINDS",
    "Accelerator",
    "AcceleratorKind",
    "KindOptions",
    "available_cores",
    "discover_accelerators",
    "make_kind",
    "parse_accelerator",
    "parse_accelerators",
    "usable_memory_bytes",
]
