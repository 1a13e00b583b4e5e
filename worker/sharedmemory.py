"""Regions of POSIX shared memory that clients register, so that tensors need not travel.

They are read and written through their descriptors, not mapped: a client that cuts a region short then gets an error,
where a mapping would end this process with SIGBUS.
"""

import _posixshmem  # type: ignore[import-not-found]  # CPython's own, which carries no types
import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from worker.errors import Refused, invalid


class Object:
    """A shared memory object, closed when nothing refers to it: not before the last answer that lies in it."""

    def __init__(self, key: str) -> None:
        self.descriptor: int = _posixshmem.shm_open(key, os.O_RDWR, mode=0o600)

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.close(self.descriptor)

    @property
    def size(self) -> int:
        return os.fstat(self.descriptor).st_size


@dataclass(frozen=True)
class Region:
    """One registered region: `byte_size` bytes from `offset` of the object that shm_open calls `key`."""

    name: str
    key: str
    offset: int
    byte_size: int
    object: Object


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a region."""

    region: str
    object: Object
    offset: int
    byte_size: int

    def read(self) -> bytes:
        data = os.pread(self.object.descriptor, self.byte_size, self.offset)
        if len(data) != self.byte_size:
            raise invalid(f"shared memory region {self.region} has become shorter than it was registered")
        return data

    def write(self, data: bytes | memoryview) -> None:
        if len(data) > self.byte_size:
            raise invalid(f"an output of {len(data)} bytes does not fit the {self.byte_size} bytes given for it")
        if self.object.size < self.offset + len(data):
            raise invalid(f"shared memory region {self.region} has become shorter than it was registered")
        os.pwrite(self.object.descriptor, data, self.offset)


class Regions:
    """The registered regions, by name. Refused in every case that is the client's error."""

    def __init__(self) -> None:
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        if not name:
            raise invalid("a shared memory region needs a name")
        if name in self._regions:
            raise Refused(grpc.StatusCode.ALREADY_EXISTS, f"shared memory region {name!r} is registered already")
        if byte_size < 1:
            raise invalid(f"shared memory region {name!r} has no byte_size")
        try:
            opened = Object(key)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise invalid(f"shared memory {key!r} cannot be opened: {reason}") from None
        if offset + byte_size > opened.size:
            raise invalid(f"shared memory {key!r} has {opened.size} bytes, fewer than offset and byte_size ask for")
        self._regions[name] = Region(name, key, offset, byte_size, opened)

    def unregister(self, name: str) -> None:
        """Forgets one region, or all where the name is empty. A name that is not there is no error, as in Triton."""
        if name:
            self._regions.pop(name, None)
        else:
            self._regions.clear()

    def status(self, name: str) -> list[Region]:
        if name and name not in self._regions:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"shared memory region {name!r} is not registered")
        return [self._regions[name]] if name else list(self._regions.values())

    def place(self, parameters: Mapping[str, Any], wanted: int, *, exact: bool) -> Place:
        """Where the parameters of a tensor say that it lies. `exact`: it must have `wanted` bytes."""
        name = parameters["shared_memory_region"].string_param
        region = self._regions.get(name)
        if region is None:
            raise invalid(f"shared memory region {name!r} is not registered")
        size = parameters["shared_memory_byte_size"].int64_param if "shared_memory_byte_size" in parameters else 0
        offset = parameters["shared_memory_offset"].int64_param if "shared_memory_offset" in parameters else 0
        if size < 1 or offset < 0 or offset + size > region.byte_size:
            raise invalid(f"{size} bytes at {offset} are not inside region {name!r} of {region.byte_size} bytes")
        if exact and size != wanted:
            raise invalid(f"{size} bytes in shared memory where the tensor has {wanted}")
        return Place(name, region.object, region.offset + offset, size)
