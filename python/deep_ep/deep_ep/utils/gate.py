"""Random scores of a gate, in which rank 0 receives `ratio` times as many tokens as every other rank.

N tokens, E experts, R ranks, K top-k. Tensors lie on torch's default device. The numbers come from torch's generator.
"""

from __future__ import annotations

import torch

from .math import ceil_div


def get_unbalanced_scores(
    num_tokens: int, num_experts: int, num_ranks: int, num_topk: int, ratio: float, precise: bool
) -> torch.Tensor:
    """Returns scores [N, E] float32 whose top K have the ratio: exactly (precise), or on average."""
    make = get_precise_unbalanced_scores if precise else get_random_unbalanced_scores
    return make(num_tokens, num_experts, num_ranks, num_topk, ratio)


# ---- on average ----


def get_random_unbalanced_scores(
    num_tokens: int, num_experts: int, num_ranks: int, num_topk: int, ratio: float
) -> torch.Tensor:
    """Returns uniform scores [N, E] float32; those of rank 0 are scaled, so that it is chosen more often."""
    factor = 1.0
    if ratio != 1:
        factor = map_unbalanced_ratio_to_factor(num_tokens, num_experts, num_ranks, num_topk, ratio)
    return get_scores_by_factor(num_tokens, num_experts, num_ranks, factor)


def get_scores_by_factor(num_tokens: int, num_experts: int, num_ranks: int, factor: float) -> torch.Tensor:
    """Returns scores [N, E] float32: uniform in 0..factor for experts of rank 0, and in 0..1 for the others."""
    scores = torch.rand(num_tokens, num_experts, dtype=torch.float32)
    scores[:, : num_experts // num_ranks] *= factor
    return scores


def map_unbalanced_ratio_to_factor(
    num_tokens: int, num_experts: int, num_ranks: int, num_topk: int, ratio: float
) -> float:
    """Returns the factor, in 1..100, for which get_scores_by_factor has about the ratio. Found by bisection."""
    low, high = 1.0, 100.0
    for _ in range(20):
        middle = (low + high) / 2
        scores = get_scores_by_factor(num_tokens, num_experts, num_ranks, middle)
        received = _chosen_ranks(scores, num_ranks, num_topk).sum(0, dtype=torch.float32)
        if received[0] > ratio * received[1:].mean():
            high = middle
        else:
            low = middle
    return low


def _chosen_ranks(scores: torch.Tensor, num_ranks: int, num_topk: int) -> torch.Tensor:
    """Returns [N, R] bool: whether a rank holds one of the token's top K."""
    tokens, experts = scores.shape
    ranks = scores.topk(num_topk, dim=1).indices // (experts // num_ranks)
    chosen = torch.zeros(tokens, num_ranks, dtype=torch.bool, device=scores.device)
    return chosen.scatter_(1, ranks, True)


# ---- exactly ----


def get_precise_unbalanced_scores(
    num_tokens: int, num_experts: int, num_ranks: int, num_topk: int, ratio: float
) -> torch.Tensor:
    """Returns scores [N, E] float32: above 0.9 for K experts of each token that were chosen beforehand.

    The choice has the ratio but for rounding. Real gates are less even among the other ranks.
    """
    counts = generate_rank_count(num_tokens, num_experts, num_ranks, num_topk, ratio)
    chosen = generate_topk_idx(counts, num_tokens, num_experts, num_ranks, num_topk)
    scores = torch.rand(num_tokens, num_experts, dtype=torch.float32) * 0.9
    high = torch.empty(num_tokens, num_topk, dtype=torch.float32).uniform_(0.9 + 1e-6, 1)
    return scores.scatter_(1, chosen, high)


def generate_topk_idx(
    rank_count: torch.Tensor, num_tokens: int, num_experts: int, num_ranks: int, num_topk: int
) -> torch.Tensor:
    """Returns distinct random experts [N, K] int64, ascending: as many of each rank as rank_count ([N, R]) says.

    Raises ValueError if rank_count has another shape, or a token with other than K experts.
    """
    if rank_count.shape != (num_tokens, num_ranks) or bool((rank_count.sum(1) != num_topk).any()):
        raise ValueError(f"rank_count: expected [{num_tokens}, {num_ranks}] whose rows have the sum {num_topk}")
    noise = torch.rand(num_tokens, num_ranks, num_experts // num_ranks, device=rank_count.device, dtype=torch.float32)
    place = noise.argsort(dim=2).argsort(dim=2)  # of each expert in a random order of its rank's
    return (place < rank_count.unsqueeze(2)).flatten(1).nonzero()[:, 1].view(num_tokens, num_topk)


def generate_rank_count(num_tokens: int, num_experts: int, num_ranks: int, num_topk: int, ratio: float) -> torch.Tensor:
    """Returns [N, R] int32: how many experts of each rank a token chooses, K in all.

    Each token goes to as many ranks as a uniform gate would send it to, but not to more than the ratio allows. Rank 0
    is one of them for `ratio` times as many tokens as any other rank.

    Raises ValueError for a ratio below 1, or one that leaves tokens fewer ranks than K experts need.
    """
    if ratio < 1:
        raise ValueError(f"ratio: expected at least 1, seen {ratio}")
    others = num_ranks - 1
    most, least = int(others / ratio) + 1, ceil_div(num_topk, num_experts // num_ranks)
    if least > most:
        raise ValueError(f"ratio: expected one that leaves a token {least} ranks, seen {ratio}")
    uniform = torch.rand(num_tokens, num_experts, dtype=torch.float32)
    num_chosen = _chosen_ranks(uniform, num_ranks, num_topk).sum(1).clamp_max(most)
    with_first = _tokens_of_first_rank(num_chosen, num_ranks, ratio)

    # A token has a place for each of its ranks. Rank 0 takes the first place of its tokens. The other ranks take turns
    # in the remaining places, so that they get equally many, and no rank twice for one token.
    column = torch.arange(num_topk)
    open_places = column < num_chosen.unsqueeze(1)
    open_places[:, 0] &= ~with_first
    turn = open_places.flatten().cumsum(0).view_as(open_places) - 1
    in_turn = 1 + torch.randperm(max(others, 1))
    ranks = in_turn[turn % max(others, 1)].where(open_places, 0)

    of_slot = ranks.gather(1, column % num_chosen.unsqueeze(1))
    counts = torch.zeros(num_tokens, num_ranks, dtype=torch.int32)
    counts.scatter_add_(1, of_slot, torch.ones_like(of_slot, dtype=torch.int32))
    return counts[torch.randperm(num_tokens)]


def _tokens_of_first_rank(num_chosen: torch.Tensor, num_ranks: int, ratio: float) -> torch.Tensor:
    """Returns [N] bool: whether a token goes to rank 0. It does if it goes to all ranks; others are drawn.

    Args:
        num_chosen: [N]: how many ranks each token goes to.
    """
    places, others = int(num_chosen.sum()), num_ranks - 1
    of_each_other = int(places / (others + ratio))
    of_first = min(places - of_each_other * others, int(of_each_other * ratio) + 1)
    everywhere = num_chosen == num_ranks
    of_first = min(max(of_first, int(everywhere.sum())), len(num_chosen))
    drawn = (torch.rand(len(num_chosen), dtype=torch.float32) + everywhere).topk(of_first).indices
    return torch.zeros_like(everywhere).scatter_(0, drawn, True)
