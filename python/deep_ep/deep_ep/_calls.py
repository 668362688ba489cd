"""Dispatch and combine of V1 and V2: from checked arguments to the engine and back."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Callable

import switchyard
import torch
from switchyard import Error, Event, Handle, InvalidArgument, interop

from ._agreement import explained
from ._errors import in_our_words, wrong_type
from ._events import finished
from .utils.event import EventOverlap

Routing = tuple[Any, Any, Any]
"""topk_idx, topk_weights, and a handle or is_token_in_rank; each may be None. With a handle ids only travel along."""

Received = tuple[Any, Any, Any, Any, list[int], Handle, "Event | None"]
"""x, scales, topk_idx, topk_weights, the rows of each local expert, the handle; and the event after which contents are
valid. None: they are valid now.
"""

# Callers of the throughput mode give the bound to ElasticBuffer, if at all.
_most_tokens = ("num_max_dispatch_tokens_per_rank", "num_max_tokens_per_rank")

# ---- options ----


@lru_cache(maxsize=1024)
def dispatch_options(
    num_sms: int,
    queued: bool,
    rows: tuple[int, bool, bool],
    num_worst_tokens: int,
    keep_source_tokens: bool,
    most_tokens: int = 0,
    copies: tuple[bool, bool] = (False, False),
) -> interop.CallOptions:
    """Callers pass the same options in every step, so options are made once.

    Args:
        num_sms: a number that Engines.num_sms returned.
        queued: whether the call returns before it is done.
        rows: expert_alignment, whether they are expanded, and whether those that pad are zeros.
        keep_source_tokens: whether the handle keeps a copy of the received source tokens. CPU only: on a GPU the host
            cannot read them.
        most_tokens: of a rank; 0: any number. For dispatch_as_before alone.
        copies: whether the handle keeps a copy of topk_idx, and whether received scales are copied to columns, if the
            engine can.
    """
    alignment, expanded, zero_padding = rows
    keep_ids, scales_by_column = copies
    return interop.call_options(
        current_stream=True,
        most_tokens=most_tokens,
        queued=queued,
        keep_source_tokens=keep_source_tokens,
        keep_ids=keep_ids,
        scales_by_column=scales_by_column,
        expert_alignment=alignment,
        num_worst_tokens=num_worst_tokens,
        num_sms=num_sms,
        expanded=expanded,
        zero_padding=zero_padding,
    )


@lru_cache(maxsize=1024)
def combine_options(num_sms: int, queued: bool, weights_of_all_ranks: bool) -> interop.CallOptions:
    return interop.call_options(
        current_stream=True, queued=queued, num_sms=num_sms, weights_of_all_ranks=weights_of_all_ranks
    )


class LatestOptions:
    """The options of the latest call. Whoever makes the same call again need not work them out.

    Most calls are like the one before, and what options are made of is asked of several objects.
    """

    __slots__ = ("_engine", "_key", "_options", "_plan")

    def __init__(self) -> None:
        self._engine: Any = None
        self._plan: Any = None
        self._key: Any = None
        self._options: interop.CallOptions | None = None

    def find(self, engine: switchyard.Buffer | None, plan: Any, key: tuple[Any, ...]) -> interop.CallOptions | None:
        """Returns those of a call of the same engine and plan, which are the same objects, and an equal key."""
        same = self._engine is engine and self._plan is plan and self._key == key
        return self._options if same else None

    def keep(
        self, engine: switchyard.Buffer | None, plan: Any, key: tuple[Any, ...], options: interop.CallOptions
    ) -> interop.CallOptions:
        self._engine, self._plan, self._key, self._options = engine, plan, key, options
        return options


def made_or_refused(
    refuse: Callable[[switchyard.Buffer], None],
    engine: switchyard.Buffer,
    after: Event | None,
    make: Callable[..., interop.CallOptions],
    *values: Any,
) -> interop.CallOptions:
    """Returns make(*values) for a call that starts after the event. If that raises, all ranks refuse the call."""
    try:
        made = make(*values)
        return made if after is None else made.starting_after(after)
    except Exception:
        refuse(engine)
        raise


def is_queued(asynchronous: bool, x: torch.Tensor, num_worst_tokens: int) -> bool:
    """Whether a dispatch returns before it is done.

    On the CPU only dispatches with num_worst_tokens do, since others know the shapes of their results when they are
    done. On a GPU the tensors exist when the call returns.
    """
    return num_worst_tokens > 0 or x.is_cuda if asynchronous else False


def routes_anew(num_worst_tokens: int, x: torch.Tensor) -> bool:
    """Whether a cached dispatch is a dispatch by the same ids, which make the same rows.

    The CUDA engine captures no cached dispatch into a graph, but the worst-case mode is there to be captured.
    """
    return num_worst_tokens > 0 and x.is_cuda


# ---- calls ----


def dispatch(
    engine: switchyard.Buffer, x: torch.Tensor, scales: Any, routing: Routing, options: interop.CallOptions
) -> Received:
    try:
        return interop.dispatch_tensors(engine, x, scales, *routing, options)
    except InvalidArgument as error:
        raise explained(in_our_words(error, _most_tokens), x.dtype) from error
    except (Error, TypeError) as error:
        raise in_our_words(error) from error


def dispatch_as_before(
    engine: switchyard.Buffer,
    x: Any,
    topk_idx: Any,
    topk_weights: Any,
    experts: Any,
    options: interop.CallOptions,
    received_per_expert: Any = None,
) -> Received | None:
    """Returns what dispatch returns, if the call is one of this engine; None, and does nothing, if it may not be.

    Args:
        x: rows, or a tuple of them and their scales; not checked yet.
        experts: the number of experts, or a tensor of as many counts.
        received_per_expert: rows of each local expert are added to it; None: nobody counts them.
    """
    try:
        return interop.dispatch_if_it_fits(engine, x, topk_idx, topk_weights, experts, options, received_per_expert)
    except InvalidArgument as error:
        raise explained(in_our_words(error, _most_tokens), (x[0] if isinstance(x, tuple) else x).dtype) from error
    except (Error, TypeError) as error:
        raise in_our_words(error) from error


def combine(
    engine: switchyard.Buffer,
    handle: Handle,
    rows: tuple[torch.Tensor, Any, tuple[Any, Any]],
    after: Event | None,
    num_sms: int,
    asynchronous: bool,
    weights_of_all_ranks: bool,
) -> tuple[torch.Tensor, torch.Tensor | None, EventOverlap]:
    """Returns the sums, the sums of weights, and the event after which they are valid.

    On the CPU calls with weights are not queued, since their sums get memory when they are done.

    Args:
        rows: x, topk_weights, two biases.
        weights_of_all_ranks: whether weights are summed over all ranks that have a token, whoever owns the slot's
            expert.
    """
    x, weights, biases = rows
    on_gpu = x.is_cuda
    queued = on_gpu or weights is None if asynchronous else False
    options = made_or_refused(
        interop.refuse_combine, engine, after, combine_options, num_sms, queued, weights_of_all_ranks
    )
    out = None
    try:
        if queued and not on_gpu:
            out = torch.empty(handle.num_tokens, engine.hidden, dtype=x.dtype, device="cpu")
        if isinstance(weights, torch.Tensor):
            weights = weights.contiguous()  # gradients are often expanded
        rest = None if out is None and biases is no_biases else (*biases, out)
        sums, back, event = interop.combine_tensors(engine, x, handle, weights, None, rest, options)
    except (Error, TypeError) as error:
        raise in_our_words(error, _most_tokens) from error
    return sums if out is None else out, back, finished(asynchronous, event, on_gpu)


no_biases = (None, None)


def biases_of(bias: Any) -> tuple[Any, Any]:
    """Returns two biases, either of which may be None, from 0, 1 or 2 tensors."""
    if bias is None:
        return no_biases
    if isinstance(bias, torch.Tensor):
        return bias, None
    if not isinstance(bias, (tuple, list)):
        raise wrong_type("bias", "a torch.Tensor, or up to two of them", bias)
    if len(bias) > 2:
        raise InvalidArgument(f"bias: expected 0, 1 or 2 tensors, seen {len(bias)}")
    first, second = (*bias, None, None)[:2]
    return first, second
