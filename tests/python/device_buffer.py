"""switchyard.Buffer as ranks of a group use it, on either device; each function checks itself."""

from __future__ import annotations

from typing import Any

import reference
import switchyard
import torch
from devices import another_stream, busy, close, device, here, on_gpu, same

tokens, hidden, experts, top_k = 23, 256, 12, 4


class Job:
    """A rank, its buffer, and everybody's inputs."""

    def __init__(self, group: Any, dtype: torch.dtype = torch.bfloat16, **options: Any) -> None:
        self.rank, self.size = group.rank(), group.size()
        lengths = [(tokens, 0, 7, 16)[r % 4] for r in range(self.size)]
        sizes = {"hidden": hidden, "experts": experts, "top_k": top_k, "dtype": dtype}
        self.inputs = [reference.make_inputs(r, tokens=lengths[r], **sizes) for r in range(self.size)]
        self.mine = here(self.inputs[self.rank])
        self.buffer = switchyard.Buffer(
            switchyard.Communicator.from_torch(group),
            **({"max_tokens": tokens, "hidden": hidden, "num_experts": experts, "top_k": top_k} | options),
        )
        assert self.buffer.engine == device().type

    def received(self, rank: int | None = None) -> reference.Received:
        return reference.flat(self.inputs, self.rank if rank is None else rank, experts)

    def sums(self) -> torch.Tensor:
        """What comes back when experts change nothing."""
        received = [self.received(r) for r in range(self.size)]
        return reference.combined([r.x for r in received], received, self.rank, len(self.mine.x))

    def weights_back(self) -> torch.Tensor:
        mine = self.inputs[self.rank]
        return mine.topk_weights * (mine.topk_idx >= 0)


def check_received(job: Job, result: switchyard.Dispatched) -> None:
    expected = job.received()
    rows = len(expected.x)
    same(result.x[:rows], expected.x)
    same(result.topk_idx[:rows], expected.topk_idx.to(result.topk_idx.dtype))
    same(result.topk_weights[:rows], expected.topk_weights)
    same(result.source_token[:rows], expected.source_token)


def rows_of_each_dtype(group: Any) -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for ids in (torch.int64, torch.int32):
            job = Job(group, dtype)
            result = job.buffer.dispatch(job.mine.x, job.mine.topk_idx.to(ids), job.mine.topk_weights)
            check_received(job, result)
            assert result.tokens_per_expert == job.received().tokens_per_expert and result.scales is None
            assert result.handle.recv_rows_end_by_rank == job.received().prefix
            back = job.buffer.combine(result.x, result.handle, topk_weights=result.topk_weights)
            same(back.x, job.sums())
            same(back.topk_weights, job.weights_back())
            per_rank, per_expert, in_rank = job.buffer.get_layout(job.mine.topk_idx.to(ids))
            table = reference.ranks_of(job.inputs[job.rank], experts, job.size)
            same(in_rank, table)
            same(per_rank, table.sum(0, dtype=torch.int32))
            assert int(per_expert.sum()) == int((job.inputs[job.rank].topk_idx >= 0).sum())
            job.buffer.destroy()


def fp8_pairs_and_casts(group: Any) -> None:
    job = Job(group)
    rows = [(each.x.to(torch.float8_e4m3fn), each.x[:, ::128].float()) for each in job.inputs]
    x, scales = rows[job.rank]
    strided = here(scales.t().contiguous()).t()
    result = job.buffer.dispatch(here(x), job.mine.topk_idx, scales=strided)
    expected = job.received()
    for row, (source, token) in enumerate(zip(expected.source.tolist(), expected.source_token.tolist())):
        assert torch.equal(result.x[row].cpu().float(), rows[source][0][token].float())
        assert torch.equal(result.scales[row].cpu(), rows[source][1][token])
    cast = job.buffer.dispatch(job.mine.x, job.mine.topk_idx, cast_to_fp8=True)
    assert cast.x.dtype == torch.float8_e4m3fn and cast.scales.dtype == torch.float32
    wide = cast.x.float().unflatten(1, (-1, 128)) * cast.scales.unsqueeze(2)
    close(wide.flatten(1), expected.x, 0.08)
    job.buffer.destroy()


