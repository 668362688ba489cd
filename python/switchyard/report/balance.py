"""Load and traffic as experts lie now, and as switchyard.plan_experts would place them with more replicas."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._experts import plan_experts
from .model import Balance
from .ranks import Routed, ranks_of_experts

# Counts of replicas that a page has, and the most of them by the experts.
MOST_COUNTS = 9
MOST_SHARE = 1.5


def balances(routed: Routed, nodes: int = 0) -> list[Balance]:
    """Returns how experts lie now, then a plan for each count of replicas. Nothing where nothing was routed.

    Args:
        routed: the tokens.
        nodes: to plan for; 0: those that the ranks ran on.
    """
    ranks = len(routed.node_by_rank)
    node_by_rank = [rank * nodes // ranks for rank in range(ranks)] if nodes else routed.node_by_rank
    counts = np.bincount(node_by_rank)
    even = len(set(counts.tolist())) == 1 and sorted(node_by_rank) == list(node_by_rank)
    if routed.load.sum() <= 0:
        return []
    traffic = routed.by_source[None] if even and routed.by_source is not None else None
    now = _now(routed, node_by_rank, traffic is not None and len(counts) > 1)
    planned = [
        _planned(routed, replicas, len(counts) if even else 1, traffic)
        for replicas in _replicas(len(routed.load), ranks)
    ]
    return [now, *planned]


def _replicas(experts: int, gpus: int) -> list[int]:
    least = -(-experts // gpus) * gpus
    step = max(1, round(least * (MOST_SHARE - 1) / (MOST_COUNTS - 1) / gpus)) * gpus
    return [least + i * step for i in range(MOST_COUNTS)]


def _now(routed: Routed, node_by_rank: list[int], crosses: bool) -> Balance:
    ranks = len(node_by_rank)
    rank_of = np.array(ranks_of_experts(len(routed.load), ranks))
    load = np.bincount(rank_of, weights=routed.load, minlength=ranks)
    crossing = None
    if crosses and routed.by_source is not None:
        nodes = np.array(node_by_rank)
        crossing = float(routed.by_source[nodes[:, None] != nodes[rank_of][None, :]].sum())
    return Balance(len(routed.load), load.tolist(), float(load.max() / load.mean()), crossing)


def _planned(routed: Routed, replicas: int, nodes: int, traffic: Any) -> Balance:
    gpus = len(routed.node_by_rank)
    plan = plan_experts(routed.load[None], replicas, 1, nodes, gpus, traffic=traffic)
    experts = plan.physical_to_logical[0]
    share = routed.load[experts] / plan.replica_count[0][experts]
    load = share.reshape(gpus, -1).sum(axis=1)
    crossing = float(plan.crossing[0]) if traffic is not None and nodes > 1 else None
    return Balance(replicas, load.tolist(), float(load.max() / load.mean()), crossing)
