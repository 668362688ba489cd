"""Which rank has which expert, and what is known of the tokens that go there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def ranks_of_experts(experts: int, ranks: int) -> list[int]:
    """Returns the rank of each expert: contiguous ranges, of which the first experts % ranks hold one more."""
    each, more = divmod(experts, ranks)
    return [rank for rank in range(ranks) for _ in range(each + (1 if rank < more else 0))]


@dataclass
class Routed:
    """Tokens of each expert: in all [E], and by their source [R, E] where that was counted."""

    load: np.ndarray
    by_source: np.ndarray | None
    node_by_rank: list[int]
