"""Ranks of a gloo group that decode through deep_ep; each checks itself."""

from __future__ import annotations

import os
from typing import Any

import deep_ep
import devices
import pytest
import switchyard
import torch
import torch.distributed as dist
from low_latency_reference import Job, check_received, dequantised, outputs_of, scales_of_exponents, sums


def make_buffer(group: Any, job: Job, **options: Any) -> deep_ep.Buffer:
    hint = deep_ep.Buffer.get_low_latency_rdma_size_hint(job.max_tokens, job.hidden, job.ranks, job.experts)
    assert hint > 0
    return deep_ep.Buffer(
        group=group,
        num_nvl_bytes=0,
        num_rdma_bytes=hint,
        low_latency_mode=True,
        num_qps_per_rank=max(1, job.experts // job.ranks),
        explicitly_destroy=True,
        **options,
    )


def as_received(result: tuple[Any, ...]) -> tuple[Any, Any, Any, Any, Any]:
    recv_x, counts, handle = result[:3]
    x, scales = recv_x if isinstance(recv_x, tuple) else (recv_x, None)
    assert x.device == devices.device()
    return x.cpu(), None if scales is None else scales.cpu(), counts.cpu(), handle[0].cpu(), handle[1].cpu()


def rows_of(recv_x: Any, job: Job) -> torch.Tensor:
    """[L, M*R, H] on the CPU: what experts compute on."""
    if not isinstance(recv_x, tuple):
        return recv_x.cpu()
    x, scales = recv_x
    wide = []
    for rows, theirs in zip(x.cpu(), scales.cpu()):
        own = scales_of_exponents(theirs, job.hidden // 128) if theirs.dtype == torch.int32 else theirs
        wide.append(dequantised(rows, own))
    return torch.stack(wide)


def check_handle(job: Job, handle: Any) -> None:
    local = job.experts // job.ranks
    source, ranges, *sizes = handle
    assert source.shape == (local, job.max_tokens * job.ranks) and source.dtype == torch.int32
    assert ranges.shape == (local, job.ranks) and ranges.dtype == torch.int64
    assert sizes == [job.max_tokens, job.hidden, job.experts] and len(handle) == 5


def step_of(buffer: deep_ep.Buffer, job: Job, step: int, hooks: bool, zero_copy: bool, logfmt: bool) -> None:
    """A decoding step in bfloat16."""
    mine = devices.here(job.inputs(buffer.rank, step))
    sent = buffer.low_latency_dispatch(
        mine.x, mine.topk_idx, job.max_tokens, job.experts, use_fp8=False, return_recv_hook=hooks
    )
    recv_x, _, handle, event, hook = sent
    assert (hook is not None) == hooks and event.event is None
    if hook:
        hook()
    check_handle(job, handle)
    check_received(job, buffer.rank, as_received(sent), step=step)
    made = devices.here(outputs_of(rows_of(recv_x, job), buffer.rank, job))
    if zero_copy:
        buffer.get_next_low_latency_combine_buffer(handle)[:, :, :] = made
    out = torch.empty_like(mine.x) if step % 2 else None
    back, event, hook = buffer.low_latency_combine(
        made,
        mine.topk_idx,
        mine.topk_weights,
        handle,
        use_logfmt=logfmt,
        zero_copy=zero_copy,
        return_recv_hook=hooks,
        out=out,
    )
    if hook:
        hook()
    assert out is None or back is out
    expected = sums(job, buffer.rank, step=step)
    if logfmt:
        torch.testing.assert_close(back.cpu().float(), expected.float(), rtol=0.1, atol=0.1)
    else:
        devices.same(back, expected)


def bf16_steps(group: Any) -> None:
    job = Job(dist.get_world_size(group))
    buffer = make_buffer(group, job)
    buffer.clean_low_latency_buffer(job.max_tokens, job.hidden, job.experts)
    for step in range(12):
        step_of(buffer, job, step, hooks=step % 2 == 0, zero_copy=step % 3 == 0, logfmt=step % 3 == 1)
    buffer.destroy()


def fp8_steps(group: Any) -> None:
    job = Job(dist.get_world_size(group))
    buffer = make_buffer(group, job)
    groups = job.hidden // 128
    for step, (round_scale, ue8m0) in enumerate([(False, False), (True, False), (True, True)] * 2):
        mine = devices.here(job.inputs(buffer.rank, step))
        sent = buffer.low_latency_dispatch(
            mine.x, mine.topk_idx, job.max_tokens, job.experts, round_scale=round_scale, use_ue8m0=ue8m0,
            async_finish=True,
        )
        (x, scales), _, handle, event, _ = sent
        event.current_stream_wait()
        slots = job.max_tokens * job.ranks
        assert x.dtype == torch.float8_e4m3fn and scales.dtype == (torch.int32 if ue8m0 else torch.float32)
        assert scales.shape[1:] == (slots, -(-groups // 4) if ue8m0 else groups) and scales.stride()[1:] == (1, slots)
        check_received(job, buffer.rank, as_received(sent), step=step, rounded=round_scale)
        made = devices.here(outputs_of(rows_of(sent[0], job), buffer.rank, job))
        back, event, _ = buffer.low_latency_combine(
            made, mine.topk_idx, mine.topk_weights, handle, async_finish=True
        )
        event.current_stream_wait()
        # A token's terms may cancel one another: the error is that of the terms.
        torch.testing.assert_close(back.cpu().float(), sums(job, buffer.rank, step=step).float(), rtol=0.07, atol=0.6)
    buffer.destroy()


def two_micro_batches(group: Any) -> None:
    """Two results outstanding, halves interleaved, variables that hold on to the results before."""
    job = Job(dist.get_world_size(group))
    buffer = make_buffer(group, job)
    a: Any = None
    b: Any = None
    for step in range(0, 12, 2):
        batches = [devices.here(job.inputs(buffer.rank, step + i)) for i in range(2)]
        a = dispatch_and_receive_later(buffer, job, batches[0])
        a[4]()
        b = dispatch_and_receive_later(buffer, job, batches[1])
        check_received(job, buffer.rank, as_received(a), step=step)
        b[4]()
        check_received(job, buffer.rank, as_received(b), step=step + 1)
        backs = []
        for each, mine in zip((a, b), batches):
            made = devices.here(outputs_of(rows_of(each[0], job), buffer.rank, job))
            back, _, hook = buffer.low_latency_combine(
                made, mine.topk_idx, mine.topk_weights, each[2], return_recv_hook=True
            )
            hook()
            backs.append(back)
        for i, back in enumerate(backs):
            devices.same(back, sums(job, buffer.rank, step=step + i))
    buffer.destroy()


def dispatch_and_receive_later(buffer: deep_ep.Buffer, job: Job, mine: Any) -> Any:
    return buffer.low_latency_dispatch(
        mine.x, mine.topk_idx, job.max_tokens, job.experts, use_fp8=False, return_recv_hook=True
    )


layers = 8


def kept_handles(group: Any) -> None:
    """vLLM keeps a handle for each layer until it puts the next step's there."""
    job = Job(dist.get_world_size(group))
    buffer = make_buffer(group, job)
    kept: list[Any] = [None] * layers
    for step in range(3 * layers):
        layer, mine = step % layers, devices.here(job.inputs(buffer.rank, step))
        kept[layer] = layer_of(buffer, job, mine, step, hooks=layer % 2 == 0, zero_copy=layer % 3 == 0)
    for handle in kept:
        check_that_it_is_over(buffer, job, handle)
    what_was_read_holds_its_slots(buffer, job)
    buffer.destroy()


def layer_of(buffer: deep_ep.Buffer, job: Job, mine: Any, step: int, hooks: bool, zero_copy: bool) -> Any:
    """Returns the handle, which is all that lives on."""
    sent = buffer.low_latency_dispatch(
        mine.x, mine.topk_idx, job.max_tokens, job.experts, use_fp8=False, return_recv_hook=hooks
    )
    if hooks:
        sent[4]()
    check_handle(job, sent[2])
    check_received(job, buffer.rank, as_received(sent), step=step)
    made = devices.here(outputs_of(rows_of(sent[0], job), buffer.rank, job))
    if zero_copy:
        buffer.get_next_low_latency_combine_buffer(sent[2]).copy_(made)
    back, _, hook = buffer.low_latency_combine(
        made, mine.topk_idx, mine.topk_weights, sent[2], zero_copy=zero_copy, return_recv_hook=hooks
    )
    if hook:
        hook()
    devices.same(back, sums(job, buffer.rank, step=step))
    return sent[2]


def check_that_it_is_over(buffer: deep_ep.Buffer, job: Job, handle: Any) -> None:
    """A handle that was combined tells its sizes, and nothing else."""
    mine = devices.here(job.inputs(buffer.rank))
    assert handle[2:] == (job.max_tokens, job.hidden, job.experts) and len(handle) == 5
    for item in range(2):
        with pytest.raises(switchyard.Unusable, match="can be read only before its combine"):
            handle[item]
    rows = devices.here(torch.zeros(job.experts // job.ranks, job.max_tokens * job.ranks, job.hidden).bfloat16())
    with pytest.raises(switchyard.InvalidArgument, match="not combined yet, seen one that was"):
        buffer.low_latency_combine(rows, mine.topk_idx, mine.topk_weights, handle)
    with pytest.raises(switchyard.InvalidArgument, match="not combined yet, seen one that was"):
        buffer.get_next_low_latency_combine_buffer(handle)


def what_was_read_holds_its_slots(buffer: deep_ep.Buffer, job: Job) -> None:
    """Of four combined handles; then of received rows."""
    mine = devices.here(job.inputs(buffer.rank))
    for what in (lambda sent: sent[2][0], lambda sent: sent[0]):
        held, before = [], []
        for _ in range(4):
            sent = dispatch_and_receive_later(buffer, job, mine)
            sent[4]()
            held.append(what(sent))
            before.append(held[-1].clone())
            buffer.low_latency_combine(sent[0], mine.topk_idx, mine.topk_weights, sent[2])
        del sent
        with pytest.raises(switchyard.InvalidArgument, match="at most 4 results held at once.*free earlier ones"):
            dispatch_and_receive_later(buffer, job, mine)
        for seen, wanted in zip(held, before):
            assert torch.equal(seen, wanted)
        held.clear()
        del seen


def two_sends(group: Any) -> None:
    """Both micro-batches are sent before either is received."""
    job = Job(dist.get_world_size(group))
    buffer = make_buffer(group, job)
    for step in range(0, 8, 2):
        batches = [devices.here(job.inputs(buffer.rank, step + i)) for i in range(2)]
        both = [dispatch_and_receive_later(buffer, job, mine) for mine in batches]
        for sent in both:
            sent[4]()
        combined = []
        for i, (mine, sent) in enumerate(zip(batches, both)):
            check_received(job, buffer.rank, as_received(sent), step=step + i)
            made = devices.here(outputs_of(rows_of(sent[0], job), buffer.rank, job))
            combined.append(buffer.low_latency_combine(
                made, mine.topk_idx, mine.topk_weights, sent[2], return_recv_hook=True
            ))
        for i, (back, _, hook) in enumerate(combined):
            hook()
            devices.same(back, sums(job, buffer.rank, step=step + i))
    buffer.destroy()


def step_without(buffer: Any, job: Job, missing: frozenset[int]) -> None:
    """Step 1, in which ranks are missing."""
    mine = devices.here(job.inputs(buffer.rank, 1))
    sent = buffer.low_latency_dispatch(mine.x, mine.topk_idx, job.max_tokens, job.experts, use_fp8=False)
    check_received(job, buffer.rank, as_received(sent), step=1, missing=missing)
    made = devices.here(outputs_of(rows_of(sent[0], job), buffer.rank, job))
    back, _, _ = buffer.low_latency_combine(made, mine.topk_idx, mine.topk_weights, sent[2])
    devices.same(back, sums(job, buffer.rank, step=1, missing=missing))


def late_peer(group: Any) -> None:
    """With enable_shrink the others go on without a rank that does not come."""
    os.environ["SWITCHYARD_TIMEOUT_MS"] = "5000"  # before the library reads it
    job = Job(dist.get_world_size(group))
    buffer = make_buffer(group, job, enable_shrink=True)
    step_of(buffer, job, 0, hooks=False, zero_copy=False, logfmt=False)
    late = job.ranks - 1
    dist.barrier(group)
    if buffer.rank != late:
        missing = frozenset({late})
        step_without(buffer, job, missing)
        status = devices.here(torch.zeros(job.ranks, dtype=torch.int32))
        buffer.low_latency_query_mask_buffer(status)
        assert status.tolist() == [int(rank in missing) for rank in range(job.ranks)]
    dist.barrier(group)
    buffer.destroy()


def statistics(group: Any) -> None:
    job = Job(dist.get_world_size(group))
    buffer = make_buffer(group, job)
    stats = devices.here(torch.zeros(job.experts // job.ranks, dtype=torch.int32))
    waits, combine_waits = (devices.here(torch.zeros(job.ranks, dtype=torch.int64)) for _ in range(2))
    expected = torch.zeros_like(stats)
    for step in range(3):
        mine = devices.here(job.inputs(buffer.rank, step))
        recv_x, counts, handle, _, _ = buffer.low_latency_dispatch(
            mine.x, mine.topk_idx, job.max_tokens, job.experts, stats, waits, use_fp8=False
        )
        expected += counts
        buffer.low_latency_combine(
            recv_x, mine.topk_idx, mine.topk_weights, handle, combine_wait_recv_cost_stats=combine_waits
        )
    assert torch.equal(stats, expected)
    assert (waits >= 0).all() and waits.sum() > 0 and (combine_waits >= 0).all()
    buffer.destroy()


def masks(group: Any) -> None:
    """The last rank is masked by the others, which go on without it; then it comes back."""
    job = Job(dist.get_world_size(group))
    buffer = make_buffer(group, job, enable_shrink=True)
    step_of(buffer, job, 0, hooks=False, zero_copy=False, logfmt=False)
    dist.barrier(group)
    out = job.ranks - 1
    others = frozenset(range(job.ranks)) - {out}
    status = devices.here(torch.full((job.ranks,), 7, dtype=torch.int32))
    for peer in others if buffer.rank == out else {out}:
        buffer.low_latency_update_mask_buffer(peer, True)
    buffer.low_latency_query_mask_buffer(status)
    missing = others if buffer.rank == out else frozenset({out})
    assert status.tolist() == [int(r in missing) for r in range(job.ranks)]
    step_without(buffer, job, missing)
    dist.barrier(group)
    buffer.low_latency_clean_mask_buffer()
    dist.barrier(group)  # a rank that looks sooner finds itself masked by a peer, and masks that peer again
    buffer.low_latency_query_mask_buffer(status)
    assert status.tolist() == [0] * job.ranks
    dist.barrier(group)
    step_of(buffer, job, 2, hooks=True, zero_copy=True, logfmt=False)
    buffer.destroy()
