"""Events of calls, which callers wait for."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import switchyard
import torch
from switchyard import InvalidArgument, OutOfMemory

from ._errors import in_our_words


class EventHandle:
    """A point after the work that was queued on a stream so far, or after a call.

    `EventHandle()` is the point after the latest work of the current stream. On the CPU it is reached already.

    Args:
        event: the event of a call; None: the latest work of the current stream.
        on_gpu: whether the call works on CUDA tensors.
    """

    def __init__(self, event: switchyard.Event | None = None, on_gpu: bool = False) -> None:
        self.event = event if event is not None else switchyard.Event()
        self._on_gpu = on_gpu
        self._cuda_event: torch.cuda.Event | None = None
        if event is None and torch.cuda.is_initialized():
            self._cuda_event = torch.cuda.Event()
            self._cuda_event.record()

    def current_stream_wait(self) -> None:
        """Makes the current stream wait for this point.

        For CPU tensors it blocks until the point is reached, and raises the error of the call, if there was one.
        """
        if self._cuda_event is not None:
            torch.cuda.current_stream().wait_event(self._cuda_event)
        elif self._on_gpu:
            self.event.wait_on(torch.cuda.current_stream().cuda_stream)
        else:
            try:
                self.event.wait()
            except (InvalidArgument, OutOfMemory) as error:
                raise in_our_words(error) from error

    def before_work_on(self, tensor: Any) -> None:
        """Makes the current stream of such a tensor, or the host, wait for a captured point.

        It does nothing for the event of a call: the engine orders its own calls.
        """
        if self._cuda_event is None:
            return
        if isinstance(tensor, torch.Tensor) and tensor.is_cuda:
            torch.cuda.current_stream(tensor.device).wait_event(self._cuda_event)
        else:
            self._cuda_event.synchronize()


class EventOverlap:
    """The event of an asynchronous call. As a context manager it waits at the end of the block.

    Attributes:
        event: the EventHandle; None if the call was synchronous.
        extra_tensors: tensors that live as long as this object.
    """

    __slots__ = ("event", "extra_tensors")

    def __init__(self, event: EventHandle | None = None, extra_tensors: tuple[Any, ...] | None = None) -> None:
        self.event = event
        self.extra_tensors = extra_tensors

    def current_stream_wait(self) -> None:
        """Does what EventHandle.current_stream_wait does. Raises RuntimeError if the call was synchronous."""
        if self.event is None:
            raise RuntimeError("EventOverlap: expected an event to wait for, seen none: pass async_finish to the call")
        self.event.current_stream_wait()

    def __enter__(self) -> EventOverlap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.event is not None:
            self.event.current_stream_wait()
