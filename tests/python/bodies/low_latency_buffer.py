"""switchyard.LowLatencyBuffer, with all of its options. Each function checks itself."""

from __future__ import annotations

from typing import Any

import reference
import switchyard
import torch
from devices import device, here, same
from low_latency_reference import Job, check_received


def buffer_of(group: Any, job: Job) -> switchyard.LowLatencyBuffer:
    return switchyard.LowLatencyBuffer(
        switchyard.Communicator.from_torch(group),
        max_tokens=job.max_tokens,
        hidden=job.hidden,
        num_experts=job.experts,
        top_k=job.top_k,
    )


def all_options_of_the_buffer(group: Any) -> None:
    """Rows grouped by expert, with each cast, and by rank, with weights; opaque payloads. Ranks hold 1 to 5 experts."""
    job = Job(group.size(), experts=10)
    with buffer_of(group, job) as buffer:
        assert buffer.engine == device().type and buffer.num_bytes > 0 and not any(buffer.masked())
        for cast in ("none", "fp8", "fp8_pow2", "fp8_ue8m0"):
            by_expert(buffer, job, group.rank(), cast)
        by_rank(buffer, job, group.rank())
        opaque(buffer, job, group.rank())
        buffer.synchronize()


def by_expert(buffer: switchyard.LowLatencyBuffer, job: Job, rank: int, cast: str) -> None:
    mine = here(job.inputs(rank))
    received = buffer.dispatch(mine.x, mine.topk_idx, cast=cast)
    names = ("x", "scales", "counts", "source_token", "ranges")
    tensors = tuple(getattr(received, name) for name in names)
    on_cpu = tuple(None if each is None else each.cpu() for each in tensors)
    check_received(job, rank, on_cpu, rounded=cast not in ("none", "fp8"))  # type: ignore[arg-type]
    assert received.topk_idx is None and received.topk_weights is None
    assert (received.scales is None) == (cast == "none") and received.x.device == device()


def by_rank(buffer: switchyard.LowLatencyBuffer, job: Job, rank: int) -> None:
    mine = here(job.inputs(rank))
    received = buffer.dispatch(mine.x, mine.topk_idx, topk_weights=mine.topk_weights, layout="rank_major")
    assert received.ranges is None and received.x.shape == (job.ranks, job.max_tokens, job.hidden)
    counts, first = received.counts.tolist(), reference.experts_of(rank, job.experts, job.ranks).start
    for source in range(job.ranks):
        theirs, count = job.inputs(source), counts[source]
        tokens = received.source_token[source, :count].tolist()
        same(received.x[source, :count], theirs.x[tokens])
        ids = received.topk_idx[source, :count].cpu().long()
        ours = ids >= 0
        assert torch.equal((ids + first)[ours], theirs.topk_idx[tokens][ours])
        weights = received.topk_weights[source, :count].cpu()
        assert torch.equal(weights, theirs.topk_weights[tokens] * ours)
    rows = buffer.outputs(received.handle, torch.bfloat16)
    rows.copy_(received.x)
    table = reference.ranks_of(job.inputs(rank), job.experts, job.ranks)
    expected = (job.inputs(rank).x.float() * table.sum(1, keepdim=True)).bfloat16()
    same(buffer.combine(rows, received.handle), expected)


def opaque(buffer: switchyard.LowLatencyBuffer, job: Job, rank: int) -> None:
    mine = here(job.inputs(rank))
    for size in (2 * job.hidden, 100):
        received = buffer.dispatch(mine.x.view(torch.uint8)[:, :size], mine.topk_idx)
        assert received.x.shape[2] == size
        for local in range(buffer.num_local_experts):
            for source in range(job.ranks):
                begin, count = divmod(int(received.ranges[local, source]), 1 << 32)
                tokens = received.source_token[local, begin : begin + count].tolist()
                payload = job.inputs(source).x.view(torch.uint8)[tokens, :size]
                same(received.x[local, begin : begin + count], payload)
        del received
