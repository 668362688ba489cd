"""What PyTorch and buffers on a GPU do for each other's memory. Without PyTorch nothing of it is needed."""

from __future__ import annotations

import sys
import weakref
from contextlib import suppress
from typing import Any

from . import _core
from ._errors import Error

_buffers: weakref.WeakSet[Any] = weakref.WeakSet()
_shared = False


def share_memory_with_torch(buffer: Any, *, on_gpu: bool, gives_back: bool = False) -> None:
    """Lets PyTorch and a buffer on a GPU know of each other, if PyTorch is imported.

    - Tensor.record_stream() of a result is noted, so that its memory is not used again before that stream has read it.
      PyTorch itself does nothing there for memory that is not its own.
    - When the GPU has no memory left for a heap to grow, PyTorch's cache is emptied.
    - When an allocation of PyTorch's fails, the buffers give back what they do not use. The allocation that failed is
      not tried again, but the next one has the memory.
    """
    global _shared
    if "torch" not in sys.modules or not on_gpu:
        return
    if gives_back:
        _buffers.add(buffer)
    if _shared:
        return
    _shared = True
    torch: Any = sys.modules["torch"]
    _note_recorded_streams(torch)
    _core.on_memory_shortage(_empty_cache)
    attach = getattr(torch._C, "_cuda_attach_out_of_memory_observer", None)
    if attach is not None:
        attach(_trim_all)


def _note_recorded_streams(torch: Any) -> None:
    original = torch.Tensor.record_stream

    def record_stream(self: Any, stream: Any) -> None:
        if self.is_cuda:
            _core.record_stream(self.untyped_storage().data_ptr(), stream.cuda_stream)
        original(self, stream)

    record_stream.__doc__ = original.__doc__
    torch.Tensor.record_stream = record_stream


def _empty_cache() -> None:
    torch: Any = sys.modules["torch"]
    # What it frees would spoil the capture.
    if not torch.cuda.is_current_stream_capturing():
        torch.cuda.empty_cache()


def _trim_all(*_: object) -> None:
    """Raises nothing, since PyTorch would raise that in the place of its own error."""
    for buffer in list(_buffers):
        with suppress(Error):  # it was destroyed, or has failed
            buffer.trim()
