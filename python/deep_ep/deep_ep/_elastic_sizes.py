"""How much a dispatch of ElasticBuffer may receive."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

# The most experts that models have, and the alignment that grouped matrix products want.
usual_experts, usual_alignment = 512, 128


class Routing(NamedTuple):
    """What all ranks know of a dispatch beforehand."""

    num_ranks: int
    num_experts: int
    top_k: int
    max_tokens: int
    """The most tokens of a rank."""


def most_rows(routing: Routing, expanded: bool, alignment: int) -> int:
    """Returns the most rows that a rank may receive if the experts of each token are distinct.

    In the expanded layout that includes padding, which only experts with a token have. Counts of experts are multiples
    of alignment, and so is their sum.
    """
    tokens = routing.num_ranks * routing.max_tokens
    if not expanded:
        return max(1, tokens)
    local = -(-routing.num_experts // routing.num_ranks)
    slots = tokens * min(routing.top_k, local)
    return max(1, (slots + min(slots, local) * (alignment - 1)) // alignment * alignment)


@lru_cache(maxsize=1024)
def engine_tokens(of_call: int, of_buffer: int, most: int) -> int:
    """Returns the tokens of a rank that an engine is made for; 0: neither argument gives a number.

    Each engine has a heap, so calls with different bounds share few engines.

    Args:
        of_call, of_buffer: num_max_tokens_per_rank.
        most: the most that an engine can take.
    """
    if 0 < of_call <= of_buffer:
        return of_buffer
    return 0 if of_call <= 0 else max(of_call, min(1 << (of_call - 1).bit_length(), most))


def heap_bytes(num_ranks: int, max_tokens: int, hidden: int, top_k: int, fp8: bool) -> int:
    """Returns bytes of a rank's heap: the largest received result, the outputs of experts, and the sums.

    The number of experts is not known here: there is room to pad the counts of usual_experts.

    Args:
        top_k: 0: the flat layout only.
    """
    slots = max(1, top_k)
    rows = num_ranks * max_tokens * slots
    if top_k:
        rows += min(rows, -(-usual_experts // num_ranks)) * (usual_alignment - 1)
    received = hidden + -(-hidden // 128) * 4 if fp8 else 2 * hidden
    of_row = 12 * slots + 4  # ids, weights, the source
    sums = max_tokens * (2 * hidden + 4 * slots)
    return rows * (received + 2 * hidden + of_row) + sums + (1 << 21)
