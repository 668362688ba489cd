"""Events, as callers wait for them."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import switchyard
import torch
from switchyard import InvalidArgument, OutOfMemory

from ._errors import in_our_words


class EventHandle:
    """A point in the order of work: all that was queued before it on the stream it was made on.

    `EventHandle()` takes the current stream's latest work; on the CPU that is done already.

    Args:
        event: of a call; None: the current stream's latest work.
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
        """What the caller does next on the current stream comes after this point.

        CPU tensors: blocks until it is reached, and raises what the call raised that it belongs to.
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
        """What is done next with such a tensor comes after a captured point; calls of the engine are not waited for."""
        if self._cuda_event is None:
            return
        if isinstance(tensor, torch.Tensor) and tensor.is_cuda:
            torch.cuda.current_stream(tensor.device).wait_event(self._cuda_event)
        else:
            self._cuda_event.synchronize()


class EventOverlap:
    """What an asynchronous call returns, to be waited for; also as a context manager, which waits at its end.

    Attributes:
        event: the EventHandle; None when the call was synchronous.
        extra_tensors: kept alive as long as this object.
    """

    __slots__ = ("event", "extra_tensors")

    def __init__(self, event: EventHandle | None = None, extra_tensors: tuple[Any, ...] | None = None) -> None:
        self.event = event
        self.extra_tensors = extra_tensors

    def current_stream_wait(self) -> None:
        """See EventHandle. RuntimeError when there is no event, since the call was synchronous."""
        if self.event is None:
            raise RuntimeError("EventOverlap: there is nothing to wait for: the call was made without async_finish")
        self.event.current_stream_wait()

    def __enter__(self) -> EventOverlap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.event is not None:
            self.event.current_stream_wait()
