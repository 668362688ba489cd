"""Functions for packages that offer another library's interface on top of Switchyard, as `deep_ep` does.

A shim that is called for every layer of a model adds little to a call when it uses these: `dispatch`, `combine` and the
low-latency calls take their arguments by position and options that were made beforehand. They are as collective as the
methods of `Buffer` and `LowLatencyBuffer`, and their tensors have the same shapes and dtypes. Other functions tell a
shim about engines and streams, and let it refuse a call on all ranks.

Letters are those of the buffers: N tokens of this rank, H hidden, K top_k, E experts, R ranks, L experts of this rank,
n rows received. Results (`DispatchResult` and so on) make a new tensor each time an attribute is read; the tensors are
of the framework of `x`.
"""

from __future__ import annotations

from typing import Any

from . import _core
from ._buffer import Buffer, local_experts
from ._compiled import opaque_calls
from ._core import (
    CallOptions,
    CombineResult,
    DispatchResult,
    LowLatencyCallOptions,
    LowLatencyResult,
    WeakLowLatencyResult,
    has_cuda,
)
from ._frameworks import current_cuda_stream, require_torch
from ._low_latency import LowLatencyBuffer
from ._options import set_option
from ._refusal import or_refuse, refuse_combine, refuse_dispatch
from ._results import Layout, ReceiveHook

__all__ = [
    "CallOptions",
    "CombineResult",
    "DispatchResult",
    "LowLatencyCallOptions",
    "LowLatencyResult",
    "WeakLowLatencyResult",
    "add_received",
    "by_column",
    "call_options",
    "combine",
    "combine_async",
    "combine_tensors",
    "current_cuda_stream",
    "dispatch",
    "dispatch_async",
    "dispatch_if_it_fits",
    "dispatch_tensors",
    "get_layout",
    "get_layout_async",
    "has_cuda",
    "layout_if_it_fits",
    "local_experts",
    "low_latency_call_options",
    "low_latency_combine",
    "low_latency_combine_tensors",
    "low_latency_dispatch",
    "low_latency_dispatch_if_it_fits",
    "low_latency_dispatch_tensors",
    "low_latency_send_combine",
    "low_latency_send_dispatch",
    "opaque_calls",
    "or_refuse",
    "refuse_combine",
    "refuse_dispatch",
    "require_torch",
]


# ---- throughput mode ----


def call_options(**values: Any) -> CallOptions:
    """Returns options of a dispatch or a combine. They may be used for any number of calls.

    Keyword arguments:
        expanded: True: the expanded layout; False: the flat one.
        keep_source_tokens: keeps a copy of the received source tokens with the handle. CPU engine only.
        cuda_stream: the stream of the call, as an integer; 0 for CPU tensors.
        current_stream: True: the stream that is current in the framework of x, in the place of cuda_stream. PyTorch's
            tensors alone.
        keep_ids: for dispatch_tensors: the handle keeps a copy of topk_idx, if its keeps_ids is then True; otherwise
            the caller makes one.
        scales_by_column: for dispatch_tensors that are not queued: the scales are what by_column returns, if the
            handle's scales_by_column is then True; otherwise the caller copies them.
        most_tokens: see dispatch_if_it_fits.
        queued: for dispatch_tensors and combine_tensors: the call returns before it is done.
        expert_alignment, zero_padding, num_worst_tokens, cast_to_fp8, num_workers, num_sms, after: as in
            `Buffer.dispatch`.
        weights_of_all_ranks: as in `Buffer.combine`.

    Raises:
        TypeError: a value of the wrong type.
        AttributeError: an option that does not exist.
    """
    made = CallOptions()
    for name, value in values.items():
        set_option(made, name, value)
    return made


def get_layout(topk_idx: Any, num_experts: int, num_ranks: int) -> Layout:
    """Returns what a dispatch by topk_idx would send to whom. Needs no buffer; for CPU tensors only.

    Args:
        topk_idx: [N, K] int64 or int32; -1: slot not used.

    Returns:
        num_tokens_per_rank [R] int32, num_tokens_per_expert [E] int32, is_token_in_rank [N, R] bool.

    Raises:
        InvalidArgument: a wrong shape or dtype, or an id out of range.
    """
    return Layout.of(_core.get_layout(topk_idx, num_experts, num_ranks))


