"""Regions of shared memory that clients register, so that tensors need not travel.

POSIX shared memory is read and written through its descriptor, not mapped: a client that cuts a region short then gets
an error, where a mapping would end this process with SIGBUS.
"""

import _posixshmem  # type: ignore[import-not-found]  # CPython's own, which carries no types
import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from worker.errors import Refused, invalid


class Memory(Protocol):
    """Bytes that a client has, too. Closed when nothing refers to it: not before the last answer that lies in it."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes, or fewer where the memory ends."""

    def write(self, offset: int, data: bytes | memoryview) -> None: ...


class PosixObject:
    """What shm_open calls `key`."""

    def __init__(self, key: str) -> None:
        try:
            self._descriptor: int = _posixshmem.shm_open(key, os.O_RDWR, mode=0o600)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise invalid(f"shared memory {key!r} cannot be opened: {reason}") from None

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.close(self._descriptor)

    @property
    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        os.pwrite(self._descriptor, data, offset)


@dataclass(frozen=True)
class Region:
    """One registered region: `byte_size` bytes from `offset` of a memory. `key` is empty for CUDA memory."""

    name: str
    key: str
    offset: int
    byte_size: int
    memory: Memory
    device_id: int = 0


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a region."""

    region: str
    memory: Memory
    offset: int
    byte_size: int

    def read(self) -> bytes:
        data = self.memory.read(self.offset, self.byte_size)
        if len(data) != self.byte_size:
            raise self._shorter()
        return data

    def write(self, data: bytes | memoryview) -> None:
        if len(data) > self.byte_size:
            raise invalid(f"an output of {len(data)} bytes does not fit the {self.byte_size} bytes given for it")
        if self.memory.size < self.offset + len(data):
            raise self._shorter()
        self.memory.write(self.offset, data)

    def _shorter(self) -> Refused:
        return invalid(f"shared memory region {self.region} has become shorter than it was registered")


class Regions:
    """The registered regions, by name, of both sorts. Refused in every case that is the client's error."""

    def __init__(self) -> None:
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """A region of POSIX shared memory."""
        self._check(name, byte_size)
        memory = PosixObject(key)
        if offset + byte_size > memory.size:
            raise invalid(f"shared memory {key!r} has {memory.size} bytes, fewer than offset and byte_size ask for")
        self._regions[name] = Region(name, key, offset, byte_size, memory)

    def register_cuda(self, name: str, raw_handle: bytes, device_id: int, byte_size: int) -> None:
        """A region of CUDA memory, by its IPC handle."""
        from worker.serving import cuda_memory as cudamemory

        self._check(name, byte_size)
        memory = cudamemory.CudaObject(cudamemory.runtime(), raw_handle, byte_size)
        self._regions[name] = Region(name, "", 0, byte_size, memory, device_id)

    def _check(self, name: str, byte_size: int) -> None:
        if not name:
            raise invalid("a shared memory region needs a name")
        if name in self._regions:
            raise Refused(grpc.StatusCode.ALREADY_EXISTS, f"shared memory region {name!r} is registered already")
        if byte_size < 1:
            raise invalid(f"shared memory region {name!r} has no byte_size")

    def unregister(self, name: str, *, cuda: bool = False) -> None:
        """Forgets one region, or all of this sort where the name is empty. One that is not there is no error."""
        for region in self._of_sort(cuda):
            if name in ("", region.name):
                del self._regions[region.name]

    def status(self, name: str, *, cuda: bool = False) -> list[Region]:
        found = [region for region in self._of_sort(cuda) if name in ("", region.name)]
        if name and not found:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"shared memory region {name!r} is not registered")
        return found

    def _of_sort(self, cuda: bool) -> list[Region]:
        return [region for region in self._regions.values() if isinstance(region.memory, PosixObject) is not cuda]

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
        return Place(name, region.memory, region.offset + offset, size)
