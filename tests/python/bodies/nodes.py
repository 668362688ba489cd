"""switchyard.Buffer over nodes, as far as the bodies of one node do not show it. Each function checks itself."""

from __future__ import annotations

from typing import Any

import pytest
import reference
import switchyard
import torch
from bodies.buffer import Job, check_received, experts, hidden, tokens, top_k
from bodies.low_latency_masks import go_on_without
from devices import here, same
from ranks import meet_at_a_free_port, played_nodes

sizes = {"max_tokens": tokens, "hidden": hidden, "num_experts": experts, "top_k": top_k}


def check_both_ways(job: Job, buffer: switchyard.Buffer) -> None:
    result = buffer.dispatch(job.mine.x, job.mine.topk_idx, job.mine.topk_weights)
    check_received(job, result)
    same(buffer.combine(result.x, result.handle).x, job.sums())


def made_by_environment(group: Any) -> None:
    """Nodes are found without a word of the program; from_torch is what all other bodies use."""
    job = Job(group)
    assert job.buffer.communicator.node_by_rank == played_nodes(group.size())
    meet_at_a_free_port(group)
    with switchyard.Communicator.from_environment() as communicator:
        assert communicator.node_by_rank == played_nodes(group.size())
        assert communicator.num_nodes == max(played_nodes(group.size())) + 1
        with switchyard.Buffer(communicator, **sizes) as buffer:
            check_both_ways(job, buffer)
    check_both_ways(job, job.buffer)
    job.buffer.destroy()


def f32_partials(group: Any) -> None:
    """Sums that do not fit into bfloat16 on their way, by a factor of each rank."""
    factors = [1.0, 1 / 3, 3.3, 0.01]
    for exact in (False, True):
        job = Job(group, f32_partials=exact)
        received = [job.received(r) for r in range(job.size)]
        outputs = [(r.x.float() * factor).bfloat16() for r, factor in zip(received, factors)]
        result = job.buffer.dispatch(job.mine.x, job.mine.topk_idx)
        seen = job.buffer.combine(here(outputs[job.rank]), result.handle).x
        wanted = reference.combined(outputs, received, job.rank, len(job.own.x), job.node_of, exact)
        same(seen, wanted)
        job.buffer.destroy()


def one_after_the_other(group: Any) -> None:
    """Ranks with few tokens, or none, are soon done, and a call ahead of others."""
    job = Job(group)
    few = job.mine.topk_idx.clone()
    few[1:] = -1
    for ids in (job.mine.topk_idx, few, torch.full_like(few, -1)):
        result = job.buffer.dispatch(job.mine.x, ids)
        first = job.buffer.combine(result.x, result.handle).x
        for _ in range(20):
            again = job.buffer.dispatch(job.mine.x, handle=result.handle).x
            same(again, result.x)
            for _ in range(3):
                same(job.buffer.combine(again, result.handle).x, first)
    check_both_ways(job, job.buffer)
    job.buffer.destroy()


def refusals(group: Any) -> None:
    """All ranks learn that one has no room, or makes another call, and the next calls are right."""
    job = Job(group)
    rows = [len(job.received(rank).x) for rank in range(job.size)]
    for _ in range(20):  # who refuses is soon in the next call
        with pytest.raises(switchyard.InvalidArgument, match="num_worst_tokens: expected at least") as caught:
            job.buffer.dispatch(job.mine.x, job.mine.topk_idx, num_worst_tokens=max(rows) - 1)
        assert caught.value.rank == rows.index(max(rows))
    for culprit in range(job.size):
        x = job.mine.x[:, 1:] if job.rank == culprit else job.mine.x
        with pytest.raises(switchyard.InvalidArgument, match="x: dimension 1"):
            job.buffer.dispatch(x, job.mine.topk_idx)
        check_both_ways(job, job.buffer)
    job.buffer.destroy()


def masked_node(group: Any) -> None:
    """A node that is masked costs its own tokens; those of one rank alone would take others along."""
    node_of = played_nodes(group.size())
    go_on_without(group, frozenset(rank for rank, node in enumerate(node_of) if node == max(node_of)))
