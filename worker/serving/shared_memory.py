"""Regions of shared memory (POSIX and CUDA) that clients register, so that messages need not carry their tensors.

POSIX shared memory is read and written through its descriptor, not mapped: a client that truncates it then gets an
error, where a mapping would end this process with SIGBUS.
"""

import _posixshmem  # type: ignore[import-not-found]  # CPython's own, which carries no types
import contextlib
import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from worker.errors import ServiceError, invalid_argument, unavailable
from worker.wire import StatusCode

_HANDLE_BYTES = 64  # sizeof(cudaIpcMemHandle_t)
_LAZY_PEER_ACCESS = 1  # cudaIpcMemLazyEnablePeerAccess
_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyKind


class Memory(Protocol):
    """Bytes that a client shares. Closed when nothing refers to it: not before the last output was written to it."""

    @property
    def size(self) -> int:
        """Size in bytes."""

    def read(self, offset: int, size: int) -> bytes:
        """Returns `size` bytes, or fewer where the memory ends."""

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Writes all of `data` at `offset`."""


class PosixMemory:
    """The POSIX shared memory object with the name `key`."""

    def __init__(self, key: str) -> None:
        try:
            self._descriptor: int = _posixshmem.shm_open(key, os.O_RDWR, mode=0o600)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise invalid_argument(f"shared memory {key!r} cannot be opened: {reason}") from None

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


class _Handle(ctypes.Structure):
    _fields_ = [("reserved", ctypes.c_char * _HANDLE_BYTES)]


def cuda_runtime(maps: Path = Path("/proc/self/maps")) -> Any:
    """Returns the CUDA runtime that torch has loaded: a second copy would have its own state.

    Raises ServiceError where this process has none.
    """
    for line in maps.read_text().splitlines():
        path = line.rpartition(" ")[2]
        if Path(path).name.startswith("libcudart.so"):
            return ctypes.CDLL(path)
    raise unavailable("the CUDA runtime is not loaded in this worker")


class CudaMemory:
    """`size` bytes of device memory of another process, by its IPC handle."""

    def __init__(self, library: Any, raw_handle: bytes, size: int) -> None:
        self._pointer: ctypes.c_void_p | None = None
        if len(raw_handle) != _HANDLE_BYTES:
            raise invalid_argument(f"a CUDA IPC handle has {_HANDLE_BYTES} bytes, not {len(raw_handle)}")
        handle = _Handle()
        ctypes.memmove(ctypes.byref(handle), raw_handle, _HANDLE_BYTES)
        pointer = ctypes.c_void_p()
        self._library = library
        self._check(library.cudaIpcOpenMemHandle(ctypes.byref(pointer), handle, _LAZY_PEER_ACCESS), "opened")
        self._pointer = pointer
        self.size = size

    def __del__(self) -> None:
        if self._pointer is not None:
            self._library.cudaIpcCloseMemHandle(self._pointer)

    def read(self, offset: int, size: int) -> bytes:
        buffer = ctypes.create_string_buffer(size)
        self._check(self._library.cudaMemcpy(buffer, self._at(offset), ctypes.c_size_t(size), _TO_HOST), "read")
        return buffer.raw

    def write(self, offset: int, data: bytes | memoryview) -> None:
        source = bytes(data)
        size = ctypes.c_size_t(len(source))
        self._check(self._library.cudaMemcpy(self._at(offset), ctypes.c_char_p(source), size, _TO_DEVICE), "written")

    def _at(self, offset: int) -> ctypes.c_void_p:
        assert self._pointer is not None
        return ctypes.c_void_p((self._pointer.value or 0) + offset)

    def _check(self, code: int, action: str) -> None:
        if code != 0:
            raise invalid_argument(f"the CUDA memory cannot be {action}: error {code} of the CUDA runtime")


@dataclass(frozen=True)
class MemoryRegion:
    """One registered region: `byte_size` bytes from `offset` of a memory. `key` is empty for CUDA memory."""

    name: str
    key: str
    offset: int
    byte_size: int
    memory: Memory
    device_id: int = 0


@dataclass(frozen=True)
class RegionSlice:
    """The part of a region that holds one tensor."""

    region: str
    memory: Memory
    offset: int
    byte_size: int

    def read(self) -> bytes:
        """Returns the bytes. Raises ServiceError where the memory has become too short."""
        data = self.memory.read(self.offset, self.byte_size)
        if len(data) != self.byte_size:
            raise self._too_short()
        return data

    def write(self, data: bytes | memoryview) -> None:
        """Writes a tensor. Raises ServiceError where it does not fit."""
        if len(data) > self.byte_size:
            raise invalid_argument(
                f"an output of {len(data)} bytes does not fit into {self.byte_size} bytes of shared memory"
            )
        if self.memory.size < self.offset + len(data):
            raise self._too_short()
        self.memory.write(self.offset, data)

    def _too_short(self) -> ServiceError:
        return invalid_argument(f"shared memory region {self.region} has become shorter since it was registered")


class MemoryRegions:
    """The registered regions of both sorts by name. Raises ServiceError for every error of the client."""

    def __init__(self) -> None:
        self._regions: dict[str, MemoryRegion] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Registers a region of POSIX shared memory."""
        self._check(name, byte_size)
        memory = PosixMemory(key)
        if offset + byte_size > memory.size:
            raise invalid_argument(f"shared memory {key!r} has {memory.size} bytes, fewer than offset + byte_size")
        self._regions[name] = MemoryRegion(name, key, offset, byte_size, memory)

    def register_cuda(self, name: str, raw_handle: bytes, device_id: int, byte_size: int) -> None:
        """Registers a region of CUDA memory by its IPC handle."""
        self._check(name, byte_size)
        memory = CudaMemory(cuda_runtime(), raw_handle, byte_size)
        self._regions[name] = MemoryRegion(name, "", 0, byte_size, memory, device_id)

    def _check(self, name: str, byte_size: int) -> None:
        if not name:
            raise invalid_argument("a shared memory region needs a name")
        if name in self._regions:
            raise ServiceError(StatusCode.ALREADY_EXISTS, f"shared memory region {name!r} is registered already")
        if byte_size < 1:
            raise invalid_argument(f"shared memory region {name!r} needs a byte_size of at least 1")

    def unregister(self, name: str, *, cuda: bool = False) -> None:
        """Removes one region, or all of this sort where the name is empty. A region that does not exist is no error."""
        for region in self._of_sort(cuda):
            if name in ("", region.name):
                del self._regions[region.name]

    def status(self, name: str, *, cuda: bool = False) -> list[MemoryRegion]:
        """Returns one region, or all of this sort where the name is empty."""
        regions = [region for region in self._of_sort(cuda) if name in ("", region.name)]
        if name and not regions:
            raise ServiceError(StatusCode.NOT_FOUND, f"shared memory region {name!r} is not registered")
        return regions

    def _of_sort(self, cuda: bool) -> list[MemoryRegion]:
        return [region for region in self._regions.values() if isinstance(region.memory, PosixMemory) is not cuda]

    def slice_of(self, parameters: Mapping[str, Any], exact_bytes: int | None = None) -> RegionSlice:
        """Returns the part of a region that a tensor's parameters name; it must have `exact_bytes` where given."""
        name = parameters["shared_memory_region"].string_param
        region = self._regions.get(name)
        if region is None:
            raise invalid_argument(f"shared memory region {name!r} is not registered")
        size = parameters["shared_memory_byte_size"].int64_param if "shared_memory_byte_size" in parameters else 0
        offset = parameters["shared_memory_offset"].int64_param if "shared_memory_offset" in parameters else 0
        if size < 1 or offset < 0 or offset + size > region.byte_size:
            raise invalid_argument(
                f"{size} bytes at {offset} are not inside region {name!r} of {region.byte_size} bytes"
            )
        if exact_bytes is not None and size != exact_bytes:
            raise invalid_argument(f"the tensor has {exact_bytes} bytes, but its shared memory {size}")
        return RegionSlice(name, region.memory, region.offset + offset, size)
