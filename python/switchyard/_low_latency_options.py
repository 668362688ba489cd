"""The keyword arguments of low-latency calls, as the extension module takes them."""

from __future__ import annotations

from typing import Any, Mapping, TypedDict

from . import _core
from ._frameworks import current_cuda_stream
from ._options import check_names, chosen, set_option


class LowLatencyCallOptions(TypedDict, total=False):
    """What dispatch and combine have in common."""

    wait_ns_per_source: Any
    topk_weights: Any
    num_workers: int
    num_sms: int
    cuda_stream: int | None


class LowLatencyDispatchOptions(LowLatencyCallOptions, total=False):
    """See LowLatencyBuffer.dispatch."""

    scales: Any
    cast: str
    layout: str
    received_per_expert: Any


class LowLatencyCombineOptions(LowLatencyCallOptions, total=False):
    """See LowLatencyBuffer.combine."""

    coding: str
    out: Any


_choices: dict[str, dict[str, Any]] = {
    "cast": dict(_core.SendCast.__members__),
    "layout": dict(_core.SlotLayout.__members__),
    "coding": dict(_core.CombineCoding.__members__),
}


def _call_options(x: Any, options: Mapping[str, Any]) -> _core.LowLatencyCallOptions:
    call = _core.LowLatencyCallOptions()
    stream = options.get("cuda_stream")
    call.cuda_stream = current_cuda_stream(x) if stream is None else stream
    for name, choices in _choices.items():
        if name in options:
            setattr(call, name, choices[chosen(name, options[name], choices)])
    for name in ("num_workers", "num_sms"):
        if name in options:
            set_option(call, name, options[name])
    return call


def dispatch_arguments(x: Any, topk_idx: Any, options: Mapping[str, Any]) -> tuple[Any, ...]:
    """(x, scales, topk_idx, topk_weights, received_per_expert, wait_ns_per_source, the rest)."""
    check_names(options, LowLatencyDispatchOptions, LowLatencyCallOptions)
    names = ("topk_weights", "received_per_expert", "wait_ns_per_source")
    tensors = (options.get(name) for name in names)
    return x, options.get("scales"), topk_idx, *tensors, _call_options(x, options)


def combine_arguments(x: Any, handle: Any, out: Any, options: Mapping[str, Any]) -> tuple[Any, ...]:
    """(x, handle, topk_weights, out, wait_ns_per_source, the rest)."""
    check_names(options, LowLatencyCombineOptions, LowLatencyCallOptions)
    if not isinstance(handle, _core.LowLatencyHandle):
        raise TypeError(f"handle: expected the handle of a low-latency dispatch, seen {type(handle).__name__}")
    weights, wait_ns = options.get("topk_weights"), options.get("wait_ns_per_source")
    return x, handle, weights, out, wait_ns, _call_options(x, options)
