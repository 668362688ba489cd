"""Dispatch and combine by the engine, at once or queued."""

from __future__ import annotations

from typing import Any

import switchyard
import torch
from switchyard import Event, InvalidArgument, OutOfMemory, _core

from ._agreement import explained
from ._errors import in_our_words

Combined = tuple[torch.Tensor, "torch.Tensor | None", "Event | None"]


def run_dispatch(
    buffer: switchyard.Buffer, inputs: tuple[Any, Any, Any, Any, Any], options: _core.CallOptions, asynchronous: bool
) -> tuple[Any, Event | None]:
    """The DispatchResult, and the event that its contents come with; None: they are there.

    On the CPU only dispatches with num_worst_tokens are queued: the others' shapes are known when they are done. On the
    GPU the tensors are known when the call returns.

    Args:
        inputs: x, scales, topk_idx, topk_weights, and a handle or is_token_in_rank.
    """
    try:
        if not asynchronous or not (options.num_worst_tokens > 0 or inputs[0].is_cuda):
            return buffer._core.dispatch(*inputs, options), None
        pending = buffer._core.dispatch_async(*inputs, options)
        return pending.early(), pending.event
    except (OutOfMemory, TypeError) as error:
        raise in_our_words(error) from error
    except InvalidArgument as error:
        raise explained(in_our_words(error)) from error


def run_combine(
    buffer: switchyard.Buffer,
    rows: tuple[torch.Tensor, _core.Handle, torch.Tensor | None],
    biases: tuple[Any, Any],
    options: _core.CallOptions,
    asynchronous: bool,
) -> Combined:
    """The sums, the sums of weights, and the event that they come with; None: they are there.

    On the CPU calls with weights are not queued, since their sums' place is known when they are done.

    Args:
        rows: x, the handle, topk_weights.
    """
    try:
        x, handle, weights = rows
        if isinstance(weights, torch.Tensor):
            weights = weights.contiguous()  # gradients are often expanded
        if asynchronous and weights is None and not x.is_cuda:
            out = torch.empty(handle.num_tokens, buffer.hidden, dtype=x.dtype)
            queued = buffer._core.combine_async(x, handle, None, None, (*biases, out), options)
            return out, None, queued.event
        rest = None if all(each is None for each in biases) else (*biases, None)
        if asynchronous and x.is_cuda:
            pending = buffer._core.combine_async(x, handle, weights, None, rest, options)
            combined, event = pending.early(), pending.event
            return combined.x, combined.topk_weights, event
        combined = buffer._core.combine(x, handle, weights, None, rest, options)
        return combined.x, combined.topk_weights, None
    except (InvalidArgument, OutOfMemory, TypeError) as error:
        raise in_our_words(error) from error
