"""deep_ep's throughput part, as ranks of a group use it, on either device; each function checks itself."""

from __future__ import annotations

import time
from typing import Any

import deep_ep
import reference
import switchyard
import torch
from devices import another_stream, busy, close, device, here, on_gpu, same

tokens, hidden, experts, top_k = 19, 256, 8, 4


class Job:
    """A rank, its buffer, and everybody's inputs."""

    def __init__(self, group: Any, dtype: torch.dtype = torch.bfloat16) -> None:
        self.rank, self.size = group.rank(), group.size()
        lengths = [(tokens, 0, 7, 16)[r % 4] for r in range(self.size)]
        sizes = {"hidden": hidden, "experts": experts, "top_k": top_k, "dtype": dtype}
        self.inputs = [reference.make_inputs(r, tokens=lengths[r], **sizes) for r in range(self.size)]
        self.mine = here(self.inputs[self.rank])
        self.buffer = deep_ep.Buffer(group, num_nvl_bytes=8 << 20, explicitly_destroy=True)
        self.received = reference.flat(self.inputs, self.rank, experts)
        self.table = reference.ranks_of(self.inputs[self.rank], experts, self.size)

    def dispatch(self, x: Any = None, **options: Any) -> Any:
        per_rank, per_rdma, per_expert, in_rank, _ = self.buffer.get_dispatch_layout(self.mine.topk_idx, experts)
        return self.buffer.dispatch(
            self.mine.x if x is None else x,
            num_tokens_per_rank=per_rank,
            num_tokens_per_rdma_rank=per_rdma,
            is_token_in_rank=in_rank,
            num_tokens_per_expert=per_expert,
            topk_idx=self.mine.topk_idx,
            topk_weights=self.mine.topk_weights,
            **options,
        )

    def sums(self, factor: float = 1.0) -> torch.Tensor:
        received = [reference.flat(self.inputs, r, experts) for r in range(self.size)]
        rows = [(each.x * factor).to(each.x.dtype) for each in received]
        return reference.combined(rows, received, self.rank, len(self.mine.x))


def every_result(group: Any) -> None:
    job = Job(group)
    x, ids, weights, counts, handle, event = job.dispatch(expert_alignment=16)
    same(x, job.received.x)
    same(ids, job.received.topk_idx)
    same(weights, job.received.topk_weights)
    assert counts == reference.flat(job.inputs, job.rank, experts, alignment=16).tokens_per_expert
    assert event.event is None
    back, summed, event = job.buffer.combine(x, handle, topk_weights=weights)
    same(back, job.sums())
    mine = job.inputs[job.rank]
    same(summed, mine.topk_weights * (mine.topk_idx >= 0))
    prefixes = [reference.flat(job.inputs, r, experts).prefix for r in range(job.size)]
    same(handle[0], torch.tensor(prefixes, dtype=torch.int32).t())
    same(handle[1], job.table.sum(0, dtype=torch.int32).unsqueeze(1))
    if on_gpu():  # on the CPU it is a copy, which may be read at any time
        same(handle[3], job.received.source_token)
    same(handle[4], job.table)
    for bias, factor in ((x.new_ones(back.shape), 1), ((x.new_ones(back.shape),) * 2, 2)):
        close(job.buffer.combine(x, handle, bias=bias)[0], job.sums().float() + factor, 2e-2)
    late = job.dispatch()[4]  # whose rows go at once
    if on_gpu():
        torch.cuda.synchronize()
        job.dispatch()
        try:
            late[3]
        except switchyard.Unusable as error:
            assert "received rows" in str(error)
    else:
        same(late[3], job.received.source_token)
    local = job.buffer.get_local_buffer_tensor(torch.bfloat16)
    assert local.device == device() and local.numel() == 4 << 20
    job.buffer.destroy()


