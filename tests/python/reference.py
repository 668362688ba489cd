"""Dispatch and combine by plain loops over the inputs of all ranks. Results are compared with these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

group = 128


@dataclass
class Inputs:
    """The inputs of one rank."""

    x: torch.Tensor
    topk_idx: torch.Tensor
    topk_weights: torch.Tensor


def make_inputs(rank: int, *, tokens: int, hidden: int, experts: int, top_k: int, dtype: torch.dtype) -> Inputs:
    """Makes inputs from a seed: the experts of a token are distinct, and some slots are not used."""
    random = torch.Generator().manual_seed(1000 + rank)
    x = torch.randn(tokens, hidden, generator=random).to(dtype)
    ids = torch.rand(tokens, experts, generator=random).argsort(1)[:, :top_k].to(torch.int64)
    ids[torch.rand(tokens, top_k, generator=random) < 0.2] = -1
    return Inputs(x, ids, torch.rand(tokens, top_k, generator=random))


def experts_of(rank: int, experts: int, ranks: int) -> range:
    each, more = divmod(experts, ranks)
    first = rank * each + min(rank, more)
    return range(first, first + each + (1 if rank < more else 0))


def rank_of(expert: int, experts: int, ranks: int) -> int:
    return next(rank for rank in range(ranks) if expert in experts_of(rank, experts, ranks))


@dataclass
class Received:
    """What a rank must receive in the flat layout, by source, then token."""

    x: torch.Tensor
    topk_idx: torch.Tensor
    topk_weights: torch.Tensor
    source: torch.Tensor
    source_token: torch.Tensor
    tokens_per_expert: list[int]
    prefix: list[int]


def flat(inputs: list[Inputs], rank: int, experts: int, alignment: int = 1) -> Received:
    mine = experts_of(rank, experts, len(inputs))
    rows, prefix = [], []
    counts = [0] * len(mine)
    for source, each in enumerate(inputs):
        for token in range(each.x.shape[0]):
            here = [k for k, e in enumerate(each.topk_idx[token].tolist()) if e in mine]
            if here:
                rows.append((source, token, here))
            for k in here:
                counts[int(each.topk_idx[token, k]) - mine.start] += 1
        prefix.append(len(rows))
    top_k = inputs[0].topk_idx.shape[1]
    ids = torch.full((len(rows), top_k), -1, dtype=torch.int64)
    weights = torch.zeros(len(rows), top_k)
    for row, (source, token, here) in enumerate(rows):
        for k in here:
            ids[row, k] = inputs[source].topk_idx[token, k] - mine.start
            weights[row, k] = inputs[source].topk_weights[token, k]
    empty = inputs[0].x.new_empty(0, inputs[0].x.shape[1])
    x = torch.stack([inputs[s].x[t] for s, t, _ in rows]) if rows else empty
    return Received(
        x,
        ids,
        weights,
        torch.tensor([s for s, _, _ in rows], dtype=torch.int32),
        torch.tensor([t for _, t, _ in rows], dtype=torch.int32),
        [-(-count // alignment) * alignment for count in counts],
        prefix,
    )


@dataclass
class Expanded:
    """What a rank must receive in the expanded layout: its real rows, by local expert, then source, then token."""

    x: torch.Tensor
    weights: torch.Tensor
    at: torch.Tensor
    """[real rows] int64: where they lie."""
    rows: int
    """Rows with padding."""
    counts: list[int]
    """Rows of each local expert, without padding."""
    ends: list[int]
    """Where the real rows of each local expert end."""


def expanded(inputs: list[Inputs], rank: int, experts: int, alignment: int = 1) -> Expanded:
    start, rows, weights, at, counts, ends = 0, [], [], [], [], []
    for expert in experts_of(rank, experts, len(inputs)):
        before = len(rows)
        for each in inputs:
            for token, k in (each.topk_idx == expert).nonzero().tolist():
                rows.append(each.x[token])
                weights.append(each.topk_weights[token, k])
        counts.append(len(rows) - before)
        at += range(start, start + counts[-1])
        ends.append(start + counts[-1])
        start += -(-counts[-1] // alignment) * alignment
    x = torch.stack(rows) if rows else inputs[0].x.new_empty(0, inputs[0].x.shape[1])
    of_rows = torch.stack(weights) if weights else torch.empty(0)
    return Expanded(x, of_rows, torch.tensor(at, dtype=torch.int64), start, counts, ends)


def tree_sum(
    parts: list[tuple[int, torch.Tensor]], node_of: list[int], source: int, on_the_way: torch.dtype
) -> torch.Tensor:
    """Returns the sum of a token's rows in float32: by node first, then in the order of nodes.

    Args:
        parts: the ranks that made the rows, and the rows, in the order of slots.
        node_of: the node of each rank.
        source: the rank of the token.
        on_the_way: the dtype of sums that nodes other than the token's own make.
    """
    total = torch.zeros(parts[0][1].shape)
    for node in sorted({node_of[rank] for rank, _ in parts}):
        rows = [row.float() for rank, row in parts if node_of[rank] == node]
        of_node = sum(rows[1:], start=rows[0])
        total += of_node if node == node_of[source] else of_node.to(on_the_way).float()
    return total


def expanded_sums(
    outputs: list[torch.Tensor], inputs: list[Inputs], source: int, experts: int, node_of: list[int]
) -> torch.Tensor:
    """What combine must give source: unweighted sums of its tokens' rows.

    Args:
        outputs: of each rank, its real rows in order.
        node_of: the node of each rank.
    """
    at_slot = {}
    for rank, rows in enumerate(outputs):
        row = 0
        for expert in experts_of(rank, experts, len(inputs)):
            for other, each in enumerate(inputs):
                for token, slot in (each.topk_idx == expert).nonzero().tolist():
                    if other == source:
                        at_slot[token, slot] = rank, rows[row]
                    row += 1
    made = torch.zeros_like(inputs[source].x)
    for token in {token for token, _ in at_slot}:
        parts = [at_slot[key] for key in sorted(at_slot) if key[0] == token]
        made[token] = tree_sum(parts, node_of, source, made.dtype)
    return made


def ranks_of(mine: Inputs, experts: int, ranks: int) -> torch.Tensor:
    """Returns [N, R] bool: which ranks receive a token."""
    table = torch.zeros(mine.x.shape[0], ranks, dtype=torch.bool)
    for rank in range(ranks):
        for expert in experts_of(rank, experts, ranks):
            table[:, rank] |= (mine.topk_idx == expert).any(1)
    return table


def combined(
    outputs: list[torch.Tensor],
    received: list[Received],
    source: int,
    tokens: int,
    node_of: list[int] | None = None,
    exact: bool = False,
) -> torch.Tensor:
    """Returns the sums of a rank's tokens. A rank's row comes at the last slot that names one of its experts.

    Args:
        node_of: the node of each rank; None: all are on one.
        exact: whether sums stay float32 between nodes.
    """
    parts: list[list[Any]] = [[] for _ in range(tokens)]
    for rank, (rows, meta) in enumerate(zip(outputs, received)):
        for row in (meta.source == source).nonzero().flatten().tolist():
            last = int((meta.topk_idx[row] >= 0).nonzero().max())
            parts[int(meta.source_token[row])].append((last, rank, rows[row]))
    made = torch.zeros(tokens, outputs[0].shape[1], dtype=outputs[0].dtype)
    for token, of_token in enumerate(parts):
        if of_token:
            in_order = [part[1:] for part in sorted(of_token, key=lambda part: part[0])]
            on_the_way = torch.float32 if exact else made.dtype
            made[token] = tree_sum(in_order, node_of or [0] * len(outputs), source, on_the_way)
    return made


def weights_of_all_ranks(
    weights: list[torch.Tensor], received: list[Received], source: int, tokens: int
) -> torch.Tensor:
    """Returns [tokens, K]: the sums of a token's weights over all ranks that have it, whoever owns a slot's expert."""
    total = torch.zeros(tokens, weights[0].shape[1])
    for rows, meta in zip(weights, received):
        mine = meta.source == source
        total.index_add_(0, meta.source_token[mine].long(), rows[mine])
    return total


def metadata(inputs: list[Inputs], rank: int, experts: int, max_tokens: int, alignment: int) -> list[list[int]]:
    """Rows of EPHandle.recv_src_metadata in the expanded layout."""
    own = experts_of(rank, experts, len(inputs))
    row_of: dict[tuple[int, int, int], int] = {}
    start = 0
    for expert in own:
        row = start
        for source, each in enumerate(inputs):
            for token, slot in (each.topk_idx == expert).nonzero().tolist():
                row_of[source, token, slot] = row
                row += 1
        start += -(-(row - start) // alignment) * alignment
    lines = []
    for source, each in enumerate(inputs):
        for token, ids in enumerate(each.topk_idx.tolist()):
            slots = [k for k, expert in enumerate(ids) if expert in own]
            if slots:
                at = [row_of.get((source, token, k), -1) for k in range(len(ids))]
                lines.append([source * max_tokens + token, source * len(ids) + slots[-1], *at])
    return lines
