"""Switchyard under the interface of DeepSeek's EPLB (https://github.com/deepseek-ai/EPLB).

`switchyard.plan_experts` does the work. It also keeps experts where they were, and puts them where their tokens come
from, which this interface has no arguments for. This is not DeepSeek's module: `eplb.engine` is "switchyard".
"""

from __future__ import annotations

import torch
from switchyard import InvalidArgument, plan_experts

engine = "switchyard"

__all__ = ["rebalance_experts"]

# Errors name the arguments of this interface.
_names = {
    "load": "weight",
    "replicas": "num_replicas",
    "groups": "num_groups",
    "nodes": "num_nodes",
    "gpus": "num_gpus",
}


def rebalance_experts(
    weight: torch.Tensor, num_replicas: int, num_groups: int, num_nodes: int, num_gpus: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Plans the replicas of each expert and the GPU of each replica, so that GPUs have equal loads.

    Where num_nodes divides num_groups, each group of experts lies on one node as a whole. Otherwise groups and nodes
    mean nothing. No GPU gets more load than the heaviest one of DeepSeek's algorithm, which is greedy; most get less,
    so the maps are others than DeepSeek's.

    Args:
        weight: [layers, num_logical_experts] real numbers, finite and not negative, on any device: the load of each
            expert, in any unit.
        num_replicas: physical experts of a layer, at least num_logical_experts, a multiple of num_gpus.
        num_groups: of neighbouring experts. Where num_nodes divides it, it divides num_logical_experts.
        num_nodes: of the cluster. Where it divides num_groups, it divides num_gpus.
        num_gpus: of all nodes together.

    Returns:
        Tensors of int64 on the CPU:
        physical_to_logical_map: [layers, num_replicas], the expert of each replica; GPU g has the replicas from
            g * num_replicas / num_gpus on.
        logical_to_physical_map: [layers, num_logical_experts, X], the replicas of each expert, ascending, then -1. X is
            the most replicas of any expert in any layer.
        expert_count: [layers, num_logical_experts], how many replicas each expert has, 1 at least.

    Raises:
        InvalidArgument: (a ValueError) an argument is not one of those; the text says which.
    """
    if num_nodes > 0 and num_groups % num_nodes != 0:
        num_groups = num_nodes = 1
    try:
        plan = plan_experts(torch.as_tensor(weight), num_replicas, num_groups, num_nodes, num_gpus)
    except InvalidArgument as error:
        name, colon, rest = str(error).partition(":")
        raise InvalidArgument(_names.get(name, name) + colon + rest) from None
    return plan.physical_to_logical, plan.logical_to_physical, plan.replica_count
