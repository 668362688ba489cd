"""The operators switchyard::dispatch, switchyard::dispatch_cached and switchyard::combine.

Operators take and return only tensors and numbers. So a number stands for the buffer, and a tensor of one element, the
token, for the handle, which it keeps alive. Results that do not exist are empty tensors.
"""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

from .. import _core
from .._buffer import Buffer
from .._lifetime import buffer_of_key
from .._refusal import or_refuse, refuse_combine, refuse_dispatch


def _buffer(key: int) -> Buffer:
    # The key may be a symbol: a compiler that has seen several buffers makes it one.
    return buffer_of_key(int(key))  # type: ignore[return-value]


def _handle(token: Tensor) -> _core.Handle:
    return _core.handle_of_token(int(token.item()))


def _none(like: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty(0, dtype=dtype, device=like.device)


@torch.library.custom_op("switchyard::dispatch", mutates_args=())
def dispatch(
    x: Tensor, topk_idx: Tensor, topk_weights: Optional[Tensor], buffer: int, expanded: bool, alignment: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns rows, their top-k ids (flat), their weights, tokens_per_expert (int64, on the CPU), and the token."""
    result = _buffer(buffer).dispatch(
        x,
        topk_idx,
        topk_weights,
        layout="expanded" if expanded else "flat",
        expert_alignment=alignment,
        zero_padding=expanded and alignment > 1,
    )
    ids = result.topk_idx if result.topk_idx is not None else _none(x, topk_idx.dtype)
    weights = result.topk_weights if result.topk_weights is not None else _none(x, torch.float32)
    counts = torch.tensor(result.tokens_per_expert, dtype=torch.int64, device="cpu")
    token: Any = _core.handle_token(result.handle, x)
    return result.x, ids, weights, counts, token


@dispatch.register_fake
def _(
    x: Tensor, topk_idx: Tensor, topk_weights: Optional[Tensor], buffer: int, expanded: bool, alignment: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows = torch.library.get_ctx().new_dynamic_size()
    owner = _buffer(buffer)
    ids = _none(x, topk_idx.dtype) if expanded else topk_idx.new_empty(rows, topk_idx.shape[1])
    if topk_weights is None:
        weights = _none(x, torch.float32)
    else:
        weights = topk_weights.new_empty(rows) if expanded else topk_weights.new_empty(rows, topk_idx.shape[1])
    counts = torch.empty(owner.num_local_experts, dtype=torch.int64, device="cpu")
    return x.new_empty(rows, x.shape[1]), ids, weights, counts, torch.empty(1, dtype=torch.int64, device="cpu")


@torch.library.custom_op("switchyard::dispatch_cached", mutates_args=())
def dispatch_cached(x: Tensor, token: Tensor, buffer: int, rows: int, expanded: bool) -> Tensor:
    """Returns the rows of x where an earlier dispatch put them."""
    owner, layout = _buffer(buffer), "expanded" if expanded else "flat"
    handle = or_refuse(refuse_dispatch, owner, _handle, token)
    return owner.dispatch(x, handle=handle, layout=layout, zero_padding=expanded).x  # type: ignore[no-any-return]


@dispatch_cached.register_fake
def _(x: Tensor, token: Tensor, buffer: int, rows: int, expanded: bool) -> Tensor:
    return x.new_empty(rows, x.shape[1])


@torch.library.custom_op("switchyard::combine", mutates_args=())
def combine(
    x: Tensor, topk_weights: Optional[Tensor], token: Tensor, buffer: int, tokens: int, expanded: bool
) -> tuple[Tensor, Tensor]:
    """Returns the sums of rows and the sums of weights."""
    owner = _buffer(buffer)
    handle = or_refuse(refuse_combine, owner, _handle, token)
    result = owner.combine(x, handle, topk_weights=topk_weights)
    return result.x, result.topk_weights if result.topk_weights is not None else _none(x, torch.float32)


@combine.register_fake
def _(
    x: Tensor, topk_weights: Optional[Tensor], token: Tensor, buffer: int, tokens: int, expanded: bool
) -> tuple[Tensor, Tensor]:
    weights = _none(x, torch.float32)
    if topk_weights is not None:
        weights = topk_weights.new_empty(tokens, _buffer(buffer).top_k)
    return x.new_empty(tokens, x.shape[1]), weights


def _keep_dispatch(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, _, ctx.weights, ctx.buffer, ctx.expanded, _ = inputs
    ctx.weights = ctx.weights is not None
    ctx.tokens = x.shape[0]
    rows, ids, weights, counts, token = output
    ctx.mark_non_differentiable(ids, counts, token)
    ctx.save_for_backward(token)


def _dispatch_backward(
    ctx: Any, rows: Tensor, ids: Any, weights: Tensor, counts: Any, token: Any
) -> tuple[Tensor | None, ...]:
    (token,) = ctx.saved_tensors
    given = weights.contiguous() if ctx.weights else None
    x, summed = combine(rows.contiguous(), given, token, ctx.buffer, ctx.tokens, ctx.expanded)
    return x, None, summed if ctx.weights else None, None, None, None


def _keep_cached(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, token, ctx.buffer, _, ctx.expanded = inputs
    ctx.tokens = x.shape[0]
    ctx.save_for_backward(token)


def _cached_backward(ctx: Any, rows: Tensor) -> tuple[Tensor | None, ...]:
    (token,) = ctx.saved_tensors
    return combine(rows.contiguous(), None, token, ctx.buffer, ctx.tokens, ctx.expanded)[0], None, None, None, None


def _keep_combine(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weights, token, ctx.buffer, _, ctx.expanded = inputs
    ctx.weights = weights is not None
    ctx.rows = x.shape[0]
    ctx.save_for_backward(token)


def _combine_backward(ctx: Any, sums: Tensor, weights: Tensor) -> tuple[Tensor | None, ...]:
    if ctx.weights:
        raise NotImplementedError("combine with topk_weights has no gradient: it is the backward of a dispatch")
    (token,) = ctx.saved_tensors
    return dispatch_cached(sums.contiguous(), token, ctx.buffer, ctx.rows, ctx.expanded), None, None, None, None, None


dispatch.register_autograd(_dispatch_backward, setup_context=_keep_dispatch)
dispatch_cached.register_autograd(_cached_backward, setup_context=_keep_cached)
combine.register_autograd(_combine_backward, setup_context=_keep_combine)