def layout_if_it_fits(
    buffer: Buffer, topk_idx: Any, num_experts: int, queued: bool
) -> tuple[tuple[Any, Any, Any, Any], _core.Event | None] | None:
    """Does what `Buffer.get_layout`, or if queued get_layout_async, does on the current stream, all in one call.

    Returns:
        The tensors of a layout, and num_tokens_per_node or None; the event of a queued call, or None. None in the place
        of both, and nothing has happened, unless the buffer is one on a GPU, topk_idx is a tensor there with a C
        exchange table, its top-k and num_experts are those that the buffer was made for, and no graph is captured.

    Raises the same as get_layout_async.
    """
    return buffer._core.layout_if_it_fits(topk_idx, num_experts, queued)  # type: ignore[return-value]


def get_layout_async(buffer: Buffer, topk_idx: Any, cuda_stream: int) -> tuple[Layout, _core.Event]:
    """Queues `Buffer.get_layout` and returns its tensors, and the event after which their contents are valid.

    Raises:
        InvalidArgument: a wrong shape or dtype.
        OutOfMemory: results that the caller holds fill the heap.
    """
    tensors, event = buffer._core.get_layout_async(topk_idx, cuda_stream)
    return Layout.of(tensors), event


def dispatch(
    buffer: Buffer, x: Any, scales: Any, topk_idx: Any, topk_weights: Any, routing: Any, options: CallOptions
) -> DispatchResult:
    """Calls `Buffer.dispatch`.

    Args:
        x: [N, H] bfloat16, float16, float32, or float8_e4m3fn with scales.
        scales: [N, ceil(H/128)] float32, or None.
        topk_idx: [N, K] int64 or int32, or None.
        topk_weights: [N, K] float32, or None.
        routing: a Handle, or token_in_rank ([N, R] uint8 or bool), instead of topk_idx; else None.

    Raises the same as `Buffer.dispatch`.
    """
    return buffer._core.dispatch(x, scales, topk_idx, topk_weights, routing, None, options)


def dispatch_async(
    buffer: Buffer, x: Any, scales: Any, topk_idx: Any, topk_weights: Any, routing: Any, options: CallOptions
) -> tuple[DispatchResult, _core.Event]:
    """Queues a dispatch. Returns its result, and the event after which contents of its tensors are valid.

    On the CPU engine the result has tensors only with num_worst_tokens; otherwise it has only the handle.
    """
    pending = buffer._core.dispatch_async(x, scales, topk_idx, topk_weights, routing, None, options)
    return pending.early(), pending.event


def dispatch_tensors(
    buffer: Buffer, x: Any, scales: Any, topk_idx: Any, topk_weights: Any, routing: Any, options: CallOptions
) -> tuple[Any, Any, Any, Any, list[int], _core.Handle, _core.Event | None]:
    """Does what dispatch, or with the option `queued` dispatch_async, does, and returns its whole result at once.

    Returns:
        x, scales, topk_idx, topk_weights, tokens_per_expert, the handle, as in the result of a dispatch; the event of a
        queued call, or None. On the CPU engine the tensors of a queued call without num_worst_tokens are None.
    """
    arguments = x, scales, topk_idx, topk_weights, routing, None, options
    return buffer._core.dispatch_tensors(*arguments)  # type: ignore[return-value]


def dispatch_if_it_fits(
    buffer: Buffer,
    x: Any,
    topk_idx: Any,
    topk_weights: Any,
    experts: Any,
    options: CallOptions,
    received_per_expert: Any = None,
) -> tuple[Any, Any, Any, Any, list[int], _core.Handle, _core.Event | None] | None:
    """Does what dispatch_tensors does, if the arguments are those of a call of this buffer.

    Shims have buffers for calls of several sizes. Most calls are like the one before: then this is all that they do.

    Args:
        x: a tensor, or a tuple of one and its scales.
        experts: the number of experts, or a tensor of as many counts.
        options: with most_tokens above 0 a call fits if x has at most as many rows.
        received_per_expert: None, or [L] int32 or int64: the rows that each local expert receives are added to it. A
            call with one that add_received refuses does not fit.

    Returns:
        What dispatch_tensors returns; None, and nothing has happened, unless x and topk_idx are tensors with a C
        exchange table on the buffer's device, and their dimensions and experts are those that the buffer was made for.
    """
    arguments = x, topk_idx, topk_weights, experts, options, received_per_expert
    return buffer._core.dispatch_if_it_fits(*arguments)  # type: ignore[return-value]


