"""switchyard.Buffer as ranks of a group use it, on either device. Each function checks itself."""

from __future__ import annotations

from typing import Any

import reference
import switchyard
import torch
from bodies.problem import Problem, check_fp8
from devices import another_stream, busy, close, device, here, on_gpu, same

tokens, hidden, experts, top_k = 23, 256, 10, 4


class Job(Problem):
    """A rank and its buffer. Some ranks have fewer tokens than others, or none, and some hold one expert more."""

    def __init__(self, group: Any, dtype: torch.dtype = torch.bfloat16, **options: Any) -> None:
        lengths = [(tokens, 0, 7, 16)[r % 4] for r in range(group.size())]
        sizes = {"hidden": hidden, "experts": experts, "top_k": top_k, "dtype": dtype}
        super().__init__(group, [reference.make_inputs(r, tokens=n, **sizes) for r, n in enumerate(lengths)], experts)
        self.buffer = switchyard.Buffer(
            switchyard.Communicator.from_torch(group),
            **({"max_tokens": tokens, "hidden": hidden, "num_experts": experts, "top_k": top_k} | options),
        )
        assert self.buffer.engine == device().type


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
            expected, handle = job.received(), result.handle
            assert len(result.x) == len(expected.x) and result.topk_idx.dtype == ids and result.scales is None
            assert result.tokens_per_expert == expected.tokens_per_expert == list(handle.tokens_per_expert)
            assert handle.recv_rows_end_by_rank == expected.prefix
            assert (handle.num_tokens, handle.num_recv_rows) == (len(job.own.x), len(expected.x))
            back = job.buffer.combine(result.x, handle, topk_weights=result.topk_weights)
            same(back.x, job.sums())
            assert (back.x.cpu()[~job.table().any(1)] == 0).all()
            same(back.topk_weights, job.weights_back())
            layout = job.buffer.get_layout(job.mine.topk_idx.to(ids))
            per_rank, per_expert, in_rank = layout
            same(in_rank, job.table())
            same(per_rank, job.table().sum(0, dtype=torch.int32))
            same(per_expert, job.per_expert())
            job.check_per_node(layout.num_tokens_per_node)
            assert job.buffer.num_local_experts == len(expected.tokens_per_expert)
            job.buffer.destroy()


