"""How programs call V1 of deep_ep, written from the table of its interface. Each runs as a rank of a group.

A sequence checks itself: identity experts give back each token times the number of ranks that received it.
"""

from __future__ import annotations

import json
from typing import Any

import deep_ep
import devices
import reference
import torch
import torch.distributed as dist
from ranks import meet_at_a_free_port

hidden, experts, top_k, tokens = 256, 8, 2, 16


def inputs(group: Any, dtype: torch.dtype = torch.bfloat16) -> reference.Inputs:
    return devices.here(
        reference.make_inputs(
            dist.get_rank(group), tokens=tokens, hidden=hidden, experts=experts, top_k=top_k, dtype=dtype
        )
    )


def check_identity(x: torch.Tensor, back: torch.Tensor, in_rank: torch.Tensor) -> None:
    torch.testing.assert_close(back.float(), x.float() * in_rank.sum(1, keepdim=True), rtol=1e-2, atol=1e-2)


def sized_buffer(group: Any) -> deep_ep.Buffer:
    """Takes the sizes from the hints of both configs, as trainers do."""
    nvl = rdma = 0
    for config in (
        deep_ep.Buffer.get_dispatch_config(group.size()),
        deep_ep.Buffer.get_combine_config(group.size()),
    ):
        nvl = max(nvl, config.get_nvl_buffer_size_hint(hidden * 2, group.size()))
        rdma = max(rdma, config.get_rdma_buffer_size_hint(hidden * 2, group.size()))
    return deep_ep.Buffer(group, nvl, rdma)


class FusedDispatch(torch.autograd.Function):
    """A trainer's autograd function: backward is a combine with weights."""

    @staticmethod
    def forward(ctx: Any, x: Any, ids: Any, weights: Any, buffer: Any) -> Any:
        previous = deep_ep.utils.EventOverlap(deep_ep.utils.EventHandle())
        per_rank, per_rdma, per_expert, in_rank, event = buffer.get_dispatch_layout(
            ids, experts, previous_event=previous, async_finish=True, allocate_on_comm_stream=True
        )
        received, recv_ids, recv_weights, counts, handle, event = buffer.dispatch(
            x,
            topk_idx=ids,
            topk_weights=weights,
            num_tokens_per_rank=per_rank,
            num_tokens_per_rdma_rank=per_rdma,
            is_token_in_rank=in_rank,
            num_tokens_per_expert=per_expert,
            previous_event=event,
            async_finish=True,
            allocate_on_comm_stream=True,
        )
        event.current_stream_wait()
        ctx.buffer, ctx.handle = buffer, handle
        return received, recv_ids, recv_weights, torch.tensor(counts), handle

    @staticmethod
    def backward(ctx: Any, grad: Any, _ids: Any, grad_weights: Any, _counts: Any, _handle: Any) -> Any:
        previous = deep_ep.utils.EventOverlap(deep_ep.utils.EventHandle())
        x, weights, event = ctx.buffer.combine(
            grad.contiguous(),
            ctx.handle,
            topk_weights=grad_weights.float(),
            previous_event=previous,
            async_finish=True,
            allocate_on_comm_stream=True,
        )
        event.current_stream_wait()
        return x, None, weights, None


class FusedCombine(torch.autograd.Function):
    """Its counterpart: backward is a cached dispatch."""

    @staticmethod
    def forward(ctx: Any, x: Any, buffer: Any, handle: Any) -> Any:
        previous = deep_ep.utils.EventOverlap(deep_ep.utils.EventHandle())
        combined, _, event = buffer.combine(
            x, handle=handle, async_finish=True, previous_event=previous, allocate_on_comm_stream=True
        )
        event.current_stream_wait()
        ctx.buffer, ctx.handle = buffer, handle
        return combined

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        previous = deep_ep.utils.EventOverlap(deep_ep.utils.EventHandle())
        x, _, _, _, _, event = ctx.buffer.dispatch(
            grad.contiguous(),
            handle=ctx.handle,
            previous_event=previous,
            async_finish=True,
            allocate_on_comm_stream=True,
        )
        event.current_stream_wait()
        return x, None, None


def trainer(group: Any) -> None:
    """Megatron-LM: configs and size hints, then layers."""
    train_a_layer(group, sized_buffer(group))


