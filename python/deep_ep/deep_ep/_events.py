"""Events that calls start after and that they return."""

from __future__ import annotations

from typing import Any

import torch
from switchyard import Event, InvalidArgument, interop

from .utils.event import AnyEvent, EventHandle, EventOverlap, handle_of


def event_before(
    previous_event: AnyEvent | None, async_finish: bool, allocate_on_comm_stream: bool, tensor: Any
) -> Event | None:
    """Returns the event that a call on such a tensor starts after; None: it waits for no event."""
    if allocate_on_comm_stream and (previous_event is None or not async_finish):
        raise InvalidArgument(
            "allocate_on_comm_stream: expected previous_event and async_finish with it, since they order the memory of "
            "the communication stream"
        )
    return _event_of("previous_event", previous_event, tensor)


def event_of_both(first: AnyEvent | None, second: AnyEvent | None, tensor: torch.Tensor) -> Event | None:
    """Does what event_before does, for a call with previous_event and previous_event_before_epilogue."""
    before = _event_of("previous_event", first, tensor)
    also = _event_of("previous_event_before_epilogue", second, tensor)
    if before is None or also is None:
        return also if before is None else before
    if tensor.is_cuda:
        before.wait_on(interop.current_cuda_stream(tensor))  # a call starts after the current stream
    else:
        before.wait()
    return also


def _event_of(name: str, event: Any, tensor: Any) -> Event | None:
    """Returns the event of a call that may still run.

    For a captured event the current stream waits instead, since calls start after that stream.
    """
    handle = handle_of(name, event)
    if handle is None:
        return None
    handle.before_work_on(tensor)
    return None if handle.core.done else handle.core


def finished(asynchronous: bool, event: Event | None = None, on_gpu: bool = False) -> EventOverlap:
    """Returns what a call returns as its event.

    Args:
        event: the event of a call that may still run; None: the work that was queued on the current stream.
    """
    return EventOverlap(EventHandle(event, on_gpu)) if asynchronous else EventOverlap()
