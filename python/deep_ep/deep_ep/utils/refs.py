"""Dispatch and combine by collectives of PyTorch, to compare buffers with. Ranks are those of the default group.

N tokens of this rank, H hidden, K top-k, R ranks, n rows received. A token's global number is its source rank times
num_max_tokens_per_rank plus its number there.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from switchyard import InvalidArgument

from .envs import get_global_seed

# ---- dispatch ----


def dispatch(
    x: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
    topk_idx: torch.Tensor,
    topk_weights: torch.Tensor | None,
    num_max_tokens_per_rank: int,
    num_experts: int,
) -> tuple[Any, torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """Sends each token once to each rank that holds one of its experts. Collective.

    Args:
        x: [N, H], or (values [N, H], scales [N, any]).
        topk_idx: [N, K] integers; -1: not selected.
        topk_weights: [N, K], or None.
        num_max_tokens_per_rank: at least N of each rank.
        num_experts: a multiple of R.

    Returns:
        Rows by source rank, then token: recv_x in the form of x; recv_topk_idx [n, K], local ids, -1 for experts of
        other ranks; recv_topk_weights [n, K] or None; the global numbers of their tokens, [n] int32; and the number of
        rows from each rank, [R] int32.
    """
    rank, ranks = dist.get_rank(), dist.get_world_size()
    each = num_experts // ranks
    if each * ranks != num_experts:
        raise InvalidArgument(f"num_experts: expected a multiple of {ranks} ranks, seen {num_experts}")
    number = rank * num_max_tokens_per_rank + torch.arange(len(topk_idx), dtype=torch.int32, device=topk_idx.device)
    values, scales = x if isinstance(x, tuple) else (x, None)
    owner = topk_idx.div(each, rounding_mode="floor")  # -1 stays -1
    tokens = [(owner == to).any(1).nonzero()[:, 0] for to in range(ranks)]
    columns = [values, scales, topk_idx, topk_weights, number]
    counts, received = _exchange([t for t in columns if t is not None], tokens)
    recv = iter(received)
    recv_x, recv_scales, ids, weights, numbers = (None if t is None else next(recv) for t in columns)
    assert ids is not None and numbers is not None
    local = ids - rank * each
    local.masked_fill_((local < 0) | (local >= each), -1)
    return (recv_x if scales is None else (recv_x, recv_scales)), local, weights, numbers, counts


def _exchange(columns: list[torch.Tensor], tokens: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Sends rows of all columns, side by side as bytes: no collective knows all dtypes.

    Args:
        columns: tensors with a row, or a number, for each token.
        tokens: for each rank the tokens that go there.

    Returns:
        The rows from each rank, [R] int32; and what came of each column.
    """
    sent = torch.tensor([len(each) for each in tokens], dtype=torch.int64, device=columns[0].device)
    counts = torch.empty_like(sent)
    dist.all_to_all_single(counts, sent)
    parts = [_bytes_of(column) for column in columns]
    outgoing = torch.cat(parts, dim=1)[torch.cat(tokens)]
    incoming = outgoing.new_empty(int(counts.sum()), outgoing.shape[1])
    dist.all_to_all_single(incoming, outgoing, counts.tolist(), sent.tolist())
    came = incoming.split([part.shape[1] for part in parts], dim=1)
    # A copy begins where an element may: a single row in the middle of the bytes counts as contiguous, too.
    copies = [part.clone(memory_format=torch.contiguous_format) for part in came]
    shaped = [part.view(column.dtype).view(len(part), *column.shape[1:]) for part, column in zip(copies, columns)]
    return counts.int(), shaped


def _bytes_of(column: torch.Tensor) -> torch.Tensor:
    rows = column if column.ndim > 1 else column.unsqueeze(1)
    return rows.contiguous().view(torch.uint8)


# ---- combine ----


