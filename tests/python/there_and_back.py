"""A small dispatch and its combine, checked: for programs whose launcher is what a test is about."""

from __future__ import annotations

import reference
import switchyard
import torch

tokens, hidden, experts, top_k = 16, 256, 8, 2


def inputs(rank: int) -> reference.Inputs:
    return reference.make_inputs(rank, tokens=tokens, hidden=hidden, experts=experts, top_k=top_k, dtype=torch.bfloat16)


def both_ways(communicator: switchyard.Communicator) -> None:
    everybody = [inputs(rank) for rank in range(communicator.size)]
    mine = everybody[communicator.rank]
    with switchyard.Buffer(communicator, max_tokens=tokens, hidden=hidden, num_experts=experts, top_k=top_k) as buffer:
        result = buffer.dispatch(mine.x, mine.topk_idx, mine.topk_weights)
        received = [reference.flat(everybody, rank, experts) for rank in range(communicator.size)]
        assert torch.equal(result.x, received[communicator.rank].x)
        outputs, nodes = [each.x for each in received], communicator.node_by_rank
        wanted = reference.combined(outputs, received, communicator.rank, tokens, nodes)
        assert torch.equal(buffer.combine(result.x, result.handle).x, wanted)