def train_a_layer(group: Any, buffer: deep_ep.Buffer) -> None:
    """Layout, dispatch, combine, and autograd both ways."""
    mine = inputs(group, torch.float32)
    x, weights = mine.x.clone().requires_grad_(), mine.topk_weights.clone().requires_grad_()
    received, ids, recv_weights, counts, handle = FusedDispatch.apply(x, mine.topk_idx, weights, buffer)
    assert received.shape[0] == ids.shape[0] and counts.sum() == (ids >= 0).sum()
    ours = recv_weights.masked_fill(ids < 0, 0)  # trainers map ids to the experts of their rank, and drop the others
    y = FusedCombine.apply(received * ours.sum(1, keepdim=True), buffer, handle)
    y.sum().backward()
    used = mine.topk_weights * (mine.topk_idx >= 0)
    torch.testing.assert_close(y.detach(), mine.x * used.sum(1, keepdim=True), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(x.grad, used.sum(1, keepdim=True).expand_as(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        weights.grad, (mine.x.sum(1, keepdim=True) * (mine.topk_idx >= 0)), rtol=1e-3, atol=1e-3
    )


def trainer_that_destroys(group: Any) -> None:
    """NeMo Automodel: the same, is_sm90_compiled, explicitly_destroy, the number of SMs."""
    assert deep_ep.Buffer.is_sm90_compiled() in (True, False)
    deep_ep.Buffer.set_num_sms(16)
    assert deep_ep.Buffer.get_dispatch_config(group.size()).num_sms == 16
    buffer = deep_ep.Buffer(group, 1 << 20, 0, explicitly_destroy=True)
    train_a_layer(group, buffer)
    mine = inputs(group)
    per_rank, _, per_expert, in_rank, _ = buffer.get_dispatch_layout(mine.topk_idx, experts)
    x, _, _, _, handle, _ = buffer.dispatch(
        mine.x,
        topk_idx=mine.topk_idx,
        topk_weights=mine.topk_weights,
        num_tokens_per_rank=per_rank,
        is_token_in_rank=in_rank,
        num_tokens_per_expert=per_expert,
    )
    check_identity(mine.x, buffer.combine(x, handle)[0], in_rank)
    buffer.destroy()


def all_keywords(group: Any) -> None:
    """vLLM, deepep_ht: everything by keyword, config=, a synchronous call's event is None."""
    buffer = deep_ep.Buffer(
        group=group,
        num_nvl_bytes=1 << 20,
        num_rdma_bytes=0,
        low_latency_mode=False,
        num_qps_per_rank=1,
        explicitly_destroy=True,
    )
    mine = inputs(group)
    per_rank, per_rdma, per_expert, in_rank, event = buffer.get_dispatch_layout(
        topk_idx=mine.topk_idx,
        num_experts=experts,
        previous_event=None,
        async_finish=False,
        allocate_on_comm_stream=False,
    )
    x, ids, weights, counts, handle, event = buffer.dispatch(
        x=mine.x,
        handle=None,
        num_tokens_per_rank=per_rank,
        num_tokens_per_rdma_rank=per_rdma,
        is_token_in_rank=in_rank,
        num_tokens_per_expert=per_expert,
        topk_idx=mine.topk_idx,
        topk_weights=mine.topk_weights,
        expert_alignment=1,
        config=deep_ep.Buffer.get_dispatch_config(group.size()),
        previous_event=None,
        async_finish=False,
        allocate_on_comm_stream=False,
    )
    assert event.event is None and len(counts) == experts // group.size()
    y, _, event = buffer.combine(
        x=x,
        handle=handle,
        topk_weights=None,
        config=deep_ep.Buffer.get_combine_config(group.size()),
        previous_event=None,
        async_finish=True,
        allocate_on_comm_stream=False,
    )
    event.current_stream_wait()
    check_identity(mine.x, y, in_rank)
    buffer.destroy()


def sglang_dispatch(
    buffer: deep_ep.Buffer, x: Any, mine: reference.Inputs, num_experts: int, config: deep_ep.Config, alignment: int
) -> tuple[Any, list[int], Any, torch.Tensor]:
    """SGLang's prefill. Returns what was received, counts, the handle, is_token_in_rank."""
    per_rank, per_rdma, per_expert, in_rank, previous = buffer.get_dispatch_layout(
        mine.topk_idx,
        num_experts,
        previous_event=deep_ep.Buffer.capture(),
        async_finish=True,
        allocate_on_comm_stream=True,
    )
    received, _, _, counts, handle, event = buffer.dispatch(
        x,
        topk_idx=mine.topk_idx,
        topk_weights=mine.topk_weights,
        num_tokens_per_rank=per_rank,
        num_tokens_per_rdma_rank=per_rdma,
        is_token_in_rank=in_rank,
        num_tokens_per_expert=per_expert,
        previous_event=previous,
        async_finish=True,
        allocate_on_comm_stream=True,
        expert_alignment=alignment,
        config=config,
    )
    event.current_stream_wait()
    return received, counts, handle, in_rank


def sglang_combine(buffer: deep_ep.Buffer, rows: torch.Tensor, handle: Any, config: deep_ep.Config) -> torch.Tensor:
    y, _, event = buffer.combine(
        rows,
        handle,
        async_finish=True,
        previous_event=deep_ep.Buffer.capture(),
        allocate_on_comm_stream=True,
        config=config,
    )
    event.current_stream_wait()
    return y


def config_from_json(group: Any) -> None:
    """SGLang: Config(**json), capture(), FP8 with scales."""
    text = '{"num_sms": 24, "num_max_nvl_chunked_send_tokens": 16, "num_max_nvl_chunked_recv_tokens": 256}'
    config = deep_ep.Config(**json.loads(text))
    buffer = deep_ep.Buffer(group, 1 << 20, 0, low_latency_mode=False, num_qps_per_rank=2, allow_mnnvl=True)
    mine = inputs(group)
    x = mine.x.to(torch.float8_e4m3fn), devices.here(torch.ones(tokens, hidden // 128))
    received, counts, handle, in_rank = sglang_dispatch(buffer, x, mine, experts, config, alignment=128)
    assert all(count % 128 == 0 for count in counts) and (received[1] == 1).all()
    y = sglang_combine(buffer, received[0].bfloat16(), handle, config)
    check_identity(x[0].float(), y, in_rank)


def constructor_retries(group: Any) -> None:
    """lmdeploy: an unknown keyword is a TypeError, and the constructor is called again without it."""
    try:
        buffer = deep_ep.Buffer(group, 1 << 20, 0, a_keyword_of_tomorrow=True)  # type: ignore[call-arg]
    except TypeError:
        buffer = deep_ep.Buffer(group, 1 << 20, 0, num_qps_per_rank=1)
    lmdeploy_prefill(buffer, inputs(group), experts)


def lmdeploy_prefill(buffer: deep_ep.Buffer, mine: reference.Inputs, num_experts: int) -> None:
    per_rank, per_rdma, per_expert, in_rank, event = buffer.get_dispatch_layout(mine.topk_idx, num_experts)
    x, _, _, counts, handle, _ = buffer.dispatch(
        mine.x,
        num_tokens_per_rank=per_rank,
        num_tokens_per_rdma_rank=per_rdma,
        is_token_in_rank=in_rank,
        num_tokens_per_expert=per_expert,
        topk_idx=mine.topk_idx,
        topk_weights=mine.topk_weights,
        expert_alignment=128,
    )
    assert len(counts) == num_experts // buffer.group_size and all(count % 128 == 0 for count in counts)
    check_identity(mine.x, buffer.combine(x, handle)[0], in_rank)


def subgroups(group: Any) -> None:
    """Two groups of half of the ranks each, and one of all, side by side."""
    import switchyard

    half = group.size() // 2
    halves = [dist.new_group(list(range(half))), dist.new_group(list(range(half, group.size())))]
    mine = halves[dist.get_rank() // half]
    small, large = switchyard.Communicator.from_torch(mine), switchyard.Communicator.from_torch()
    assert (small.size, large.size, small.rank, large.rank) == (half, group.size(), group.rank() % half, group.rank())
    assert small.all_gather(b"%d" % group.rank()) == [b"%d" % r for r in dist.get_process_group_ranks(mine)]
    meet_at_a_free_port(group)
    environment = switchyard.Communicator.from_environment()
    assert (environment.rank, environment.size) == (group.rank(), group.size())
