"""From the arguments of ElasticBuffer.dispatch to a plan."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from switchyard import InvalidArgument

from ._checks import number, wrong_type
from ._elastic_sizes import Routing, most_rows
from .ep_handle import EPHandle, Plan


class Asked(NamedTuple):
    """Arguments of a dispatch; None: not given."""

    num_experts: int | None
    num_max_tokens_per_rank: int | None
    expert_alignment: int | None
    num_sms: int
    do_cpu_sync: bool | None
    do_expand: bool


def fresh_plan(topk_idx: Any, num_ranks: int, asked: Asked, most_tokens: int) -> Plan:
    """Of a dispatch by topk_idx; see ElasticBuffer.dispatch. most_tokens: where num_max_tokens_per_rank is None."""
    if not isinstance(topk_idx, torch.Tensor):
        raise wrong_type("topk_idx", "a torch.Tensor (or handle)", topk_idx)
    if topk_idx.ndim != 2:
        raise InvalidArgument(f"topk_idx: expected a tensor [tokens, top-k], seen shape {list(topk_idx.shape)}")
    if asked.num_experts is None:
        raise InvalidArgument("num_experts: expected it beside topk_idx, seen None")
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
            "room for all that may come"
        )
    routing = Routing(num_ranks, plan.num_experts, topk_idx.shape[1], most)
    return plan._replace(num_worst_tokens=most_rows(routing, plan.do_expand, max(1, alignment)))


def repeated_plan(handle: Any, topk_idx: torch.Tensor | None, asked: Asked) -> Plan:
    """Of a cached dispatch. What is asked for beside the handle must be as in its dispatch."""
    plan = own(handle).plan
    if topk_idx is not None and topk_idx is not handle.topk_idx:
        raise InvalidArgument("topk_idx: expected none beside handle, or handle.topk_idx, seen another tensor")
    for name in ("num_experts", "num_max_tokens_per_rank", "expert_alignment", "do_expand"):
        value, wanted = getattr(asked, name), getattr(plan, name)
        if value not in (None, False, wanted):
            raise InvalidArgument(f"{name}: expected {wanted} as in the handle, seen {value}")
    return plan._replace(num_sms=number("num_sms", asked.num_sms) or plan.num_sms)


def check_tokens(x: torch.Tensor, plan: Plan) -> None:
    """The engine may have been made for more."""
    most = plan.num_max_tokens_per_rank
    if 0 < most < x.shape[0]:
        raise InvalidArgument(f"x: dimension 0: expected at most num_max_tokens_per_rank = {most}, seen {x.shape[0]}")


def num_expanded_tokens(plan: Plan, num_ranks: int, top_k: int, counts: list[int]) -> int:
    """Rows of the expanded layout, whatever the dispatch's. counts: of experts; none without CPU sync."""
    if plan.num_worst_tokens == 0:
        return sum(counts)
    routing = Routing(num_ranks, plan.num_experts, top_k, plan.num_max_tokens_per_rank)
    return most_rows(routing, True, plan.expert_alignment)


def own(handle: Any) -> EPHandle:
    if not isinstance(handle, EPHandle):
        raise wrong_type("handle", "the EPHandle of a dispatch", handle)
    return handle
