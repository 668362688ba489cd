"""How programs call V2 of deep_ep, written from the table of its interface. Each runs as a rank of a group.

A sequence checks itself: it compares a layer over all ranks with one in this process alone.
"""

from __future__ import annotations

from typing import Any

import deep_ep
import reference
import torch
import torch.distributed as dist
from devices import device, here

hidden, experts, top_k, tokens, seed = 256, 8, 2, 16, 5
timeouts: Any = {"num_cpu_timeout_secs": 20, "num_gpu_timeout_secs": 20}


def inputs(group: Any, dtype: torch.dtype) -> reference.Inputs:
    """Ranks have different numbers of tokens."""
    rank = dist.get_rank(group)
    return here(reference.make_inputs(
        seed + rank, tokens=max(0, tokens - 3 * rank), hidden=hidden, experts=experts, top_k=top_k, dtype=dtype
    ))


def gains(group: Any) -> torch.Tensor:
    """Returns the factors of this rank's experts. Expert e, counted over all ranks, multiplies rows by e + 1."""
    own = reference.experts_of(dist.get_rank(group), experts, group.size())
    return torch.arange(own.start + 1, own.stop + 1, dtype=torch.float32, device=device())


def dense(mine: reference.Inputs, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Returns the output of the layer in this process alone."""
    used = weights * (mine.topk_idx >= 0) * (mine.topk_idx + 1)
    return x.float() * used.sum(1, keepdim=True)


class Dispatch(torch.autograd.Function):
    """torchtitan: expanded rows; backward is a combine with the weights' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Any, ids: Any, weights: Any, buffer: Any, alignment: int) -> Any:
        rows, _, row_weights, handle, event = buffer.dispatch(
            x,
            topk_idx=ids,
            topk_weights=weights,
            num_experts=experts,
            num_max_tokens_per_rank=tokens,
            expert_alignment=alignment,
            num_sms=buffer.get_theoretical_num_sms(experts, top_k),
            previous_event=buffer.capture(),
            async_with_compute_stream=True,
            allocate_on_comm_stream=True,
            do_expand=True,
            do_zero_padding=True,
            do_cpu_sync=True,
        )
        event.current_stream_wait()
        ctx.buffer, ctx.handle = buffer, handle
        counts = here(torch.tensor(handle.num_recv_tokens_per_expert_list))
        assert counts.sum() == len(rows) == handle.num_expanded_tokens
        return rows, row_weights, counts, handle

    @staticmethod
    def backward(ctx: Any, grad: Any, grad_weights: Any, _counts: Any, _handle: Any) -> Any:
        x, weights, event = ctx.buffer.combine(
            grad.contiguous(),
            ctx.handle,
            topk_weights=grad_weights,
            num_sms=ctx.handle.num_sms,
            previous_event=ctx.buffer.capture(),
            async_with_compute_stream=True,
        )
        event.current_stream_wait()
        return x, None, weights, None, None


class Combine(torch.autograd.Function):
    """Its counterpart: backward is a cached dispatch."""

    @staticmethod
    def forward(ctx: Any, rows: Any, buffer: Any, handle: Any) -> Any:
        combined, _, event = buffer.combine(
            rows, handle, num_sms=handle.num_sms, previous_event=buffer.capture(), async_with_compute_stream=True
        )
        event.current_stream_wait()
        ctx.buffer, ctx.handle = buffer, handle
        return combined

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        rows, ids, weights, handle, event = ctx.buffer.dispatch(
            grad.contiguous(),
            handle=ctx.handle,
            do_expand=True,
            do_zero_padding=True,
            async_with_compute_stream=True,
        )
        event.current_stream_wait()
        assert ids is None and weights is None and handle is ctx.handle  # expanded: no ids; no weights were given
        return rows, None, None


def trainer_expanded(group: Any) -> None:
    """torchtitan: V2 expanded, aligned for a grouped matrix product, cached dispatch in backward."""
    buffer = deep_ep.ElasticBuffer(
        group, num_max_tokens_per_rank=tokens, hidden=hidden, num_topk=top_k, use_fp8_dispatch=False,
        explicitly_destroy=True, **timeouts,
    )
    mine = inputs(group, torch.float32)
    for alignment in (1, 8):
        x, weights = mine.x.clone().requires_grad_(), mine.topk_weights.clone().requires_grad_()
        rows, row_weights, counts, handle = Dispatch.apply(x, mine.topk_idx, weights, buffer, alignment)
        made = rows * gains(group).repeat_interleave(counts).unsqueeze(1) * row_weights.unsqueeze(1)
        y = Combine.apply(made, buffer, handle)
        y.square().sum().backward()
        wanted_x, wanted_weights = mine.x.clone().requires_grad_(), mine.topk_weights.clone().requires_grad_()
        wanted = dense(mine, wanted_x, wanted_weights)
        wanted.square().sum().backward()
        torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(x.grad, wanted_x.grad, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(weights.grad, wanted_weights.grad, rtol=1e-4, atol=1e-2)
    buffer.destroy()


def sized_by_hint(group: Any) -> deep_ep.ElasticBuffer:
    num_bytes = deep_ep.ElasticBuffer.get_buffer_size_hint(group, tokens, hidden, num_topk=top_k)
    return deep_ep.ElasticBuffer(group, num_bytes=num_bytes, **timeouts)


def trainer_by_hand(group: Any) -> None:
    """DeepSpeed: sized by the hint, expanded, synchronous; gradients by a cached dispatch and a combine."""
    buffer = sized_by_hint(group)
    mine = inputs(group, torch.float32)
    rows, _, row_weights, handle, event = buffer.dispatch(
        mine.x, mine.topk_idx, mine.topk_weights, num_experts=experts, num_max_tokens_per_rank=tokens, do_expand=True
    )
    assert event.event is None and len(rows) == sum(handle.num_recv_tokens_per_expert_list)
    ends = handle.psum_num_recv_tokens_per_expert
    factors = gains(group).repeat_interleave(ends.diff(prepend=torch.zeros_like(ends[:1]))) * row_weights
    y, _, _ = buffer.combine(rows * factors.unsqueeze(1), handle)
    torch.testing.assert_close(y, dense(mine, mine.x, mine.topk_weights), rtol=1e-4, atol=1e-4)
    grad_rows, *_ = buffer.dispatch(torch.ones_like(y), handle=handle, do_expand=True)
    grad, _, _ = buffer.combine(grad_rows * factors.unsqueeze(1), handle)
    torch.testing.assert_close(grad, dense(mine, torch.ones_like(y), mine.topk_weights), rtol=1e-4, atol=1e-4)
    buffer.barrier()


def trainer_flat(group: Any) -> None:
    """Programs that permute rows themselves: a row per rank, weights applied by the experts, a cached dispatch."""
    buffer = sized_by_hint(group)
    mine = inputs(group, torch.bfloat16)
    x, ids, weights, handle, event = buffer.dispatch(
        mine.x, mine.topk_idx, mine.topk_weights, num_experts=experts, num_max_tokens_per_rank=tokens
    )
    assert event.event is None and len(x) == handle.psum_num_recv_tokens_per_scaleup_rank[-1]
    factors = torch.cat([gains(group), here(torch.zeros(1))])[ids]  # -1: the zero at the end
    made = (x.float() * (factors * weights).sum(1, keepdim=True)).bfloat16()
    y, _, _ = buffer.combine(made, handle)
    torch.testing.assert_close(y.float(), dense(mine, mine.x, mine.topk_weights), rtol=3e-2, atol=5e-2)
    grad, *_ = buffer.dispatch(y, handle=handle, topk_idx=handle.topk_idx)
    assert grad.shape == x.shape
    buffer.barrier()


def inference(group: Any) -> None:
    """LightLLM: FP8 rows, expanded, for a grouped matrix product by prefix sums; no CPU sync; several layers."""
    buffer = deep_ep.ElasticBuffer(
        group=group, num_max_tokens_per_rank=tokens, hidden=hidden, num_topk=top_k, use_fp8_dispatch=True,
        allow_hybrid_mode=False, prefer_overlap_with_compute=False, explicitly_destroy=True, **timeouts,
    )
    num_sms = buffer.get_theoretical_num_sms(experts, top_k)
    stats = here(torch.zeros(experts // group.size(), dtype=torch.int32))
    mine = inputs(group, torch.float32)
    for _layer in range(2):
        rows, scales, row_weights, handle = receive(buffer, mine, num_sms, stats)
        wide = (rows.float().unflatten(1, (-1, 128)) * scales.unsqueeze(2)).flatten(1)
        made = here(torch.full(rows.shape, float("nan"), dtype=torch.bfloat16))  # padding is never read
        begin = 0
        for gain, end in zip(gains(group), handle.psum_num_recv_tokens_per_expert.tolist()):
            made[begin:end] = (wide[begin:end] * gain * row_weights[begin:end, None]).bfloat16()
            begin = -(-end // 128) * 128
        y, _, event = buffer.combine(
            made, handle, num_sms=num_sms, num_qps=buffer.get_theoretical_num_qps(num_sms),
            async_with_compute_stream=True,
        )
        event.current_stream_wait()
        torch.testing.assert_close(y.float(), dense(mine, mine.x, mine.topk_weights), rtol=0.1, atol=0.5)
    chosen = everybodys_experts(group, mine)
    own = reference.experts_of(dist.get_rank(group), experts, group.size())
    assert stats.tolist() == [2 * chosen.count(expert) for expert in own]
    buffer.destroy()


def everybodys_experts(group: Any, mine: reference.Inputs) -> list[int]:
    everybody: list[Any] = [None] * group.size()
    dist.all_gather_object(everybody, mine.topk_idx.flatten().tolist(), group)
    return [expert for each in everybody for expert in each]


def receive(buffer: Any, mine: reference.Inputs, num_sms: int, stats: torch.Tensor) -> tuple[Any, Any, Any, Any]:
    """Dispatches for a layer. Returns [n, H] float8_e4m3fn, [n, H/128] float32, [n] float32, the handle."""
    grouped = mine.x.unflatten(1, (-1, 128))
    scales = grouped.abs().amax(2).clamp(min=1e-4) / 448
    quantised = (grouped / scales.unsqueeze(2)).flatten(1).to(torch.float8_e4m3fn)
    (rows, row_scales), ids, row_weights, handle, event = buffer.dispatch(
        (quantised, scales),
        topk_idx=mine.topk_idx,
        topk_weights=mine.topk_weights,
        cumulative_local_expert_recv_stats=stats,
        num_experts=experts,
        expert_alignment=128,
        num_sms=num_sms,
        async_with_compute_stream=True,
        do_handle_copy=False,
        do_cpu_sync=False,
        do_expand=True,
        use_tma_aligned_col_major_sf=True,
    )
    event.current_stream_wait()
    assert ids is None and row_scales.stride(0) == 1 and len(rows) == handle.num_expanded_tokens
    return rows, row_scales, row_weights, handle
