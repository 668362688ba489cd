"""A problem of all ranks, and what one of them must receive and get back."""

from __future__ import annotations

from typing import Any

import reference
import torch
from devices import here, same
from ranks import played_nodes
from reference import Inputs


class Problem:
    """Everybody's inputs; `own` are this rank's on the CPU, `mine` the same on the device in use.

    `node_of` says for each rank on which node it is.
    """

    def __init__(self, group: Any, inputs: list[Inputs], experts: int) -> None:
        self.rank, self.size = group.rank(), group.size()
        self.inputs, self.experts = inputs, experts
        self.node_of = played_nodes(self.size)
        self.own = inputs[self.rank]
        self.mine = here(self.own)

    def received(self, rank: int | None = None, alignment: int = 1) -> reference.Received:
        """Returns what a rank receives in the flat layout."""
        return reference.flat(self.inputs, self.rank if rank is None else rank, self.experts, alignment)

    def expanded(self, rank: int | None = None, alignment: int = 1) -> reference.Expanded:
        return reference.expanded(self.inputs, self.rank if rank is None else rank, self.experts, alignment)

    def sums(self, factor: float = 1.0) -> torch.Tensor:
        """Returns the sums of this rank's tokens if experts multiply rows of the flat layout by a factor."""
        received = [self.received(r) for r in range(self.size)]
        outputs = [r.x * factor for r in received]
        return reference.combined(outputs, received, self.rank, len(self.own.x), self.node_of)

    def expanded_sums(self, *factors: float) -> torch.Tensor:
        """Does the same for the expanded layout.

        Args:
            factors: one for each rank, or one for all of them; none: 1.
        """
        of_rank = factors if len(factors) > 1 else (factors or (1.0,)) * self.size
        rows = [self.expanded(r).x * of_rank[r] for r in range(self.size)]
        return reference.expanded_sums(rows, self.inputs, self.rank, self.experts, self.node_of)

    def weights_back(self) -> torch.Tensor:
        return self.own.topk_weights * (self.own.topk_idx >= 0)

    def table(self) -> torch.Tensor:
        """Returns [N, R] bool: which ranks receive a token."""
        return reference.ranks_of(self.own, self.experts, self.size)

    @property
    def over_nodes(self) -> bool:
        return max(self.node_of) > 0

    def node_table(self, rank: int | None = None) -> torch.Tensor:
        """Returns [N, nodes] bool: which nodes receive a token of a rank."""
        table = reference.ranks_of(self.inputs[self.rank if rank is None else rank], self.experts, self.size)
        nodes = range(max(self.node_of) + 1)
        of = [[rank for rank in range(self.size) if self.node_of[rank] == node] for node in nodes]
        return torch.stack([table[:, ranks].any(1) for ranks in of], 1)

    def per_node(self) -> torch.Tensor | None:
        """Returns [nodes] int32, or None on one node: tokens of this rank that go to a node."""
        return self.node_table().sum(0, dtype=torch.int32) if self.over_nodes else None

    def check_per_node(self, seen: torch.Tensor | None) -> None:
        expected = self.per_node()
        assert (seen is None) == (expected is None)
        if seen is not None and expected is not None:
            same(seen, expected)

    def local_rank(self, rank: int) -> int:
        """Returns the number of a rank in its node."""
        return self.node_of[:rank].count(self.node_of[rank])

    def per_expert(self) -> torch.Tensor:
        """Returns [E] int32: slots of this rank's tokens for each expert."""
        ids = self.own.topk_idx
        return torch.bincount(ids[ids >= 0], minlength=self.experts).int()

    def prefixes(self) -> torch.Tensor:
        """Returns [R, R] int32: tokens that a rank (column) receives from all ranks up to one (row)."""
        return torch.tensor([self.received(r).prefix for r in range(self.size)], dtype=torch.int32).t()

    def fp8(self, columns: int, dtype: torch.dtype) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Returns everybody's x as float8_e4m3fn, and scales, of any strides, that say which token a row is."""
        return [
            (
                each.x.to(torch.float8_e4m3fn),
                (torch.arange(len(each.x) * columns).view(columns, -1).t() + 1000 * rank).to(dtype),
            )
            for rank, each in enumerate(self.inputs)
        ]


def check_fp8(problem: Problem, pairs: list[Any], rows: torch.Tensor, scales: torch.Tensor) -> None:
    """Checks rows of the flat layout against the pairs of problem.fp8, of which one may have been changed."""
    rows, scales, meta = rows.cpu(), scales.cpu(), problem.received()
    for row, (source, token) in enumerate(zip(meta.source.tolist(), meta.source_token.tolist())):
        assert torch.equal(rows[row].float(), pairs[source][0][token].float())
        assert torch.equal(scales[row], pairs[source][1][token])
