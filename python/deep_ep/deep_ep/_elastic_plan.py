"""How a dispatch of ElasticBuffer was asked for."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import torch
from switchyard import InvalidArgument

from ._elastic_sizes import Routing, most_rows
from ._errors import number, with_text, wrong_type
from .ep_handle import EPHandle, Plan

Asked = tuple["int | None", "int | None", "int | None", int, "bool | None", bool]
"""Arguments of a dispatch: num_experts, num_max_tokens_per_rank, expert_alignment, num_sms, do_cpu_sync, do_expand.
None: not given.
"""


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
    sizes = num_ranks, most_tokens, 0 if asked[4] is None or asked[4] is True else topk_idx.shape[1]
    try:
        return _known_plan(sizes, *asked)
    except TypeError:  # of an argument, or of one that cannot be looked up
        return _plan_with(sizes, *asked)


def _plan_with(
    sizes: tuple[int, int, int],
    num_experts: int | None,
    most: int | None,
    alignment: int | None,
    num_sms: int,
    do_cpu_sync: bool | None,
    do_expand: bool,
) -> Plan:
    """Args:
    sizes: the number of ranks, the constructor's num_max_tokens_per_rank, and without CPU sync the top-k.
    """
    num_ranks, most_tokens, top_k = sizes
    if num_experts is None:
        raise InvalidArgument("num_experts: expected it with topk_idx, seen None")
    alignment = 1 if alignment is None else number("expert_alignment", alignment)
    most = number("num_max_tokens_per_rank", most_tokens if most is None else most)
    experts, sms = number("num_experts", num_experts), number("num_sms", num_sms)
    plan = Plan(bool(do_expand), experts, alignment, most, 0, sms)
    if do_cpu_sync is None or do_cpu_sync:
        return plan
    if most <= 0:
        raise InvalidArgument(
            "num_max_tokens_per_rank: expected it, here or in the constructor, with do_cpu_sync=False: results have "
            "room for all tokens that may come"
        )
    worst = most_rows(Routing(num_ranks, experts, top_k, most), do_expand, max(1, alignment))
    return plan._replace(num_worst_tokens=worst)


_plain = frozenset((int, bool, type(None)))


# Callers pass the same arguments in every step. By type, too: 8.0 is equal to 8, and is not a number of experts.
@lru_cache(maxsize=1024, typed=True)
def _known_plan(sizes: tuple[int, int, int], *asked: Any) -> Plan:
    """Raises TypeError, and keeps nothing, for a tensor of one number, which is the same key whatever the number is."""
    if not _plain.issuperset(map(type, (*sizes, *asked))):
        raise TypeError
    return _plan_with(sizes, *asked)


def _repeated_plan(handle: Any, topk_idx: torch.Tensor | None, asked: Asked) -> Plan:
    """Returns the plan of the handle. Arguments given with a handle must be those of its dispatch."""
    plan = own(handle).plan
    if topk_idx is not None and topk_idx is not handle.topk_idx:
        raise InvalidArgument("topk_idx: expected none with a handle, or handle.topk_idx, seen another tensor")
    num_experts, most, alignment, num_sms, _, do_expand = asked
    given = {
        "num_experts": num_experts,
        "num_max_tokens_per_rank": most,
        "expert_alignment": alignment,
        "do_expand": do_expand,
    }
    for name, value in given.items():
        if value is not None and value is not False and value not in (None, False, getattr(plan, name)):
            raise InvalidArgument(f"{name}: expected {getattr(plan, name)} as in the handle, seen {value}")
    sms = number("num_sms", num_sms)
    return plan._replace(num_sms=sms) if sms else plan


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
