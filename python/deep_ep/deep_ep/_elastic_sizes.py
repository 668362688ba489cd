"""How much a dispatch may receive."""

from __future__ import annotations

from typing import NamedTuple

# What models have at most, and what grouped matrix products want.
usual_experts, usual_alignment = 512, 128


class Routing(NamedTuple):
    """What all ranks know of a dispatch beforehand."""

    num_ranks: int
    num_experts: int
    top_k: int
    max_tokens: int
    """Of a rank."""


def most_rows(routing: Routing, expanded: bool, alignment: int) -> int:
    """Rows that no dispatch of distinct experts a token exceeds, on any rank.

    Expanded: padding included, which only experts have that got a token. Counts of experts are multiples of alignment,
    and so is their sum.
    """
    tokens = routing.num_ranks * routing.max_tokens
    if not expanded:
        return max(1, tokens)
    local = -(-routing.num_experts // routing.num_ranks)
    slots = tokens * min(routing.top_k, local)
    return max(1, (slots + min(slots, local) * (alignment - 1)) // alignment * alignment)


def engine_tokens(of_call: int, of_buffer: int, most: int) -> int:
    """What an engine is made for, so that few are made: each has a heap. 0: nobody says.

    Args:
        of_call, of_buffer: num_max_tokens_per_rank.
        most: that an engine can take.
    """
    if 0 < of_call <= of_buffer:
        return of_buffer
    return 0 if of_call <= 0 else max(of_call, min(1 << (of_call - 1).bit_length(), most))


def heap_bytes(num_ranks: int, max_tokens: int, hidden: int, top_k: int, fp8: bool) -> int:
    """Bytes of a rank's heap: a received result of most rows, the experts' outputs, and the sums.

    top_k 0: flat layout only. Experts are not known here: there is room to pad the counts of usual_experts.
    """
    slots = max(1, top_k)
    rows = num_ranks * max_tokens * slots
    if top_k:
        rows += min(rows, -(-usual_experts // num_ranks)) * (usual_alignment - 1)
    received = hidden + -(-hidden // 128) * 4 if fp8 else 2 * hidden
    of_row = 12 * slots + 4  # ids, weights, the source
    sums = max_tokens * (2 * hidden + 4 * slots)
    return rows * (received + 2 * hidden + of_row) + sums + (1 << 21)
