"""How the arguments of a call become the engine's."""

from __future__ import annotations

from typing import Any

import torch
from switchyard import Event, InvalidArgument
from switchyard._core import CallOptions

from ._streams import stream_of
from .utils import EventHandle, EventOverlap

# Given alike in every step: made once.
_options: dict[tuple[int, int, int, int, bool], CallOptions] = {}


def call_options(alignment: int, worst: int, num_sms: int, x: torch.Tensor, after: Event | None) -> CallOptions:
    """Source tokens are copied where the host can read them."""
    stream = stream_of(x)
    key = (alignment, worst, num_sms, stream, x.is_cuda)
    found = _options.get(key)
    if found is not None and after is None:
        return found
    made = CallOptions()
    made.expert_alignment = alignment
    made.num_worst_tokens = worst
    made.num_sms = num_sms
    made.cuda_stream = stream
    made.keep_source_tokens = not x.is_cuda
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


def finished(async_finish: bool, event: Event | None = None, on_gpu: bool = False) -> EventOverlap:
    """`event`: of a call that may still run; None: what was queued on the current stream."""
    return EventOverlap(EventHandle(event, on_gpu) if async_finish else None)


def packed_scales(x: torch.Tensor, scales: Any) -> tuple[Any, int]:
    """Scales as the engine moves them, float32 [N, ceil(H/128)], and the columns that int32 ones had (else 0).

    int32 scales hold four exponents each: their bits travel in the first columns.
    """
    if not isinstance(scales, torch.Tensor) or scales.dtype != torch.int32 or scales.ndim != 2:
        return scales, 0
    columns = scales.shape[1]
    padded = torch.zeros(scales.shape[0], -(-x.shape[1] // 128), dtype=torch.int32, device=scales.device)
    if columns > padded.shape[1]:
        raise InvalidArgument(f"scales: dimension 1: expected at most {padded.shape[1]}, seen {columns}")
    padded[:, :columns] = scales
    return padded.view(torch.float32), columns


def unpacked_scales(scales: torch.Tensor, columns: int) -> torch.Tensor:
    return scales[:, :columns].view(torch.int32) if columns else scales


def biases(bias: Any) -> tuple[Any, Any]:
    """0, 1 or 2 tensors."""
    if bias is None or isinstance(bias, torch.Tensor):
        return bias, None
    if len(bias) > 2:
        raise InvalidArgument(f"bias: expected 0, 1 or 2 tensors, seen {len(bias)}")
    first, second = (*bias, None, None)[:2]
    return first, second
