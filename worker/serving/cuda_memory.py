"""CUDA memory that a client shares by an IPC handle, through the CUDA runtime that torch has loaded."""

import ctypes
from pathlib import Path
from typing import Any

from worker.errors import Refused, invalid, unavailable

_HANDLE_BYTES = 64  # sizeof(cudaIpcMemHandle_t)
_LAZY_PEER_ACCESS = 1  # cudaIpcMemLazyEnablePeerAccess
_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyKind


class _Handle(ctypes.Structure):
    _fields_ = [("reserved", ctypes.c_char * _HANDLE_BYTES)]


def runtime(maps: Path = Path("/proc/self/maps")) -> Any:
    """The library already in this process: a second copy would have a state of its own. Refused where there is none."""
    for line in maps.read_text().splitlines():
        path = line.rpartition(" ")[2]
        if Path(path).name.startswith("libcudart.so"):
            return ctypes.CDLL(path)
    raise unavailable("the CUDA runtime is not loaded in this worker")


class CudaObject:
    """`size` bytes of device memory in another process. Closed when nothing refers to it."""

    def __init__(self, library: Any, raw_handle: bytes, size: int) -> None:
        self._pointer: ctypes.c_void_p | None = None
        if len(raw_handle) != _HANDLE_BYTES:
            raise invalid(f"a CUDA IPC handle has {_HANDLE_BYTES} bytes, not {len(raw_handle)}")
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
        copied = bytes(data)
        size = ctypes.c_size_t(len(copied))
        self._check(self._library.cudaMemcpy(self._at(offset), ctypes.c_char_p(copied), size, _TO_DEVICE), "written")

    def _at(self, offset: int) -> ctypes.c_void_p:
        assert self._pointer is not None
        return ctypes.c_void_p((self._pointer.value or 0) + offset)

    def _check(self, code: int, what: str) -> None:
        if code != 0:
            raise _failed(code, what)


def _failed(code: int, what: str) -> Refused:
    return invalid(f"the CUDA memory cannot be {what}: error {code} of the CUDA runtime")
