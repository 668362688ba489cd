"""What ElasticBuffer must give, by plain loops over all ranks' inputs."""

from __future__ import annotations

from dataclasses import dataclass

import reference
import torch
from reference import Inputs, experts_of


@dataclass(frozen=True)
class Case:
    """Sizes and routing; everybody's inputs follow from the seed."""

    kind: str
    ranks: int
    seed: int
    hidden: int = 256
    experts: int = 8
    top_k: int = 3
    tokens: tuple[int, ...] = (13, 0, 7, 1)
    """Of each rank."""

    @property
    def max_tokens(self) -> int:
        return max(1, *(self.tokens[: self.ranks]))

    def inputs(self, dtype: torch.dtype = torch.bfloat16) -> list[Inputs]:
        return [self._inputs(rank, dtype) for rank in range(self.ranks)]

    def _inputs(self, rank: int, dtype: torch.dtype) -> Inputs:
        made = reference.make_inputs(
            1000 * self.seed + rank,
            tokens=self.tokens[rank],
            hidden=self.hidden,
            experts=self.experts,
            top_k=self.top_k,
            dtype=dtype,
        )
        if self.kind == "skewed":  # everybody wants the last expert, few anything else
            made.topk_idx[:, 1:] = -1
            made.topk_idx[:, 0] = self.experts - 1
        if self.kind == "empty":
            made.topk_idx[:] = -1
        return made


def cases(ranks: int, seed: int) -> list[Case]:
    """Random, skewed and empty routing; no tokens at all; sizes that divide by nothing; ranks without experts."""
    return [
        Case("random", ranks, seed),
        Case("skewed", ranks, seed + 1),
        Case("empty", ranks, seed + 2),
        Case("random", ranks, seed + 3, tokens=(0, 0, 0, 0)),
        Case("random", ranks, seed + 4, hidden=77, experts=7, top_k=5, tokens=(3, 5, 11, 2)),
        Case("random", ranks, seed + 5, experts=1, top_k=1),
    ]


@dataclass
class Expanded:
    """What a rank must receive in the expanded layout: real rows alone, and where they lie."""

    x: torch.Tensor
    weights: torch.Tensor
    at: torch.Tensor
    """[real rows] int64."""
    rows: int
    """With padding."""
    counts: list[int]
    """Without."""
    ends: list[int]
    """Of the real rows of each expert."""


def expanded(inputs: list[Inputs], rank: int, experts: int, alignment: int) -> Expanded:
    x, weights = reference.expanded(inputs, rank, experts)
    start, at, counts, ends = 0, [], [], []
    for expert in experts_of(rank, experts, len(inputs)):
        count = sum(int((each.topk_idx == expert).sum()) for each in inputs)
        at += range(start, start + count)
        counts.append(count)
        ends.append(start + count)
        start += -(-count // alignment) * alignment
    return Expanded(x, weights, torch.tensor(at, dtype=torch.int64), start, counts, ends)


def expanded_sums(outputs: list[torch.Tensor], inputs: list[Inputs], source: int, experts: int) -> torch.Tensor:
    """What combine must give source: unweighted sums in float32, by expert, rounded once.

    Args:
        outputs: of each rank, its real rows in order.
    """
    total = torch.zeros(inputs[source].x.shape)
    for rank, rows in enumerate(outputs):
        row = 0
        for expert in experts_of(rank, experts, len(inputs)):
            for other, each in enumerate(inputs):
                for token, _ in (each.topk_idx == expert).nonzero().tolist():
                    if other == source:
                        total[token] += rows[row].float()
                    row += 1
    return total.to(inputs[source].x.dtype)


def tokens_from(inputs: list[Inputs], rank: int, experts: int) -> list[int]:
    """Tokens that rank receives, from all ranks up to each."""
    return reference.flat(inputs, rank, experts).prefix
