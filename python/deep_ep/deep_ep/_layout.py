"""What a dispatch would send to whom."""

from __future__ import annotations

from typing import Any

import switchyard
import torch
from switchyard import Event, InvalidArgument, OutOfMemory, _core

from ._streams import stream_of

Layout = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def queued_layout(buffer: switchyard.Buffer, topk_idx: torch.Tensor, asynchronous: bool) -> tuple[Layout, Event | None]:
    """By one kernel of the engine, where by_torch takes many. The event is what its contents come with; None: the
    current stream. That waits for nothing with one.
    """
    if asynchronous:
        return buffer._core.get_layout_async(topk_idx, stream_of(topk_idx))
    return buffer._core.get_layout(topk_idx, stream_of(topk_idx)), None


def any_layout(
    buffer: switchyard.Buffer | None, topk_idx: Any, sizes: tuple[int, int], asynchronous: bool
) -> tuple[Layout, Event | None]:
    """As queued_layout if there is a buffer and room in it, else as layout_of.

    Args:
        sizes: num_experts, num_ranks.
    """
    if buffer is not None:
        try:
            return queued_layout(buffer, topk_idx, asynchronous)
        except OutOfMemory:
            pass  # results that the caller holds fill its heap
    return layout_of(topk_idx, *sizes), None


def layout_of(topk_idx: Any, num_experts: int, num_ranks: int) -> Layout:
    """(num_tokens_per_rank, num_tokens_per_expert, is_token_in_rank), where topk_idx lies."""
    if isinstance(topk_idx, torch.Tensor) and topk_idx.is_cuda:
        return by_torch(topk_idx, num_experts, num_ranks)
    return _core.get_layout(topk_idx, num_experts, num_ranks)


def by_torch(topk_idx: torch.Tensor, num_experts: int, num_ranks: int) -> Layout:
    """On the current stream, and in PyTorch's memory. Nothing waits: ids out of range count as not used, as by the
    engine.
    """
    if topk_idx.ndim != 2 or topk_idx.dtype not in (torch.int64, torch.int32):
        raise InvalidArgument(
            f"topk_idx: expected int64 or int32 [tokens, top-k], seen {topk_idx.dtype} {list(topk_idx.shape)}"
        )
    used = (topk_idx >= 0) & (topk_idx < num_experts)
    # What is not used goes to one more expert, or rank, that is cut off.
    expert = topk_idx.long().where(used, num_experts)
    rank = _ranks_of(expert, num_experts, num_ranks).where(used, num_ranks)
    in_rank = torch.zeros(len(topk_idx), num_ranks + 1, dtype=torch.bool, device=topk_idx.device)
    in_rank = in_rank.scatter_(1, rank, True)[:, :num_ranks].contiguous()
    per_expert = torch.zeros(num_experts + 1, dtype=torch.int32, device=topk_idx.device)
    per_expert.scatter_add_(0, expert.flatten(), torch.ones_like(expert, dtype=torch.int32).flatten())
    return in_rank.sum(0, dtype=torch.int32), per_expert[:num_experts], in_rank


def _ranks_of(expert: torch.Tensor, num_experts: int, num_ranks: int) -> torch.Tensor:
    """By arithmetic: a table would have to be copied to the GPU. The first ranks hold one more."""
    each, more = divmod(num_experts, num_ranks)
    wide = more * (each + 1)
    return torch.where(expert < wide, expert // (each + 1), more + (expert - wide) // max(each, 1))
