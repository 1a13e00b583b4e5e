"""Copies of tensors into a forward pass and out of it, through reused buffers, page-locked where a device copies."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from worker.runtime.tensors import Tensor

if TYPE_CHECKING:
    import torch


class Staging:
    """The buffer for the bytes of one input, as large as the largest batch so far, and views of it as tensors.

    Torch aligns the buffer, so that a result has the same bits wherever the request's bytes lay; on CUDA it is
    page-locked, so that the copy to the device can overlap other work. The next forward pass overwrites it, so that
    this one must have ended.
    """

    _MAX_VIEWS = 64

    def __init__(self, torch: Any, dtype: "torch.dtype", pinned: bool) -> None:
        self._torch = torch
        self._dtype = dtype
        self._pinned = pinned
        self._grow(0)

    def fill(self, part: Tensor) -> "torch.Tensor":
        """Copies one tensor into the buffer, and returns it as a torch tensor."""
        view = self._views.get(part.shape)
        size = len(part.data)
        if view is None:
            view = self._view(part.shape, size)
        self._bytes[:size] = part.data
        return view

    def join(self, parts: Sequence[Tensor]) -> "torch.Tensor":
        """Copies tensors into the buffer, one after the other along the first dimension, and returns them as one."""
        shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        view = self._views.get(shape)
        if view is None:
            view = self._view(shape, sum(len(part.data) for part in parts))
        start = 0
        for part in parts:
            end = start + len(part.data)
            self._bytes[start:end] = part.data
            start = end
        return view

    def _view(self, shape: tuple[int, ...], size: int) -> "torch.Tensor":
        if size > len(self._bytes):
            self._grow(size)
        if len(self._views) >= self._MAX_VIEWS:
            self._views.clear()
        view: torch.Tensor = self._buffer[:size].view(self._dtype).view(shape)
        self._views[shape] = view
        return view

    def _grow(self, size: int) -> None:
        self._buffer = self._torch.empty(size, dtype=self._torch.uint8, pin_memory=self._pinned)
        self._bytes = memoryview(self._buffer.numpy())
        self._views: dict[tuple[int, ...], torch.Tensor] = {}


def host_bytes(tensor: "torch.Tensor") -> bytes:
    """Returns the elements of a tensor in host memory, row-major."""
    data: bytes = tensor.numpy().tobytes()
    return data


def device_bytes(tensor: "torch.Tensor") -> bytes:
    """Returns the elements of a tensor in the memory of any device, row-major."""
    return host_bytes(tensor.cpu())


class PinnedCopy:
    """Copies out through page-locked memory, as large as the largest tensor so far, and waits for the copy."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def __call__(self, tensor: "torch.Tensor") -> bytes:
        tensor = tensor.contiguous()
        size = tensor.numel() * tensor.element_size()
        if self._buffer.numel() < size:
            self._buffer = self._torch.empty(size, dtype=self._torch.uint8, pin_memory=True)
        staged = self._buffer[:size].view(tensor.dtype).view(tensor.shape)
        staged.copy_(tensor, non_blocking=True)
        self._torch.cuda.current_stream().synchronize()
        data: bytes = staged.numpy().tobytes()
        return data
