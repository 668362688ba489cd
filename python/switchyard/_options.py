"""Keyword arguments of calls, as the extension module takes them."""

from __future__ import annotations

from typing import Any, Collection, Mapping, TypedDict

from . import _core
from ._errors import InvalidArgument
from ._frameworks import current_cuda_stream


class AnyCallOptions(TypedDict, total=False):
    """Options of all calls, in either mode."""

    num_workers: int
    num_sms: int
    cuda_stream: int | None


class CallOptions(AnyCallOptions, total=False):
    """Options of both calls of a Buffer."""

    after: _core.Event | None


class DispatchOptions(CallOptions, total=False):
    """See Buffer.dispatch."""

    scales: Any
    token_in_rank: Any
    handle: _core.Handle | None
    cast_to_fp8: bool
    layout: str
    expert_alignment: int
    zero_padding: bool
    num_worst_tokens: int


class CombineOptions(CallOptions, total=False):
    """See Buffer.combine."""

    row_weights: Any
    topk_weights: Any
    weights_of_all_ranks: bool
    bias0: Any
    bias1: Any
    out: Any


class LowLatencyCallOptions(AnyCallOptions, total=False):
    """Options of both calls of a LowLatencyBuffer."""

    wait_ns_per_source: Any
    topk_weights: Any


class LowLatencyDispatchOptions(LowLatencyCallOptions, total=False):
    """See LowLatencyBuffer.dispatch."""

    scales: Any
    cast: str
    layout: str
    received_per_expert: Any
    counts: Any


class LowLatencyCombineOptions(LowLatencyCallOptions, total=False):
    """See LowLatencyBuffer.combine."""

    coding: str
    out: Any


# Options that leave _core.CallOptions as it is.
_beside = frozenset(
    ("scales", "token_in_rank", "handle", "row_weights", "topk_weights", "bias0", "bias1", "out", "cuda_stream")
)
# Options that _core.CallOptions has under the same name.
_plain = (
    "cast_to_fp8",
    "expert_alignment",
    "zero_padding",
    "num_worst_tokens",
    "weights_of_all_ranks",
    "num_workers",
    "num_sms",
)
_low_latency_plain = ("num_workers", "num_sms")
_low_latency_choices: dict[str, dict[str, Any]] = {
    "cast": dict(_core.SendCast.__members__),
    "layout": dict(_core.SlotLayout.__members__),
    "coding": dict(_core.CombineCoding.__members__),
}
_defaults = _core.CallOptions()


def chosen(name: str, value: object, choices: Collection[str]) -> str:
    """Returns `value` if it is one of the choices; raises InvalidArgument otherwise."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidArgument(f"{name}: expected {' or '.join(map(repr, choices))}, seen {value!r}")
    return value


def engine_kind(name: object) -> _core.EngineKind:
    engines = {"auto": _core.EngineKind.automatic, "cpu": _core.EngineKind.cpu, "cuda": _core.EngineKind.cuda}
    return engines[chosen("engine", name, list(engines))]


def _check_names(options: Mapping[str, Any], known: frozenset[str]) -> None:
    for name in options:
        if name not in known:
            raise TypeError(f"{name}: not a keyword argument of this call; expected {', '.join(sorted(known))}")


_kinds = {bool: "True or False", float: "seconds"}


def set_option(options: Any, name: str, value: Any) -> None:
    """Sets an attribute of the extension's options. Errors name the option."""
    try:
        setattr(options, name, value)
    except InvalidArgument:
        raise
    except (TypeError, ValueError, OverflowError):
        kind = _kinds.get(type(getattr(options, name)), "a whole number that fits")
        raise TypeError(f"{name}: expected {kind}, seen {value!r}") from None


def _set_given(call: Any, names: tuple[str, ...], options: Mapping[str, Any]) -> None:
    for name in names:
        if name in options:
            set_option(call, name, options[name])


def _stream(x: Any, options: Mapping[str, Any]) -> int:
    given = options.get("cuda_stream")
    return current_cuda_stream(x) if given is None else given


def buffer_options(options: Any, engine: str, **values: Any) -> Any:
    """Fills in the options of a buffer of either mode."""
    options.engine = engine_kind(engine)
    for name, value in values.items():
        set_option(options, name, value)
    return options


# ---- throughput mode ----


def _call_options(x: Any, options: Mapping[str, Any]) -> _core.CallOptions:
    stream = _stream(x, options)
    if not stream and options.keys() <= _beside:
        return _defaults
    call = _core.CallOptions()
    call.cuda_stream = stream
    if "layout" in options:
        call.expanded = chosen("layout", options["layout"], ["flat", "expanded"]) == "expanded"
    after = options.get("after")
    if after is not None:
        if not isinstance(after, _core.Event):
            raise TypeError(f"after: expected an Event, seen {type(after).__name__}")
        call.after = after
    _set_given(call, _plain, options)
    return call


def dispatch_options(x: Any, options: Mapping[str, Any]) -> tuple[Any, Any, _core.CallOptions]:
    """Returns (scales, routing, the other options); routing is a handle, token_in_rank, or None."""
    if not options:
        return None, None, _call_options(x, options)
    _check_names(options, DispatchOptions.__optional_keys__)
    handle, in_rank = options.get("handle"), options.get("token_in_rank")
    if handle is not None and in_rank is not None:
        raise InvalidArgument("routing: expected exactly one of topk_idx, token_in_rank and handle, seen two of them")
    if handle is not None and not isinstance(handle, _core.Handle):
        raise TypeError(f"handle: expected the Handle of a dispatch, seen {type(handle).__name__}")
    return options.get("scales"), handle if handle is not None else in_rank, _call_options(x, options)


def combine_options(x: Any, options: Mapping[str, Any]) -> tuple[Any, Any, Any, _core.CallOptions]:
    """Returns (topk_weights, row_weights, (bias0, bias1, out) or None, the other options)."""
    if not options:
        return None, None, None, _call_options(x, options)
    _check_names(options, CombineOptions.__optional_keys__)
    rest = (options.get("bias0"), options.get("bias1"), options.get("out"))
    given = rest if any(each is not None for each in rest) else None
    return options.get("topk_weights"), options.get("row_weights"), given, _call_options(x, options)


# ---- low-latency mode ----


def _low_latency_call_options(x: Any, options: Mapping[str, Any]) -> _core.LowLatencyCallOptions:
    call = _core.LowLatencyCallOptions()
    call.cuda_stream = _stream(x, options)
    for name, choices in _low_latency_choices.items():
        if name in options:
            setattr(call, name, choices[chosen(name, options[name], choices)])
    _set_given(call, _low_latency_plain, options)
    return call


def low_latency_dispatch_arguments(x: Any, topk_idx: Any, options: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns (x, scales, topk_idx, topk_weights, received_per_expert, wait_ns_per_source, counts, other options)."""
    _check_names(options, LowLatencyDispatchOptions.__optional_keys__)
    names = ("topk_weights", "received_per_expert", "wait_ns_per_source", "counts")
    tensors = (options.get(name) for name in names)
    return x, options.get("scales"), topk_idx, *tensors, _low_latency_call_options(x, options)


def low_latency_combine_arguments(x: Any, handle: Any, out: Any, options: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns (x, handle, topk_weights, out, wait_ns_per_source, the other options)."""
    _check_names(options, LowLatencyCombineOptions.__optional_keys__)
    weights, wait_ns = options.get("topk_weights"), options.get("wait_ns_per_source")
    return x, handle, weights, out, wait_ns, _low_latency_call_options(x, options)
