"""How a dispatch of ElasticBuffer was asked for, and how much it may receive."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import torch
from switchyard import InvalidArgument

from ._errors import number, with_text, wrong_type
from .ep_handle import EPHandle, Plan

# The most experts that models have, and the alignment that grouped matrix products want.
usual_experts, usual_alignment = 512, 128


class Asked(NamedTuple):
    """Arguments of a dispatch; None: not given."""

    num_experts: int | None
    num_max_tokens_per_rank: int | None
    expert_alignment: int | None
    num_sms: int
    do_cpu_sync: bool | None
    do_expand: bool


# ---- plans ----


def plan_of(handle: Any, topk_idx: Any, asked: Asked, sizes: tuple[int, int]) -> Plan:
    """Returns the plan of a dispatch, along a handle or (None) by topk_idx. See ElasticBuffer.dispatch.

    Args:
        sizes: the number of ranks, and the constructor's num_max_tokens_per_rank.
    """
    if handle is not None:
        return _repeated_plan(handle, topk_idx, asked)
    return _fresh_plan(topk_idx, asked, *sizes)


def _fresh_plan(topk_idx: Any, asked: Asked, num_ranks: int, most_tokens: int) -> Plan:
    if not isinstance(topk_idx, torch.Tensor):
        raise wrong_type("topk_idx", "a torch.Tensor (or handle)", topk_idx)
    if topk_idx.ndim != 2:
        raise InvalidArgument(f"topk_idx: expected a tensor [tokens, top-k], seen shape {list(topk_idx.shape)}")
    if asked.num_experts is None:
        raise InvalidArgument("num_experts: expected it with topk_idx, seen None")
    alignment = 1 if asked.expert_alignment is None else number("expert_alignment", asked.expert_alignment)
    most = most_tokens if asked.num_max_tokens_per_rank is None else asked.num_max_tokens_per_rank
    most = number("num_max_tokens_per_rank", most)
    experts, sms = number("num_experts", asked.num_experts), number("num_sms", asked.num_sms)
    plan = Plan(asked.do_expand, experts, alignment, most, 0, sms)
    if asked.do_cpu_sync is None or asked.do_cpu_sync:
        return plan
    if most <= 0:
        raise InvalidArgument(
            "num_max_tokens_per_rank: expected it, here or in the constructor, with do_cpu_sync=False: results have "
            "room for all tokens that may come"
        )
    routing = Routing(num_ranks, plan.num_experts, topk_idx.shape[1], most)
    return plan._replace(num_worst_tokens=most_rows(routing, plan.do_expand, max(1, alignment)))


def _repeated_plan(handle: Any, topk_idx: torch.Tensor | None, asked: Asked) -> Plan:
    """Returns the plan of the handle. Arguments given with a handle must be those of its dispatch."""
    plan = own(handle).plan
    if topk_idx is not None and topk_idx is not handle.topk_idx:
        raise InvalidArgument("topk_idx: expected none with a handle, or handle.topk_idx, seen another tensor")
    for name in ("num_experts", "num_max_tokens_per_rank", "expert_alignment", "do_expand"):
        value, wanted = getattr(asked, name), getattr(plan, name)
        if value not in (None, False, wanted):
            raise InvalidArgument(f"{name}: expected {wanted} as in the handle, seen {value}")
    return plan._replace(num_sms=number("num_sms", asked.num_sms) or plan.num_sms)


def own(handle: Any) -> EPHandle:
    if not isinstance(handle, EPHandle):
        raise wrong_type("handle", "the EPHandle of a dispatch", handle)
    return handle


def check_tokens(x: torch.Tensor, plan: Plan) -> None:
    """Checks the bound that the caller gave: the engine may have been made for more tokens."""
    most = plan.num_max_tokens_per_rank
    if 0 < most < x.shape[0]:
        raise InvalidArgument(f"x: dimension 0: expected at most num_max_tokens_per_rank = {most}, seen {x.shape[0]}")


_too_few = re.compile(r"num_worst_tokens: expected at least (\d+) \(rows received\), seen (\d+)")


def explained_rows(error: InvalidArgument) -> InvalidArgument:
    """Returns the error of a dispatch without CPU sync, which allows for tokens whose ids are distinct."""
    wanted = "topk_idx: expected distinct ids in each token without CPU sync, which make at most {} rows, seen {}"
    text = _too_few.sub(lambda found: wanted.format(found[2], found[1]), str(error))
    return error if text == str(error) else with_text(error, text)


# ---- sizes ----


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


def num_expanded_tokens(plan: Plan, num_ranks: int, top_k: int, counts: list[int]) -> int:
    """Returns the rows of the expanded layout, whichever layout the dispatch has.

    Args:
        counts: rows of each local expert; empty without CPU sync.
    """
    if plan.num_worst_tokens == 0:
        return sum(counts)
    routing = Routing(num_ranks, plan.num_experts, top_k, plan.num_max_tokens_per_rank)
    return most_rows(routing, True, plan.expert_alignment)


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
