"""Dispatch and combine of V1 and V2: from checked arguments to the engine and back."""

from __future__ import annotations

from typing import Any, NamedTuple

import switchyard
import torch
from switchyard import Error, Event, InvalidArgument, interop

from ._agreement import explained
from ._engines import Engines
from ._errors import in_our_words, wrong_type
from ._events import finished
from ._source import Source
from .utils.event import EventOverlap


class Rows(NamedTuple):
    """How a dispatch lays out its rows."""

    alignment: int = 1
    """Counts of experts are rounded up to it."""
    num_worst_tokens: int = 0
    """Rows of the result; 0: as many as are received."""
    expanded: bool = False
    zero_padding: bool = False
    source_tokens: bool = False
    """Whether the handle keeps a copy of the received source tokens. CPU only: on a GPU the host cannot read them."""


class Call(NamedTuple):
    """A dispatch without its routing."""

    source: Source
    after: Event | None
    num_sms: int
    """The number that the caller asked for; 0: the engine chooses."""
    rows: Rows
    queued: bool


class Repeated(NamedTuple):
    """The dispatch that a cached one repeats."""

    engine: switchyard.Buffer
    handle: switchyard.Handle
    topk_idx: Any
    """As in that dispatch."""
    num_worst_tokens: int
    sends_ids: bool = False
    """Whether ids, and topk_weights, travel again."""
    topk_weights: Any = None


class Sending(NamedTuple):
    """A combine without its handle."""

    x: torch.Tensor
    topk_weights: torch.Tensor | None
    biases: tuple[Any, Any]
    after: Event | None
    num_sms: int
    queued: bool
    weights_of_all_ranks: bool = False
    """Whether weights are summed over all ranks that have a token, whoever owns the slot's expert."""


Routing = tuple[Any, Any, Any]
"""topk_idx, topk_weights, and a handle or is_token_in_rank; each may be None. With a handle ids only travel along."""


# Callers of the throughput mode give the bound to ElasticBuffer, if at all.
_most_tokens = ("num_max_dispatch_tokens_per_rank", "num_max_tokens_per_rank")

# ---- dispatch ----


def dispatch(engines: Engines, engine: switchyard.Buffer, call: Call, routing: Routing) -> tuple[Any, Event | None]:
    """Returns the DispatchResult, and the event after which its contents are valid; None: they are valid now.

    On the CPU only dispatches with num_worst_tokens are queued, since others know the shapes of their results when they
    are done. On a GPU the tensors exist when the call returns.
    """
    x = call.source.x
    sms = engines.num_sms(call.num_sms, x)
    options = interop.or_refuse(interop.refuse_dispatch, engine, _options, x, call.after, sms, call.rows)
    inputs = (x, call.source.scales, *routing, options)
    try:
        if call.queued and (call.rows.num_worst_tokens > 0 or x.is_cuda):
            return interop.dispatch_async(engine, *inputs)
        return interop.dispatch(engine, *inputs), None
    except InvalidArgument as error:
        raise explained(in_our_words(error, _most_tokens), x.dtype) from error
    except (Error, TypeError) as error:
        raise in_our_words(error) from error


def dispatch_again(engines: Engines, call: Call, earlier: Repeated) -> tuple[Any, Event | None]:
    """Dispatches x along the routes of an earlier dispatch."""
    if not _routes_anew(call, earlier):
        ids = earlier.topk_idx if earlier.sends_ids else None
        return dispatch(engines, earlier.engine, call, (ids, earlier.topk_weights, earlier.handle))
    call = call._replace(rows=call.rows._replace(num_worst_tokens=earlier.num_worst_tokens))
    return dispatch(engines, earlier.engine, call, (earlier.topk_idx, earlier.topk_weights, None))


def _routes_anew(call: Call, earlier: Repeated) -> bool:
    """Whether a cached dispatch is a dispatch by the same ids, which make the same rows.

    On the CUDA engine a cached dispatch waits on the host until all ranks have accepted it. The host must not wait in
    the worst-case mode.
    """
    return earlier.num_worst_tokens > 0 and call.source.x.is_cuda


# Callers pass the same options in every step, so options are made once.
_known_options: dict[tuple[int, int, Rows, bool], interop.CallOptions] = {}
_any_rows = Rows()


def _options(
    x: torch.Tensor, after: Event | None, num_sms: int, rows: Rows = _any_rows, weights_of_all_ranks: bool = False
) -> interop.CallOptions:
    """Returns options of the engine. num_sms is a number that Engines.num_sms returned."""
    stream = interop.current_cuda_stream(x)
    key = (num_sms, stream, rows, weights_of_all_ranks)
    found = _known_options.get(key)
    if found is not None and after is None:
        return found
    made = interop.call_options(
        cuda_stream=stream,
        keep_source_tokens=rows.source_tokens,
        expert_alignment=rows.alignment,
        num_worst_tokens=rows.num_worst_tokens,
        num_sms=num_sms,
        expanded=rows.expanded,
        zero_padding=rows.zero_padding,
        weights_of_all_ranks=weights_of_all_ranks,
    )
    if after is None:
        _known_options[key] = made
    else:
        made.after = after
    return made


# ---- combine ----


def combine(
    engines: Engines, engine: switchyard.Buffer, handle: switchyard.Handle, call: Sending
) -> tuple[torch.Tensor, torch.Tensor | None, EventOverlap]:
    """Returns the sums, the sums of weights, and the event after which they are valid."""
    sms = engines.num_sms(call.num_sms, call.x)
    all_ranks = call.weights_of_all_ranks
    options = interop.or_refuse(interop.refuse_combine, engine, _options, call.x, call.after, sms, _any_rows, all_ranks)
    try:
        sums, weights, event = _combine(engine, handle, call, options)
    except (Error, TypeError) as error:
        raise in_our_words(error, _most_tokens) from error
    return sums, weights, finished(call.queued, event, call.x.is_cuda)


def _combine(
    engine: switchyard.Buffer, handle: switchyard.Handle, call: Sending, options: interop.CallOptions
) -> tuple[torch.Tensor, torch.Tensor | None, Event | None]:
    """On the CPU calls with weights are not queued, since their sums get memory when they are done."""
    x, weights = call.x, call.topk_weights
    combined: Any
    if isinstance(weights, torch.Tensor):
        weights = weights.contiguous()  # gradients are often expanded
    if call.queued and weights is None and not x.is_cuda:
        out = torch.empty(handle.num_tokens, engine.hidden, dtype=x.dtype, device="cpu")
        _, event = interop.combine_async(engine, x, handle, None, None, (*call.biases, out), options)
        return out, None, event
    rest = None if all(each is None for each in call.biases) else (*call.biases, None)
    if call.queued and x.is_cuda:
        combined, event = interop.combine_async(engine, x, handle, weights, None, rest, options)
        return combined.x, combined.topk_weights, event
    combined = interop.combine(engine, x, handle, weights, None, rest, options)
    return combined.x, combined.topk_weights, None


def biases_of(bias: Any) -> tuple[Any, Any]:
    """Returns two biases, either of which may be None, from 0, 1 or 2 tensors."""
    if bias is None or isinstance(bias, torch.Tensor):
        return bias, None
    if not isinstance(bias, (tuple, list)):
        raise wrong_type("bias", "a torch.Tensor, or up to two of them", bias)
    if len(bias) > 2:
        raise InvalidArgument(f"bias: expected 0, 1 or 2 tensors, seen {len(bias)}")
    first, second = (*bias, None, None)[:2]
    return first, second