def generate_pre_combine_data(
    src_token_global_idx: torch.Tensor, num_max_tokens_per_rank: int, num_topk: int, hidden: int
) -> torch.Tensor:
    """Returns what experts would make of each slot of some tokens: [n, K, H] bfloat16, from the numbers alone.

    Channel h = 1..H of slot s = number * K + k is sin(p(s) h + sin(seed)), where p(s) = (131071 s mod m + 1) / m,
    m = R * num_max_tokens_per_rank * K, and seed is what init_seed was called with.

    Args:
        src_token_global_idx: [n] integers, the global numbers of the tokens.
        num_max_tokens_per_rank, num_topk, hidden: as in the dispatch; K; H.
    """
    device = src_token_global_idx.device
    slots = src_token_global_idx.long().unsqueeze(1) * num_topk + torch.arange(num_topk, device=device)
    most = dist.get_world_size() * num_max_tokens_per_rank * num_topk
    steps = ((slots * 131071 % most).float() + 1) / most
    channels = torch.arange(1, hidden + 1, dtype=torch.float32, device=device)
    return torch.sin(steps.unsqueeze(2) * channels + math.sin(get_global_seed())).bfloat16()


def ordered_accumulate(data: torch.Tensor, initial_value: torch.Tensor | None = None) -> torch.Tensor:
    """Returns the sums [N, H] over the slots of data ([N, K, H]): slot after slot, rounded to data's dtype at the end.

    Args:
        initial_value: [N, H]: what the sums begin with. They are made in its dtype; None: 0 in float32.
    """
    if initial_value is None:
        sums = torch.zeros_like(data[:, 0], dtype=torch.float32)
    else:
        sums = initial_value.clone()
    for slot in data.unbind(1):
        sums += slot.float()
    return sums.to(data.dtype)


def combine(
    y: torch.Tensor,
    topk_idx: torch.Tensor,
    num_scaleout_ranks: int,
    num_scaleup_ranks: int,
    num_experts: int,
    bias: torch.Tensor | tuple[torch.Tensor, torch.Tensor] | None,
    reduce_in_local: bool,
    reduce_in_scaleup: bool,
) -> torch.Tensor:
    """Returns the sums [N, H] of what experts made of this rank's tokens, added up in float32 in steps.

    Args:
        y: [N, K, H]: what the expert of each slot made.
        topk_idx: [N, K] the experts.
        num_scaleout_ranks, num_scaleup_ranks, num_experts: how experts are spread.
        bias: one or two tensors [N, H] to begin the sums with.
        reduce_in_local: whether slots of one rank are first added up, and rounded to y's dtype.
        reduce_in_scaleup: whether then those of one node are. Needs reduce_in_local.
    """
    if reduce_in_scaleup and not reduce_in_local:
        raise InvalidArgument("reduce_in_local: expected True with reduce_in_scaleup, seen False")
    of_rank = num_experts // (num_scaleout_ranks * num_scaleup_ranks)
    steps = [of_rank] * reduce_in_local + [of_rank * num_scaleup_ranks] * reduce_in_scaleup
    for experts in steps:
        y = _sums_of_groups(y, topk_idx.div(experts, rounding_mode="floor"))
    if bias is not None:
        bias = bias.float() if isinstance(bias, torch.Tensor) else bias[0].float() + bias[1].float()
    return ordered_accumulate(y, bias)


def _sums_of_groups(y: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """Returns [N, K, H]: in the last slot of each group the sum of its slots, in their order; 0 in the others.

    Args:
        group: [N, K]: the group of each slot.
    """
    tokens, slots = group.shape
    every = torch.arange(tokens, device=y.device)
    sums = torch.zeros_like(y, dtype=torch.float32)
    is_last = torch.ones_like(group, dtype=torch.bool)
    for slot in range(slots):
        same = group[:, :slot] == group[:, slot : slot + 1]
        after = torch.arange(1, slot + 1, device=y.device)
        previous = (same * after).amax(1) - 1 if slot else torch.full_like(every, -1)
        # Where the group has no previous slot, -1 stands for the last slot, whose sum is 0 until its turn.
        sums[:, slot] = sums[every, previous] + y[:, slot].float()
        is_last[every, previous] &= previous < 0
    return sums.to(y.dtype).masked_fill(~is_last.unsqueeze(2), 0)
