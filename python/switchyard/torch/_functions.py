"""The operators as functions whose results have names."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .._buffer import Buffer
from .._refusal import refuse_dispatch
from . import _ops


class Routed(NamedTuple):
    """The result of `dispatch`. n rows received, H hidden, K top_k, L experts of this rank."""

    x: Tensor
    """[n, H], dtype of the input; gradients pass."""
    topk_idx: Tensor
    """Flat layout: [n, K] local expert ids, -1 for experts of other ranks; expanded: empty."""
    topk_weights: Tensor
    """Flat [n, K], expanded [n] float32; gradients pass. Empty if no weights were given."""
    tokens_per_expert: Tensor
    """[L] int64 on the CPU: rows of each local expert, rounded up to the alignment."""
    token: Tensor
    """Stands for the handle. Keep this tensor: a copy of it does not hold the handle."""
    num_tokens: int
    """N of the dispatch."""
    expanded: bool
    """Whether the layout is expanded."""


def dispatch(
    buffer: Buffer,
    x: Tensor,
    topk_idx: Tensor,
    topk_weights: Tensor | None = None,
    *,
    layout: str = "flat",
    expert_alignment: int = 1,
) -> Routed:
    """`Buffer.dispatch` with gradients: its backward is a combine. Raises the same as `Buffer.dispatch`.

    Args:
        x: [N, H] bfloat16, float16 or float32.
        topk_idx: [N, K] int64 or int32; -1: slot not used.
        topk_weights: [N, K] float32.
        layout: "flat" or "expanded"; padding rows are zeros, in forward and backward.
        expert_alignment: as in Buffer.dispatch.
    """
    expanded = layout == "expanded"
    if not expanded and layout != "flat":
        refuse_dispatch(buffer)
        raise ValueError(f"layout: expected 'flat' or 'expanded', seen {layout!r}")
    rows, ids, weights, counts, token = _ops.dispatch(
        x, topk_idx, topk_weights, buffer.key, expanded, expert_alignment
    )
    return Routed(rows, ids, weights, counts, token, x.shape[0], expanded)


def dispatch_cached(buffer: Buffer, x: Tensor, routed: Routed) -> Tensor:
    """Sends [N, H] rows along the routes of an earlier dispatch; its backward is a combine. Returns [n, H]."""
    return _ops.dispatch_cached(x, routed.token, buffer.key, routed.x.shape[0], routed.expanded)


def combine(buffer: Buffer, x: Tensor, routed: Routed) -> Tensor:
    """`Buffer.combine` with gradients: its backward is a cached dispatch.

    Args:
        x: [n, H] bfloat16, float16 or float32, in the rows of `routed`.
        routed: the result of the dispatch.

    Returns:
        [N, H]: for each token the unweighted sum of its rows.
    """
    return _ops.combine(x, None, routed.token, buffer.key, routed.num_tokens, routed.expanded)[0]
