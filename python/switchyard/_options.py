"""The keyword arguments of calls, as the extension module takes them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Collection, Mapping, TypedDict

from . import _core
from ._errors import InvalidArgument
from ._frameworks import current_cuda_stream


class CallOptions(TypedDict, total=False):
    """What dispatch and combine have in common."""

    num_workers: int
    num_sms: int
    after: _core.Event | None
    cuda_stream: int | None


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
    bias0: Any
    bias1: Any
    out: Any


_tensors = ("scales", "token_in_rank", "handle", "row_weights", "topk_weights", "bias0", "bias1", "out")
_defaults = _core.CallOptions()


def chosen(name: str, value: object, choices: Collection[str]) -> str:
    """`value`, if it is one of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidArgument(f"{name}: expected {' or '.join(map(repr, choices))}, seen {value!r}")
    return value


def engine_kind(name: object) -> _core.EngineKind:
    engines = {"auto": _core.EngineKind.automatic, "cpu": _core.EngineKind.cpu, "cuda": _core.EngineKind.cuda}
    return engines[chosen("engine", name, list(engines))]


@lru_cache(maxsize=None)
def _names(known: tuple[type, ...]) -> frozenset[str]:
    return frozenset().union(*(each.__annotations__ for each in known))


def check_names(options: Mapping[str, Any], *known: type) -> None:
    names = _names(known)
    for name in options:
        if name not in names:
            raise TypeError(f"{name}: not a keyword argument of this call; expected {', '.join(sorted(names))}")


def _call_options(x: Any, options: Mapping[str, Any]) -> _core.CallOptions:
    stream = options.get("cuda_stream")
    if stream is None:
        stream = current_cuda_stream(x)
    plain = {name: value for name, value in options.items() if name not in _tensors and name != "cuda_stream"}
    if not plain and not stream:
        return _defaults
    call = _core.CallOptions()
    call.cuda_stream = stream
    call.expanded = chosen("layout", plain.pop("layout", "flat"), ["flat", "expanded"]) == "expanded"
    after = plain.pop("after", None)
    if after is not None:
        if not isinstance(after, _core.Event):
            raise TypeError(f"after: expected an Event, seen {type(after).__name__}")
        call.after = after
    for name, value in plain.items():
        set_option(call, name, value)
    return call


_kinds = {bool: "True or False", float: "seconds"}


def set_option(options: Any, name: str, value: Any) -> None:
    """With an error that names the option."""
    try:
        setattr(options, name, value)
    except InvalidArgument:
        raise
    except (TypeError, ValueError, OverflowError):
        kind = _kinds.get(type(getattr(options, name)), "a whole number that fits")
        raise TypeError(f"{name}: expected {kind}, seen {value!r}") from None


def buffer_options(options: Any, engine: str, **values: Any) -> Any:
    """Those of a buffer of either mode."""
    options.engine = engine_kind(engine)
    for name, value in values.items():
        set_option(options, name, value)
    return options


def dispatch_options(x: Any, options: Mapping[str, Any]) -> tuple[Any, Any, _core.CallOptions]:
    """(scales, routing, the rest)."""
    if not options:
        return None, None, _call_options(x, options)
    check_names(options, DispatchOptions, CallOptions)
    handle, in_rank = options.get("handle"), options.get("token_in_rank")
    if handle is not None and in_rank is not None:
        raise InvalidArgument("routing: expected exactly one of topk_idx, token_in_rank and handle, seen two of them")
    if handle is not None and not isinstance(handle, _core.Handle):
        raise TypeError(f"handle: expected the Handle of a dispatch, seen {type(handle).__name__}")
    return options.get("scales"), handle if handle is not None else in_rank, _call_options(x, options)


def combine_options(x: Any, options: Mapping[str, Any]) -> tuple[Any, Any, Any, _core.CallOptions]:
    """(topk_weights, row_weights, (bias0, bias1, out) or None, the rest)."""
    if not options:
        return None, None, None, _call_options(x, options)
    check_names(options, CombineOptions, CallOptions)
    rest = (options.get("bias0"), options.get("bias1"), options.get("out"))
    given = rest if any(each is not None for each in rest) else None
    return options.get("topk_weights"), options.get("row_weights"), given, _call_options(x, options)
