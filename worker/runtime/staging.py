"""Bytes on their way into a forward pass and out of it: buffers that are kept, page-locked where a device copies."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from worker.runtime.tensors import Tensor

if TYPE_CHECKING:
    import torch


class Staging:
    """Where one input's bytes are put before forward: one buffer, grown to the largest batch seen, and views of it.

    Torch aligns the buffer, so that a result has the same bits wherever the request's bytes lay; on CUDA it is
    page-locked, so that the copy to the device can run beside other work. It is written again for the next forward
    only, after this one has been waited for.
    """

    VIEWS = 64

    def __init__(self, torch: Any, dtype: "torch.dtype", pinned: bool) -> None:
        self._torch = torch
        self._dtype = dtype
        self.pinned = pinned
        self._grow(0)

    def one(self, part: Tensor) -> "torch.Tensor":
        view = self._views.get(part.shape)
        size = len(part.data)
        if view is None:
            view = self._view(part.shape, size)
        self._bytes[:size] = part.data
        return view

    def joined(self, parts: Sequence[Tensor]) -> "torch.Tensor":
        """The parts, one after the other along the first dimension."""
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
        if len(self._views) >= self.VIEWS:
            self._views.clear()
        view: torch.Tensor = self._buffer[:size].view(self._dtype).view(shape)
        self._views[shape] = view
        return view

    def _grow(self, size: int) -> None:
        self._buffer = self._torch.empty(size, dtype=self._torch.uint8, pin_memory=self.pinned)
        self._bytes = memoryview(self._buffer.numpy())
        self._views: dict[tuple[int, ...], torch.Tensor] = {}


def host_bytes(tensor: "torch.Tensor") -> bytes:
    data: bytes = tensor.numpy().tobytes()
    return data


def device_bytes(tensor: "torch.Tensor") -> bytes:
    return host_bytes(tensor.cpu())


class PinnedCopy:
    """Copies out through page-locked memory, grown to the largest tensor seen, and waits for the copy."""

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
