"""How servers call deep_ep to decode, written from the table of its interface. Each runs as a rank of a group.

Sums are compared with those of plain loops over the inputs of all ranks.
"""

from __future__ import annotations

import json
from typing import Any

import deep_ep
import devices
import torch
import torch.distributed as dist
from clients.v1 import check_identity, lmdeploy_prefill, sglang_combine, sglang_dispatch
from decoder import Decoder
from low_latency_reference import Job


def vllm(group: Any) -> None:
    """vLLM, deepep_ll: everything by keyword, hooks, out=, masks, the local buffer."""
    job = Job(group.size())
    num_bytes = deep_ep.Buffer.get_low_latency_rdma_size_hint(
        num_max_dispatch_tokens_per_rank=job.max_tokens,
        hidden=job.hidden,
        num_ranks=job.ranks,
        num_experts=job.experts,
    )
    buffer = deep_ep.Buffer(
        group=group,
        num_nvl_bytes=0,
        num_rdma_bytes=num_bytes,
        low_latency_mode=True,
        num_qps_per_rank=job.experts // job.ranks,
        allow_nvlink_for_low_latency_mode=True,
        allow_mnnvl=False,
        explicitly_destroy=True,
        enable_shrink=True,
    )
    local = buffer.get_local_buffer_tensor(dtype=torch.int64, size=None, offset=0, use_rdma_buffer=True)
    assert local.numel() == num_bytes // 8
    local.fill_(-1)
    for step in range(4):
        vllm_step(buffer, job, step, fp8=step % 2 == 1)
    assert (local == -1).all()
    vllm_without_the_last(group, buffer, job)
    buffer.destroy()


def vllm_step(buffer: deep_ep.Buffer, job: Job, step: int, fp8: bool, **missing: Any) -> None:
    decoder = Decoder(buffer, job)
    mine = decoder.inputs(step)
    sent = buffer.low_latency_dispatch(
        mine.x,
        mine.topk_idx,
        job.max_tokens,
        job.experts,
        use_fp8=fp8,
        round_scale=fp8,
        use_ue8m0=fp8,
        async_finish=False,
        return_recv_hook=True,
    )
    _, _, handle, event, hook = sent
    assert event.event is None
    hook()
    decoder.check_received(sent, step, rounded=fp8, **missing)
    out = torch.full_like(mine.x, torch.nan)
    _, event, hook = buffer.low_latency_combine(
        decoder.outputs(sent),
        mine.topk_idx,
        mine.topk_weights,
        handle,
        async_finish=False,
        zero_copy=False,
        return_recv_hook=True,
        out=out,
    )
    assert event.event is None
    hook()
    check = decoder.check_sums_of_fp8 if fp8 else decoder.check_sums
    check(out, step, **missing)


def vllm_without_the_last(group: Any, buffer: deep_ep.Buffer, job: Job) -> None:
    """The last rank drops out of the others' sight, and comes back."""
    last = frozenset({job.ranks - 1})
    others = frozenset(range(job.ranks)) - last
    missing = others if buffer.rank in last else last
    status = devices.here(torch.zeros(job.ranks, dtype=torch.int32))
    dist.barrier(group)
    for rank in missing:
        buffer.low_latency_update_mask_buffer(rank, mask=True)
    vllm_step(buffer, job, 4, fp8=False, missing=missing)
    buffer.low_latency_query_mask_buffer(status)
    assert status.nonzero().flatten().tolist() == sorted(missing)
    dist.barrier(group)
    buffer.low_latency_clean_mask_buffer()
    dist.barrier(group)
    vllm_step(buffer, job, 5, fp8=False)


def sglang(group: Any) -> None:
    """SGLang: one buffer for both modes, which is cleaned when it goes from prefill to decoding."""
    job = Job(group.size())
    config = deep_ep.Config(**json.loads('{"num_sms": 24, "num_max_rdma_chunked_send_tokens": 12}'))
    nvl = config.get_nvl_buffer_size_hint(job.hidden * 2, job.ranks)
    rdma = max(
        config.get_rdma_buffer_size_hint(job.hidden * 2, job.ranks),
        deep_ep.Buffer.get_low_latency_rdma_size_hint(job.max_tokens, job.hidden, job.ranks, job.experts),
    )
    buffer = deep_ep.Buffer(
        group,
        nvl,
        rdma,
        low_latency_mode=True,
        num_qps_per_rank=max(config.num_sms, job.experts // job.ranks),
        allow_mnnvl=True,
    )
    for step in range(0, 4, 2):
        sglang_prefill(buffer, job, step, config)
        buffer.clean_low_latency_buffer(job.max_tokens, job.hidden, job.experts)
        sglang_decode(buffer, job, step, hooks=False)
        sglang_decode(buffer, job, step + 1, hooks=True)


def sglang_prefill(buffer: deep_ep.Buffer, job: Job, step: int, config: deep_ep.Config) -> None:
    mine = devices.here(job.inputs(buffer.rank, step))
    x, _, handle, in_rank = sglang_dispatch(buffer, mine.x, mine, job.experts, config, alignment=1)
    check_identity(mine.x, sglang_combine(buffer, x, handle, config), in_rank)


def sglang_decode(buffer: deep_ep.Buffer, job: Job, step: int, hooks: bool) -> None:
    """Either an event or a hook says when a half is done."""
    decoder = Decoder(buffer, job)
    mine = decoder.inputs(step)
    sent = buffer.low_latency_dispatch(
        mine.x,
        mine.topk_idx,
        job.max_tokens,
        job.experts,
        use_fp8=True,
        async_finish=not hooks,
        return_recv_hook=hooks,
    )
    _, _, handle, event, hook = sent
    hook() if hooks else event.current_stream_wait()
    decoder.check_received(sent, step)
    back, event, hook = buffer.low_latency_combine(
        decoder.outputs(sent),
        mine.topk_idx,
        mine.topk_weights,
        handle,
        async_finish=not hooks,
        return_recv_hook=hooks,
    )
    hook() if hooks else event.current_stream_wait()
    decoder.check_sums_of_fp8(back, step)


def lmdeploy(group: Any) -> None:
    """lmdeploy: a constructor that is called again without what it does not know, then both modes."""
    job = Job(group.size())
    rdma = deep_ep.Buffer.get_low_latency_rdma_size_hint(job.max_tokens, job.hidden, job.ranks, job.experts)
    sizes: dict[str, Any] = {"low_latency_mode": True, "num_qps_per_rank": job.experts // job.ranks}
    try:
        buffer = deep_ep.Buffer(group, 1 << 20, rdma, **sizes, a_keyword_of_tomorrow=True)
    except TypeError:
        buffer = deep_ep.Buffer(group, 1 << 20, rdma, **sizes)
    lmdeploy_prefill(buffer, devices.here(job.inputs(buffer.rank)), job.experts)
    decoder = Decoder(buffer, job)
    for step in range(2):
        mine = decoder.inputs(step)
        sent = buffer.low_latency_dispatch(
            mine.x, mine.topk_idx, job.max_tokens, job.experts, use_fp8=True, async_finish=False,
            return_recv_hook=True,
        )
        sent[4]()
        back, _, hook = buffer.low_latency_combine(
            decoder.outputs(sent), mine.topk_idx, mine.topk_weights, sent[2], async_finish=False,
            return_recv_hook=True,
        )
        hook()
        decoder.check_sums_of_fp8(back, step)
