"""How the arguments of a call become the engine's."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from switchyard import Event, InvalidArgument
from switchyard._core import CallOptions
from switchyard._options import set_option

from ._checks import wrong_type
from ._streams import stream_of
from .utils import EventHandle, EventOverlap


class Rows(NamedTuple):
    """How the rows of a dispatch are asked for."""

    alignment: int = 1
    """What counts of experts are rounded up to."""
    num_worst_tokens: int = 0
    """Rows of the result; 0: as many as come."""
    expanded: bool = False
    zero_padding: bool = False
    source_tokens: bool = False
    """A copy stays with the handle. Only on the CPU can the host read them."""


_any_rows = Rows()
# Given alike in every step: made once.
_options: dict[tuple[int, int, Rows], CallOptions] = {}


def call_options(x: torch.Tensor, after: Event | None, num_sms: int, rows: Rows = _any_rows) -> CallOptions:
    """num_sms: as Engines.num_sms says."""
    stream = stream_of(x)
    key = (num_sms, stream, rows)
    found = _options.get(key)
    if found is not None and after is None:
        return found
    made = CallOptions()
    made.cuda_stream = stream
    made.keep_source_tokens = rows.source_tokens
    named = {
        "expert_alignment": rows.alignment,
        "num_worst_tokens": rows.num_worst_tokens,
        "num_sms": num_sms,
        "expanded": rows.expanded,
        "zero_padding": rows.zero_padding,
    }
    for name, value in named.items():
        set_option(made, name, value)
    if after is None:
        _options[key] = made
    else:
        made.after = after
    return made


def event_before(
    previous_event: EventOverlap | None, async_finish: bool, allocate_on_comm_stream: bool, tensor: Any
) -> Event | None:
    """What a call on such a tensor has to wait for; None: nothing more."""
    if allocate_on_comm_stream and (previous_event is None or not async_finish):
        raise InvalidArgument(
            "allocate_on_comm_stream: expected previous_event and async_finish beside it: memory of the "
            "communication stream is ordered by them"
        )
    return _event_of("previous_event", previous_event, tensor)


def _event_of(name: str, overlap: EventOverlap | None, tensor: Any) -> Event | None:
    """A captured event has a CUDA event: calls start after the current stream, so that stream waits for it."""
    if overlap is None:
        return None
    if not isinstance(overlap, EventOverlap):
        raise wrong_type(name, "an EventOverlap", overlap)
    if overlap.event is None:
        return None
    overlap.event.before_work_on(tensor)
    event = overlap.event.event
    return None if event.done else event


def event_of_both(first: EventOverlap | None, second: EventOverlap | None, tensor: torch.Tensor) -> Event | None:
    """As event_before, for a call that starts after previous_event and previous_event_before_epilogue."""
    before = _event_of("previous_event", first, tensor)
    also = _event_of("previous_event_before_epilogue", second, tensor)
    if before is None or also is None:
        return also if before is None else before
    if tensor.is_cuda:
        before.wait_on(stream_of(tensor))  # which calls start after
    else:
        before.wait()
    return also


def finished(async_finish: bool, event: Event | None = None, on_gpu: bool = False) -> EventOverlap:
    """`event`: of a call that may still run; None: what was queued on the current stream."""
    return EventOverlap(EventHandle(event, on_gpu) if async_finish else None)


def biases(bias: Any) -> tuple[Any, Any]:
    """0, 1 or 2 tensors."""
    if bias is None or isinstance(bias, torch.Tensor):
        return bias, None
    if not isinstance(bias, (tuple, list)):
        raise wrong_type("bias", "a torch.Tensor, or up to two of them", bias)
    if len(bias) > 2:
        raise InvalidArgument(f"bias: expected 0, 1 or 2 tensors, seen {len(bias)}")
    first, second = (*bias, None, None)[:2]
    return first, second