def combine(
    buffer: Buffer, x: Any, handle: Any, topk_weights: Any, row_weights: Any, rest: Any, options: CallOptions
) -> CombineResult:
    """Calls `Buffer.combine`.

    Args:
        x: [n, H] bfloat16, float16 or float32, in the rows of the dispatch.
        handle: the Handle of the dispatch.
        topk_weights: flat [n, K], expanded [n] float32, or None.
        row_weights: [n] float32, or None.
        rest: (bias0, bias1, out), each [N, H] or None; or None.

    Raises the same as `Buffer.combine`.
    """
    return buffer._core.combine(x, handle, topk_weights, row_weights, rest, options)


def combine_async(
    buffer: Buffer, x: Any, handle: Any, topk_weights: Any, row_weights: Any, rest: Any, options: CallOptions
) -> tuple[CombineResult, _core.Event]:
    """Queues a combine. Returns its result, and the event after which contents of its tensors are valid.

    On the CPU engine the tensors of the result are None; pass `out`.
    """
    pending = buffer._core.combine_async(x, handle, topk_weights, row_weights, rest, options)
    return pending.early(), pending.event


def combine_tensors(
    buffer: Buffer, x: Any, handle: Any, topk_weights: Any, row_weights: Any, rest: Any, options: CallOptions
) -> tuple[Any, Any, _core.Event | None]:
    """Does what combine, or with the option `queued` combine_async, does.

    Returns:
        x, topk_weights, as in the result of a combine; the event of a queued call, or None.
    """
    return buffer._core.combine_tensors(x, handle, topk_weights, row_weights, rest, options)  # type: ignore[return-value]


def add_received(buffer: Buffer, handle: _core.Handle, to: Any) -> bool:
    """Adds the rows that each local expert received in a dispatch to `to`, on its current stream. Not collective.

    Args:
        handle: of a dispatch that is done, or that the current stream is behind.
        to: [L] int32 or int64, a tensor with a C exchange table.

    Returns:
        False, and nothing has happened, if `to` is of another dtype, has its numbers in one place (stride 0) or does
        not lie where results do, or if the dispatch ran in rounds on a GPU.
    """
    return buffer._core.add_received(handle, to)


def by_column(buffer: Buffer, scales: Any) -> Any:
    """Returns a copy of scales [n, G] whose columns each start at a multiple of 16 bytes. Not collective.

    Args:
        scales: float32 or int32, a tensor with a C exchange table on the device of results.

    Returns:
        [n, G] in memory of the buffer, written on the current stream, which must be behind a dispatch of the buffer;
        None: there is no room at once.
    """
    return buffer._core.by_column(scales)


# ---- low-latency mode ----


def low_latency_call_options(
    *,
    cuda_stream: int = 0,
    current_stream: bool = False,
    with_hook: bool = False,
    cast: str = "none",
    coding: str = "none",
) -> LowLatencyCallOptions:
    """Returns options of a low-latency dispatch or combine, in the layout "expert_major".

    Args:
        cuda_stream: the stream of the call, as an integer; 0 for CPU tensors.
        current_stream: as in call_options.
        with_hook: for low_latency_dispatch_tensors and low_latency_combine_tensors: the call only sends, and its hook
            receives.
        cast, coding: as in `LowLatencyBuffer.dispatch` and `LowLatencyBuffer.combine`.

    Raises:
        KeyError: a cast or coding that does not exist.
    """
    made = LowLatencyCallOptions()
    made.cuda_stream = cuda_stream
    made.current_stream = current_stream
    made.with_hook = with_hook
    made.cast = _core.SendCast[cast]
    made.coding = _core.CombineCoding[coding]
    return made


def low_latency_dispatch(
    buffer: LowLatencyBuffer,
    x: Any,
    topk_idx: Any,
    received_per_expert: Any,
    wait_ns_per_source: Any,
    counts: Any,
    options: LowLatencyCallOptions,
) -> LowLatencyResult:
    """Calls `LowLatencyBuffer.dispatch`.

    Args:
        x: [N, H] bfloat16, float16 or float32.
        topk_idx: [N, K] int64 or int32.
        received_per_expert: [L] int32, or None.
        wait_ns_per_source: [R] int64, or None.
        counts: [L] int32, or None.

    Raises the same as `LowLatencyBuffer.dispatch`.
    """
    return buffer._core.dispatch(x, None, topk_idx, None, received_per_expert, wait_ns_per_source, counts, options)


