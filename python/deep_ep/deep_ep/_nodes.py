"""Which ranks share a node, and what DeepEP calls that."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import switchyard
import torch

DomainSize = tuple[int, int]


class Nodes:
    """The nodes of a job, as one of its ranks sees them. There they are called RDMA ranks.

    Attributes:
        rank, own: this rank, and its node.
        by_rank: the node of each rank.
        ranks: the ranks of each node.
    """

    def __init__(self, communicator: switchyard.Communicator) -> None:
        self.rank = communicator.rank
        self.by_rank = communicator.node_by_rank
        self.own = self.by_rank[self.rank]
        self.ranks: list[list[int]] = [[] for _ in range(max(self.by_rank) + 1)]
        for rank, node in enumerate(self.by_rank):
            self.ranks[node].append(rank)
        self._on: dict[torch.device, torch.Tensor] = {}

    @property
    def count(self) -> int:
        return len(self.ranks)

    def peer_of(self, rank: int, node: int) -> int:
        """Returns the rank of a node that passes on what comes from a rank: that with its number in its node.

        Where a node has fewer ranks, its ranks take turns.
        """
        if self.by_rank[rank] == node:
            return rank
        there = self.ranks[node]
        return there[self.ranks[self.by_rank[rank]].index(rank) % len(there)]

    def tokens_per_node(self, in_rank: torch.Tensor) -> torch.Tensor:
        """Returns [nodes] int32: tokens that go to a node, each counted once. in_rank: [N, R] bool."""
        return self.tokens_in_node(in_rank).sum(0, dtype=torch.int32)

    def tokens_in_node(self, in_rank: torch.Tensor) -> torch.Tensor:
        """Returns [N, nodes] bool: whether a token goes to a node."""
        device = in_rank.device
        if device not in self._on:
            self._on[device] = torch.tensor(self.by_rank, dtype=torch.int64, device=device)
        ranks = torch.zeros(len(in_rank), self.count, dtype=torch.int32, device=device)
        return ranks.index_add_(1, self._on[device], in_rank.int()) > 0

    def physical_size(self) -> DomainSize:
        """Returns the number of nodes, and of ranks on this rank's."""
        return self.count, len(self.ranks[self.own])

    def logical_size(self, hybrid: bool) -> DomainSize:
        """Returns the number of scale-out ranks and of scale-up ranks, whose product is that of all ranks.

        Callers take a rank's number apart by these: scale-out rank * scale-up ranks + scale-up rank. That works for
        nodes of one size with consecutive ranks; all others, and all without the hybrid mode, count as one.
        """
        each = len(self.ranks[0])
        if hybrid and self.by_rank == [rank // each for rank in range(self.count * each)]:
            return self.count, each
        return 1, len(self.by_rank)


_of_groups: WeakKeyDictionary[Any, Nodes] = WeakKeyDictionary()


def remember_nodes(group: Any, nodes: Nodes) -> None:
    """Lets nodes_of answer for a group without asking its ranks."""
    if group is not None:
        _of_groups[group] = nodes


def nodes_of(group: Any) -> Nodes:
    """Returns the nodes of a torch.distributed group. Collective, unless a buffer was made of the group before."""
    group = torch.distributed.group.WORLD if group is None else group
    if group not in _of_groups:
        with switchyard.Communicator.from_torch(group) as communicator:
            communicator.barrier()  # nobody leaves before all have come
            _of_groups[group] = Nodes(communicator)
    return _of_groups[group]
