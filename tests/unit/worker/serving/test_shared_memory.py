"""Shared memory is read and written where the client said, nowhere else, and a client cannot bring the worker down."""

import ctypes
import gc
import os
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import pytest

from worker.errors import ServiceError
from worker.serving import shared_memory
from worker.serving.shared_memory import MemoryRegions, cuda_runtime
from worker.wire import open_inference_pb2 as oip


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    shared = SharedMemory(create=True, size=4096)
    shared.buf[:4] = b"abcd"
    yield shared
    shared.close()
    shared.unlink()


def parameters(region: str, size: int, offset: int = 0) -> dict[str, oip.InferParameter]:
    return {
        "shared_memory_region": oip.InferParameter(string_param=region),
        "shared_memory_byte_size": oip.InferParameter(int64_param=size),
        "shared_memory_offset": oip.InferParameter(int64_param=offset),
    }


def test_a_region_is_a_part_of_the_object(memory: SharedMemory) -> None:
    regions = MemoryRegions()
    regions.register("r", f"/{memory.name.lstrip('/')}", 1, 16)
    part = regions.slice_of(parameters("r", 2, 1), 2)
    assert part.read() == b"cd"
    part.write(b"XY")
    assert bytes(memory.buf[:5]) == b"abXY\0"
    assert [(r.name, r.offset, r.byte_size) for r in regions.status("")] == [("r", 1, 16)]


@pytest.mark.parametrize(("size", "offset"), [(17, 0), (1, 16), (0, 0), (-1, 0), (1, -1), (2**62, 2**62)])
def test_nothing_outside_the_region_is_reached(memory: SharedMemory, size: int, offset: int) -> None:
    regions = MemoryRegions()
    regions.register("r", memory.name, 0, 16)
    with pytest.raises(ServiceError, match="are not inside region"):
        regions.slice_of(parameters("r", size, offset))


@pytest.mark.parametrize("key", ["/none-such", "", "a/b", "/../etc/passwd", "nul\0", "x" * 5000])
def test_a_key_that_cannot_be_opened_is_refused(key: str) -> None:
    with pytest.raises(ServiceError, match="cannot be opened"):
        MemoryRegions().register("r", key, 0, 1)


def test_names_are_used_once_and_forgotten(memory: SharedMemory) -> None:
    regions = MemoryRegions()
    regions.register("r", memory.name, 0, 16)
    with pytest.raises(ServiceError, match="registered already"):
        regions.register("r", memory.name, 0, 16)
    regions.unregister("other")
    regions.unregister("r")
    assert regions.status("") == []
    with pytest.raises(ServiceError, match="is not registered"):
        regions.status("r")


@pytest.mark.parametrize(("offset", "size"), [(0, 4097), (4096, 1), (0, 0), (2**63, 2**63)])
def test_a_region_larger_than_its_object_is_refused(memory: SharedMemory, offset: int, size: int) -> None:
    with pytest.raises(ServiceError):
        MemoryRegions().register("r", memory.name, offset, size)


def test_an_object_cut_short_after_it_was_registered_is_an_error_and_no_signal(memory: SharedMemory) -> None:
    regions = MemoryRegions()
    regions.register("r", memory.name, 0, 4096)
    part = regions.slice_of(parameters("r", 4096), 4096)
    os.ftruncate(memory._fd, 8)  # type: ignore[attr-defined]
    for touch in (part.read, lambda: part.write(bytes(4096))):
        with pytest.raises(ServiceError, match="has become shorter"):
            touch()
    os.ftruncate(memory._fd, 4096)  # type: ignore[attr-defined]


def test_an_answer_on_its_way_keeps_its_region_open(memory: SharedMemory) -> None:
    regions = MemoryRegions()
    regions.register("r", memory.name, 0, 16)
    part = regions.slice_of(parameters("r", 4), 4)
    regions.unregister("")
    part.write(b"late")
    assert bytes(memory.buf[:4]) == b"late"


def test_an_output_that_does_not_fit_is_refused(memory: SharedMemory) -> None:
    regions = MemoryRegions()
    regions.register("r", memory.name, 0, 16)
    with pytest.raises(ServiceError, match="does not fit"):
        regions.slice_of(parameters("r", 4)).write(b"12345")


class Runtime:
    """Stands in for the CUDA runtime, which is not here: one buffer of this process in the device's part."""

    def __init__(self, size: int) -> None:
        self.device = ctypes.create_string_buffer(size)
        self.handles: list[bytes] = []
        self.closed = 0
        self.code = 0

    def cudaIpcOpenMemHandle(self, pointer: Any, handle: Any, flags: int) -> int:  # noqa: N802
        self.handles.append(bytes(handle))
        pointer._obj.value = ctypes.addressof(self.device)
        return self.code

    def cudaIpcCloseMemHandle(self, pointer: Any) -> int:  # noqa: N802
        self.closed += 1
        return 0

    def cudaMemcpy(self, to: Any, source: Any, size: Any, kind: int) -> int:  # noqa: N802
        ctypes.memmove(to, source, size.value)
        return self.code


def test_cuda_memory_is_copied_both_ways_and_closed_with_its_last_use(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(64)
    monkeypatch.setattr(shared_memory, "cuda_runtime", lambda: runtime)
    regions = MemoryRegions()
    handle = bytes(range(64))
    regions.register_cuda("c", handle, 0, 32)
    part = regions.slice_of(parameters("c", 4, 8), 4)
    part.write(b"cuda")
    assert runtime.device.raw[8:12] == part.read() == b"cuda"
    assert runtime.handles == [handle]
    assert [region.name for region in regions.status("", cuda=True)] == ["c"]
    assert regions.status("") == []
    regions.unregister("")  # of the other sort
    regions.unregister("", cuda=True)
    assert runtime.closed == 0
    del part
    gc.collect()
    assert runtime.closed == 1


def test_what_the_cuda_runtime_refuses_is_the_clients_error(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(64)
    monkeypatch.setattr(shared_memory, "cuda_runtime", lambda: runtime)
    with pytest.raises(ServiceError, match="has 64 bytes, not 3"):
        MemoryRegions().register_cuda("c", b"abc", 0, 32)
    runtime.code = 1
    with pytest.raises(ServiceError, match="cannot be opened: error 1"):
        MemoryRegions().register_cuda("c", bytes(64), 0, 32)


def test_without_a_cuda_runtime_in_the_process_there_is_no_cuda_memory(tmp_path: Path) -> None:
    (tmp_path / "maps").write_text("7f00-7f01 r-xp 00000000 00:00 0 /usr/lib/libc.so.6\n")
    with pytest.raises(ServiceError, match="is not loaded"):
        cuda_runtime(tmp_path / "maps")