def low_latency_send_dispatch(
    buffer: LowLatencyBuffer,
    x: Any,
    topk_idx: Any,
    received_per_expert: Any,
    wait_ns_per_source: Any,
    counts: Any,
    options: LowLatencyCallOptions,
) -> tuple[LowLatencyResult, ReceiveHook]:
    """Runs the send half of a low-latency dispatch. Returns its result, whose contents are valid after the hook."""
    arguments = x, None, topk_idx, None, received_per_expert, wait_ns_per_source, counts, options
    result, hook = buffer._core.send_dispatch(*arguments)
    return result, ReceiveHook(hook)


def low_latency_dispatch_tensors(
    buffer: LowLatencyBuffer,
    x: Any,
    topk_idx: Any,
    received_per_expert: Any,
    wait_ns_per_source: Any,
    counts: Any,
    options: LowLatencyCallOptions,
) -> tuple[Any, Any, WeakLowLatencyResult, _core.ReceiveHook | None]:
    """Does what low_latency_dispatch, or with the option `with_hook` low_latency_send_dispatch, does.

    Returns:
        x and scales of the result; what returns the result when it is called, holds the slots until its release(), and
        is a handle for low_latency_combine; the hook that receives, when it is called without arguments, or None.
    """
    arguments = x, None, topk_idx, None, received_per_expert, wait_ns_per_source, counts, options
    return buffer._core.dispatch_tensors(*arguments)  # type: ignore[return-value]


def low_latency_dispatch_if_it_fits(
    buffer: LowLatencyBuffer,
    x: Any,
    topk_idx: Any,
    received_per_expert: Any,
    wait_ns_per_source: Any,
    counts: Any,
    options: LowLatencyCallOptions,
) -> tuple[Any, Any, WeakLowLatencyResult, _core.ReceiveHook | None] | None:
    """Does what low_latency_dispatch_tensors does, if the arguments are those of a call of this buffer.

    Returns None, and nothing has happened, unless x (bfloat16) and topk_idx are tensors with a C exchange table on the
    buffer's device, and their dimensions are those that the buffer was made for.
    """
    arguments = x, topk_idx, received_per_expert, wait_ns_per_source, counts, options
    return buffer._core.dispatch_if_it_fits(*arguments)  # type: ignore[return-value]


def low_latency_combine(
    buffer: LowLatencyBuffer,
    x: Any,
    handle: Any,
    topk_weights: Any,
    out: Any,
    wait_ns_per_source: Any,
    options: LowLatencyCallOptions,
) -> None:
    """Calls `LowLatencyBuffer.combine`.

    Args:
        x: [L, R*M, H] bfloat16 or float16, in the slots of the dispatch.
        handle: the LowLatencyHandle of the dispatch, or what low_latency_dispatch_tensors returned.
        topk_weights: [N, K] float32, or None.
        out: [N, H], dtype of x: receives the sums.
        wait_ns_per_source: [R] int64, or None.

    Raises the same as `LowLatencyBuffer.combine`.
    """
    buffer._core.combine(x, handle, topk_weights, out, wait_ns_per_source, options)


def low_latency_combine_tensors(
    buffer: LowLatencyBuffer,
    x: Any,
    handle: WeakLowLatencyResult,
    topk_weights: Any,
    out: Any,
    wait_ns_per_source: Any,
    options: LowLatencyCallOptions,
) -> tuple[Any, ReceiveHook | None]:
    """Does what low_latency_combine, or with the option `with_hook` low_latency_send_combine, does, in one call.

    Args:
        handle: what low_latency_dispatch_tensors returned. Once the combine is queued it holds the slots no longer.
        out: as there; None: a new tensor, which x.new_empty() makes (PyTorch).

    Returns:
        The sums, and the hook that receives, or None.
    """
    arguments = x, handle, topk_weights, out, wait_ns_per_source, options
    sums, hook = buffer._core.combine_tensors(*arguments)  # type: ignore[misc]
    return sums, None if hook is None else ReceiveHook(hook)


def low_latency_send_combine(
    buffer: LowLatencyBuffer,
    x: Any,
    handle: Any,
    topk_weights: Any,
    out: Any,
    wait_ns_per_source: Any,
    options: LowLatencyCallOptions,
) -> ReceiveHook:
    """Runs the send half of a low-latency combine. The hook writes the sums to `out`."""
    return ReceiveHook(buffer._core.send_combine(x, handle, topk_weights, out, wait_ns_per_source, options))