def fp8_pairs_and_casts(group: Any) -> None:
    job = Job(group)
    pairs = job.fp8(hidden // 128, torch.float32)
    x, scales = here(pairs[job.rank][0]), here(pairs[job.rank][1].t().contiguous()).t()
    for rows in (x, torch.cat([x, x], 1)[:, :hidden]):  # of any stride
        result = job.buffer.dispatch(rows, job.mine.topk_idx, scales=scales)
        assert result.x.dtype == torch.float8_e4m3fn and result.scales.dtype == torch.float32
        check_fp8(job, pairs, result.x, result.scales)
    cast = job.buffer.dispatch(job.mine.x, job.mine.topk_idx, cast_to_fp8=True)
    groups = job.received().x.float().unflatten(1, (-1, reference.group))
    torch.testing.assert_close(cast.scales.cpu(), groups.abs().amax(2).clamp(min=1e-4) / 448)
    back = cast.x.cpu().float().view_as(groups) * cast.scales.cpu().unsqueeze(2)
    torch.testing.assert_close(back, groups, rtol=0.07, atol=1e-3)
    assert cast.x.dtype == torch.float8_e4m3fn
    job.buffer.destroy()


def expanded_rows(group: Any) -> None:
    job = Job(group)
    result = job.buffer.dispatch(job.mine.x, job.mine.topk_idx, job.mine.topk_weights, layout="expanded")
    expected = job.expanded()
    same(result.x, expected.x)
    same(result.topk_weights, expected.weights)
    assert result.topk_idx is None
    back = job.buffer.combine(result.x, result.handle, topk_weights=result.topk_weights)
    used = (job.own.topk_idx >= 0).sum(1, keepdim=True)
    close(back.x, job.own.x.float() * used)
    same(back.topk_weights, job.weights_back())
    weighted = job.buffer.combine(result.x, result.handle, row_weights=result.topk_weights)
    close(weighted.x, job.own.x.float() * job.weights_back().sum(1, keepdim=True), 2e-2)
    padded = job.buffer.dispatch(
        job.mine.x, job.mine.topk_idx, layout="expanded", expert_alignment=16, zero_padding=True
    )
    assert all(count % 16 == 0 for count in padded.tokens_per_expert)
    assert sum(padded.tokens_per_expert) == len(padded.x)
    pads = (padded.source_token < 0).cpu()
    assert int((~pads).sum()) == len(expected.x) and (padded.x.cpu()[pads] == 0).all()
    same(padded.x[here(~pads)], expected.x)
    again = job.buffer.dispatch(job.mine.x, handle=padded.handle, layout="expanded", zero_padding=True)
    same(again.x, padded.x.cpu())
    job.buffer.destroy()


def worst_case(group: Any) -> None:
    job = Job(group)
    most = tokens * job.size
    pending = job.buffer.dispatch_async(job.mine.x, job.mine.topk_idx, job.mine.topk_weights, num_worst_tokens=most)
    early = pending.early()
    assert early.x.shape == (most, hidden) and early.tokens_per_expert == []
    later = job.buffer.combine_async(early.x, pending.handle)
    pending.event.wait()
    check_received(job, early)
    rows = len(job.received().x)
    assert (early.topk_idx[rows:] == -1).all() and (on_gpu() or early.handle.num_recv_rows == rows)
    same(later.get().x, job.sums())
    job.buffer.destroy()


def cached_and_masks(group: Any) -> None:
    job = Job(group)
    first = job.buffer.dispatch(job.mine.x, job.mine.topk_idx)
    again = job.buffer.dispatch(job.mine.x * 2, handle=first.handle)
    same(again.x, job.received().x * 2)
    table = here(job.table())
    for in_rank in (table, table.to(torch.uint8)):
        routed = job.buffer.dispatch(job.mine.x, token_in_rank=in_rank)
        same(routed.x, job.received().x)
        assert routed.topk_idx is None
        same(job.buffer.combine(routed.x, routed.handle).x, job.sums())
    job.buffer.destroy()


def asynchronous(group: Any) -> None:
    """Calls are queued behind one another, on a stream whose inputs come late, and keep their inputs."""
    job = Job(group)
    with another_stream():
        x = torch.zeros_like(job.mine.x)
        busy()
        x.copy_(job.mine.x)
        pending = job.buffer.dispatch_async(x, job.mine.topk_idx.clone(), job.mine.topk_weights.clone())
        del x
        behind = job.buffer.dispatch(job.mine.x.clone(), job.mine.topk_idx.clone(), after=pending.event)
        same(behind.x, job.received().x)
        result = pending.get()
        later = job.buffer.combine_async(result.x, result.handle, after=pending.event)
        if on_gpu():
            later.event.wait_on(torch.cuda.current_stream().cuda_stream)
            same(later.early().x * 2, job.sums() * 2)
        same(later.get().x, job.sums())
        check_received(job, result)
        check_received(job, pending.get())
    assert later.event.done and later.event.wait(1)
    job.buffer.synchronize()
    job.buffer.destroy()


def own_memory(group: Any) -> None:
    """Outputs in the heap, row weights, biases, and a tensor for the sums."""
    job = Job(group, torch.float32)
    routed = job.buffer.dispatch(job.mine.x, job.mine.topk_idx)
    rows = job.buffer.allocate(torch.float32, routed.x.shape)
    assert rows.device == device() and rows.shape == routed.x.shape
    rows.copy_(routed.x)
    weights, out = here(torch.full((len(rows),), 0.5)), torch.empty_like(job.mine.x)
    back = job.buffer.combine(
        rows, routed.handle, row_weights=weights, bias0=job.mine.x, bias1=job.mine.x * 2, out=out
    )
    assert back.x is out
    close(out, job.sums() / 2 + 3 * job.own.x, 1e-5)
    before = job.buffer.heap_bytes_used
    del rows
    assert job.buffer.heap_bytes_used <= before <= job.buffer.heap_bytes_peak
    job.buffer.destroy()
    close(routed.x, job.received().x, 0)  # tensors stay valid