def fp8_and_cached(group: Any) -> None:
    job = Job(group, torch.float32)
    for dtype, columns in ((torch.float32, hidden // 128), (torch.int32, 1)):
        everybody = [
            (each.x.to(torch.float8_e4m3fn), torch.arange(len(each.x) * columns).view(columns, -1).t().to(dtype) - 3)
            for each in job.inputs
        ]
        x, scales = everybody[job.rank]
        pair = here(x), here(scales.contiguous())
        result = job.dispatch(pair)
        for rows, row_scales in (result[0], job.buffer.dispatch(pair, handle=result[4])[0]):
            assert rows.dtype == torch.float8_e4m3fn and row_scales.dtype == dtype and row_scales.is_contiguous()
            meta = job.received
            for row, (source, token) in enumerate(zip(meta.source.tolist(), meta.source_token.tolist())):
                assert torch.equal(rows[row].cpu().float(), everybody[source][0][token].float())
                assert torch.equal(row_scales[row].cpu(), everybody[source][1][token])
    (_, row_scales), *_, event = job.dispatch(pair, async_finish=True)
    seen = row_scales.clone()  # int32 ones are a copy, of what is there on this stream
    event.current_stream_wait()
    for row, (source, token) in enumerate(zip(job.received.source.tolist(), job.received.source_token.tolist())):
        assert torch.equal(seen[row].cpu(), everybody[source][1][token])
    again = job.buffer.dispatch(job.mine.x * 2, handle=result[4])
    same(again[0], job.received.x * 2)
    assert again[1:5] == (None,) * 4
    job.buffer.destroy()


def late_inputs(group: Any) -> None:
    """Synchronous calls on a stream of the caller's: they come after what it does before them, and before the rest."""
    job = Job(group)
    with another_stream():
        for factor in (1, 2, 4):
            x = torch.zeros_like(job.mine.x)
            busy()
            x.copy_(job.mine.x * factor)
            received, *_, handle, _ = job.dispatch(x)
            x.zero_()
            same(received * 1, job.received.x * factor)
            rows = torch.zeros_like(received)
            busy()
            rows.copy_(received)
            back = job.buffer.combine(rows, handle)[0]
            rows.zero_()
            same(back * 1, job.sums(factor))
    job.buffer.destroy()


def events_and_streams(group: Any) -> None:
    """The call waits for previous_event alone, and what waits for its event comes after it."""
    job = Job(group)
    job.dispatch()  # makes the engine
    options: Any = {"async_finish": True, "allocate_on_comm_stream": True}
    for factor in (1, 2):
        x = torch.zeros_like(job.mine.x)
        if on_gpu():
            torch.cuda.synchronize()
        with another_stream():
            busy()
            x.copy_(job.mine.x * factor)
            ready = deep_ep.Buffer.capture()
        received, _, weights, counts, handle, event = job.dispatch(x, previous_event=ready, **options)
        assert counts == job.received.tokens_per_expert
        with another_stream(), event:
            pass
        event.current_stream_wait()
        same(received * 1, job.received.x * factor)
        first, _, one = job.buffer.combine(received, handle, previous_event=event, **options)
        second, summed, two = job.buffer.combine(
            received, handle, topk_weights=weights, previous_event=one, **options
        )
        plain = job.buffer.combine(received, handle)[0]  # synchronous, behind asynchronous ones
        two.current_stream_wait()
        for each in (first, second, plain):
            same(each * 1, job.sums(factor))
        assert summed is not None
    per_rank, _, _, in_rank, event = job.buffer.get_dispatch_layout(
        job.mine.topk_idx, experts, job.buffer.capture(), **options
    )
    event.current_stream_wait()
    same(in_rank, job.table)
    same(per_rank, job.table.sum(0, dtype=torch.int32))
    comm = job.buffer.get_comm_stream()
    assert not on_gpu() or comm.device == device()
    job.buffer.destroy()


def layouts(group: Any) -> None:
    """Before the first dispatch by PyTorch, then by the engine: both alike, and on whatever stream."""
    job = Job(group)
    ids = job.inputs[job.rank].topk_idx
    counts = torch.bincount(ids[ids >= 0], minlength=experts).int()
    for made in (False, True):
        assert (job.buffer._engines.for_layout(job.mine.topk_idx, experts) is not None) == (made and on_gpu())
        for asynchronous in (False, True):
            with another_stream():
                late = torch.full_like(job.mine.topk_idx, -1)
                busy()
                late.copy_(job.mine.topk_idx)
                per_rank, _, per_expert, in_rank, event = job.buffer.get_dispatch_layout(
                    late, experts, async_finish=asynchronous
                )
                if asynchronous:
                    event.current_stream_wait()
                late.fill_(-1)
                same(in_rank * 1, job.table * 1)
                same(per_rank * 1, job.table.sum(0, dtype=torch.int32))
                same(per_expert * 1, counts)
        job.dispatch()
    job.buffer.destroy()


def worst_case(group: Any) -> None:
    """On a GPU the host waits for nothing at all."""
    job = Job(group)
    most = tokens * job.size
    handle = job.dispatch(num_worst_tokens=most)[4]
    job.buffer.dispatch(job.mine.x, handle=handle)
    if on_gpu():
        torch.cuda.synchronize()
    group.barrier().wait()
    begin = time.monotonic()
    busy(0.5)
    x, ids, weights, counts, handle, event = job.dispatch(num_worst_tokens=most, async_finish=True)
    back, _, combined = job.buffer.combine(x, handle, previous_event=event, async_finish=True)
    again, *nothing, last = job.buffer.dispatch(
        job.mine.x * 2, handle=handle, previous_event=combined, async_finish=True
    )
    assert not on_gpu() or time.monotonic() - begin < 0.3, "the host waited for the GPU"
    for each in (last, combined, event):
        each.current_stream_wait()
    rows = len(job.received.x)
    assert counts == [] and x.shape == (most, hidden)
    same(x[:rows], job.received.x)
    same(ids[:rows], job.received.topk_idx)
    same(weights[:rows], job.received.topk_weights)
    assert (ids[rows:] == -1).all()
    same(back, job.sums())
    assert nothing == [None] * 4 and again.shape == x.shape
    same(again[:rows], job.received.x * 2)
    close(job.buffer.combine(again, handle)[0], job.sums(2))
    same(handle[3][:rows], job.received.source_token) if on_gpu() else None
    prefixes = [reference.flat(job.inputs, r, experts).prefix for r in range(job.size)]
    same(handle[0], torch.tensor(prefixes, dtype=torch.int32).t())
    job.buffer.destroy()


def memory_is_reused_in_order(group: Any) -> None:
    """Results are let go of while the stream still reads them, and the next calls take their memory."""
    job = Job(group)
    kept = []
    for step in range(12):
        received, *_, handle, event = job.dispatch(job.mine.x * (step % 4 + 1), async_finish=step % 2 == 1)
        if event.event is not None:
            event.current_stream_wait()
        busy(0.003)
        kept.append(received.clone())
        back = job.buffer.combine(received, handle)[0]
        del received, handle
        busy(0.003)
        kept.append(back.clone())
        del back
    for step in range(12):
        same(kept[2 * step], job.received.x * (step % 4 + 1))
        same(kept[2 * step + 1], job.sums(step % 4 + 1))
    job.buffer.destroy()


def shares_of_sms(group: Any) -> None:
    """What a config asks for beyond this rank's part of the GPU is cut."""
    job = Job(group)
    before = deep_ep.Buffer.num_sms, deep_ep.Buffer._sms_were_set
    try:
        for sms in (2, 512):
            deep_ep.Buffer.set_num_sms(sms)
            x, *_, handle, _ = job.dispatch()
            same(job.buffer.combine(x, handle, config=deep_ep.Config(sms))[0], job.sums())
    finally:
        deep_ep.Buffer.num_sms, deep_ep.Buffer._sms_were_set = before
    job.buffer.destroy()
