"""What the low-latency calls do beyond low_latency_clients, on either device; each function checks itself."""

from __future__ import annotations

from typing import Any

import switchyard
import torch
import torch.distributed as dist
from devices import another_stream, busy, device, here, on_gpu, same
from low_latency_clients import as_received, make_buffer, rows_of
from low_latency_reference import Job, check_received, outputs_of, sums


def halves_on_streams(group: Any) -> None:
    """Each half on the stream that is current when it is called; inputs come late, and are overwritten at once."""
    job = Job(dist.get_world_size(group))
    buffer = make_buffer(group, job)
    for step in range(6):
        mine = here(job.inputs(buffer.rank, step))
        with another_stream():
            x, ids = torch.zeros_like(mine.x), torch.full_like(mine.topk_idx, -1)
            busy(0.005)
            x.copy_(mine.x)
            ids.copy_(mine.topk_idx)
            sent = buffer.low_latency_dispatch(
                x, ids, job.max_tokens, job.experts, use_fp8=False, async_finish=step % 2 == 1,
                return_recv_hook=step % 2 == 0,
            )
            if sent[4] is not None:
                sent[4]()
            else:
                sent[3].current_stream_wait()
            x.zero_()
            check_received(job, buffer.rank, as_received(sent), step=step)
            made = here(outputs_of(rows_of(sent[0], job), buffer.rank, job))
            out = torch.empty_like(mine.x)
            back, _, hook = buffer.low_latency_combine(
                made, ids, mine.topk_weights, sent[2], return_recv_hook=True, out=out
            )
            hook()
            hook()  # to no effect
            assert back is out
            same(back * 1, sums(job, buffer.rank, step=step))
        del sent
        if on_gpu():
            torch.cuda.synchronize()
    buffer.destroy()


def all_options_of_the_buffer(group: Any) -> None:
    """switchyard.LowLatencyBuffer: rows grouped by rank, with weights; casts; opaque payloads."""
    job = Job(group.size())
    with switchyard.LowLatencyBuffer(
        switchyard.Communicator.from_torch(group),
        max_tokens=job.max_tokens,
        hidden=job.hidden,
        num_experts=job.experts,
        top_k=job.top_k,
    ) as buffer:
        assert buffer.engine == device().type and buffer.num_bytes > 0 and not any(buffer.masked())
        _by_rank(buffer, job, group.rank())
        _opaque(buffer, job, group.rank())
        buffer.synchronize()


def _by_rank(buffer: switchyard.LowLatencyBuffer, job: Job, rank: int) -> None:
    mine = here(job.inputs(rank))
    received = buffer.dispatch(mine.x, mine.topk_idx, topk_weights=mine.topk_weights, layout="rank_major")
    counts = received.counts.tolist()
    for source in range(job.ranks):
        theirs = job.inputs(source)
        tokens = received.source_token[source, : counts[source]].tolist()
        same(received.x[source, : counts[source]], theirs.x[tokens])
        ids = received.topk_idx[source, : counts[source]].cpu()
        weights = received.topk_weights[source, : counts[source]].cpu()
        assert torch.equal(weights, theirs.topk_weights[tokens] * (ids >= 0))
    rows = buffer.outputs(received.handle, torch.bfloat16)
    rows.copy_(received.x)
    back = buffer.combine(rows, received.handle)
    ranks = [set((each[each >= 0] // (job.experts // job.ranks)).tolist()) for each in job.inputs(rank).topk_idx]
    expected = job.inputs(rank).x.float() * torch.tensor([len(each) for each in ranks]).view(-1, 1)
    torch.testing.assert_close(back.cpu().float(), expected, rtol=1e-2, atol=1e-2)


def _opaque(buffer: switchyard.LowLatencyBuffer, job: Job, rank: int) -> None:
    mine = here(job.inputs(rank))
    payload = mine.x.view(torch.uint8)
    received = buffer.dispatch(payload, mine.topk_idx)
    for local in range(buffer.num_local_experts):
        for source in range(job.ranks):
            begin, count = divmod(int(received.ranges[local, source]), 1 << 32)
            tokens = received.source_token[local, begin : begin + count].tolist()
            same(received.x[local, begin : begin + count], job.inputs(source).x.view(torch.uint8)[tokens])
