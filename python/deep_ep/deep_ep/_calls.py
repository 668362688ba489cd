"""How the arguments of a call become the engine's."""

from __future__ import annotations

from typing import Any

import torch
from switchyard import Event, InvalidArgument
from switchyard._core import CallOptions

from ._streams import stream_of
from .utils import EventHandle, EventOverlap

# Given alike in every step: made once.
_options: dict[tuple[int, ...], CallOptions] = {}


def call_options(
    x: torch.Tensor,
    after: Event | None,
    num_sms: int = 0,
    alignment: int = 1,
    worst: int = 0,
    expanded: bool = False,
    zero_padding: bool = False,
    source_tokens: bool = False,
) -> CallOptions:
    """The CPU engine has no SMs; source tokens are copied where the host can read them."""
    stream = stream_of(x)
    num_sms = num_sms if x.is_cuda else 0
    source_tokens = source_tokens and not x.is_cuda
    key = (alignment, worst, num_sms, stream, expanded, zero_padding, source_tokens)
    found = _options.get(key)
    if found is not None and after is None:
        return found
    made = CallOptions()
    made.expert_alignment = alignment
    made.num_worst_tokens = worst
    made.num_sms = num_sms
    made.cuda_stream = stream
    made.expanded = expanded
    made.zero_padding = zero_padding
    made.keep_source_tokens = source_tokens
    if after is None:
        _options[key] = made
    else:
        made.after = after
    return made


def event_before(
    previous_event: EventOverlap | None, async_finish: bool, allocate_on_comm_stream: bool, tensor: Any
) -> Event | None:
    """What a call on such a tensor has to wait for; None: nothing more.

    A captured event has a CUDA event: calls start after the current stream, so that stream waits for it.
    """
    if allocate_on_comm_stream and (previous_event is None or not async_finish):
        raise InvalidArgument(
            "allocate_on_comm_stream: expected previous_event and async_finish beside it: memory of the "
            "communication stream is ordered by them"
        )
    if previous_event is None or previous_event.event is None:
        return None
    previous_event.event.before_work_on(tensor)
    event = previous_event.event.event
    return None if event.done else event


def event_of_both(first: EventOverlap | None, second: EventOverlap | None, tensor: Any) -> Event | None:
    """As event_before, for a call that starts after both."""
    before = event_before(first, False, False, tensor)
    also = event_before(second, False, False, tensor)
    if before is None or also is None:
        return also if before is None else before
    EventHandle(before).current_stream_wait()  # CUDA: calls start after the current stream
    return also


def finished(async_finish: bool, event: Event | None = None) -> EventOverlap:
    return EventOverlap(EventHandle(event) if async_finish else None)


def biases(bias: Any) -> tuple[Any, Any]:
    """0, 1 or 2 tensors."""
    if bias is None or isinstance(bias, torch.Tensor):
        return bias, None
    if len(bias) > 2:
        raise InvalidArgument(f"bias: expected 0, 1 or 2 tensors, seen {len(bias)}")
    first, second = (*bias, None, None)[:2]
    return first, second