def expanded_rows(group: Any) -> None:
    job = Job(group)
    result = job.buffer.dispatch(job.mine.x, job.mine.topk_idx, job.mine.topk_weights, layout="expanded")
    x, weights = reference.expanded(job.inputs, job.rank, experts)
    same(result.x, x)
    same(result.topk_weights, weights)
    back = job.buffer.combine(result.x, result.handle, topk_weights=result.topk_weights)
    used = (job.inputs[job.rank].topk_idx >= 0).sum(1, keepdim=True)
    close(back.x, job.inputs[job.rank].x.float() * used)
    same(back.topk_weights, job.weights_back())
    padded = job.buffer.dispatch(
        job.mine.x, job.mine.topk_idx, layout="expanded", expert_alignment=16, zero_padding=True
    )
    assert all(count % 16 == 0 for count in padded.tokens_per_expert)
    pads = (padded.source_token < 0).cpu()
    assert int((~pads).sum()) == len(x) and (padded.x.cpu()[pads] == 0).all()
    same(padded.x[here(~pads)], x)
    job.buffer.destroy()


def worst_case(group: Any) -> None:
    job = Job(group)
    most = tokens * job.size
    pending = job.buffer.dispatch_async(job.mine.x, job.mine.topk_idx, job.mine.topk_weights, num_worst_tokens=most)
    early = pending.early()
    assert early.x.shape == (most, hidden)
    later = job.buffer.combine_async(early.x, pending.handle)
    pending.event.wait()
    check_received(job, early)
    assert (early.topk_idx[len(job.received().x) :] == -1).all()
    same(later.get().x, job.sums())
    job.buffer.destroy()


def cached_and_masks(group: Any) -> None:
    job = Job(group)
    first = job.buffer.dispatch(job.mine.x, job.mine.topk_idx)
    again = job.buffer.dispatch(job.mine.x * 2, handle=first.handle)
    same(again.x, job.received().x * 2)
    table = here(reference.ranks_of(job.inputs[job.rank], experts, job.size))
    for in_rank in (table, table.to(torch.uint8)):
        routed = job.buffer.dispatch(job.mine.x, token_in_rank=in_rank)
        same(routed.x, job.received().x)
        assert routed.topk_idx is None
        same(job.buffer.combine(routed.x, routed.handle).x, job.sums())
    job.buffer.destroy()


def asynchronous(group: Any) -> None:
    """Calls queued behind one another, on a stream whose inputs come late."""
    job = Job(group)
    with another_stream():
        x = torch.zeros_like(job.mine.x)
        busy()
        x.copy_(job.mine.x)
        pending = job.buffer.dispatch_async(x, job.mine.topk_idx, job.mine.topk_weights)
        result = pending.get()
        later = job.buffer.combine_async(result.x, result.handle, after=pending.event)
        if on_gpu():
            later.event.wait_on(torch.cuda.current_stream().cuda_stream)
            same(later.early().x * 2, job.sums() * 2)
        same(later.get().x, job.sums())
        check_received(job, result)
    assert later.event.done and later.event.wait(1)
    job.buffer.synchronize()
    job.buffer.destroy()


def own_memory(group: Any) -> None:
    """Outputs in the heap, row weights, biases, and where to write."""
    job = Job(group, torch.float32)
    routed = job.buffer.dispatch(job.mine.x, job.mine.topk_idx)
    rows = job.buffer.allocate(torch.float32, routed.x.shape)
    assert rows.device == device() and rows.shape == routed.x.shape
    rows.copy_(routed.x)
    weights, out = here(torch.full((len(rows),), 0.5)), torch.empty_like(job.mine.x)
    back = job.buffer.combine(
        rows, routed.handle, row_weights=weights, bias0=job.mine.x, bias1=job.mine.x, out=out
    )
    assert back.x is out
    close(out, job.sums() / 2 + 2 * job.inputs[job.rank].x, 1e-5)
    before = job.buffer.heap_bytes_used
    del rows
    assert job.buffer.heap_bytes_used <= before <= job.buffer.heap_bytes_peak
    job.buffer.destroy()
    close(routed.x, job.received().x, 0)  # tensors stay valid
