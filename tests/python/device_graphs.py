"""Calls that are captured into a CUDA graph, and replayed with other values in place. On the CPU: nothing."""

from __future__ import annotations

from typing import Any

import reference
import torch
import torch.distributed as dist
from device_deep_ep import Job as Throughput
from device_deep_ep import experts, tokens
from devices import device, here, on_gpu, same
from low_latency_clients import as_received, layers, make_buffer, step_of
from low_latency_reference import Job, check_received, sums


class Steps:
    """Inputs in place, of which every fourth step has as many tokens."""

    def __init__(self, job: Job, rank: int) -> None:
        self.job, self.rank = job, rank
        self.mine = here(job.inputs(rank, 0))
        own = reference.experts_of(rank, job.experts, job.ranks)
        self.factors = here(torch.tensor([1 + e / 8 for e in own]).view(-1, 1, 1))

    def load(self, step: int) -> None:
        values = here(self.job.inputs(self.rank, step))
        self.mine.x.copy_(values.x)
        self.mine.topk_idx.copy_(values.topk_idx)
        self.mine.topk_weights.copy_(values.topk_weights)


def _warm_up(call: Any) -> None:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()


def _captured(call: Any, group: Any) -> tuple[torch.cuda.CUDAGraph, Any]:
    _warm_up(call)
    dist.barrier(group)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    dist.barrier(group)
    return graph, result


def _decoding_job(group: Any) -> tuple[Job, Any, Steps]:
    job = Job(dist.get_world_size(group))
    buffer = make_buffer(group, job)
    return job, buffer, Steps(job, buffer.rank)


def decoding(group: Any) -> None:
    if not on_gpu():
        return
    job, buffer, steps = _decoding_job(group)

    def call() -> Any:
        mine = steps.mine
        recv_x, counts, handle, _, receive = buffer.low_latency_dispatch(
            mine.x, mine.topk_idx, job.max_tokens, job.experts, use_fp8=False, return_recv_hook=True
        )
        receive()
        sent = recv_x, counts, tuple(handle)  # whose items go with the combine
        rows = buffer.get_next_low_latency_combine_buffer(handle)
        rows.copy_((recv_x.float() * steps.factors).bfloat16())
        back, event, hook = buffer.low_latency_combine(
            rows, mine.topk_idx, mine.topk_weights, handle, zero_copy=True, async_finish=True
        )
        event.current_stream_wait()
        assert hook is None
        return sent, back

    graph, (sent, back) = _captured(call, group)
    for step in (4, 8, 12, 0):
        steps.load(step)
        graph.replay()
        check_received(job, buffer.rank, as_received(sent), step=step)
        same(back, sums(job, buffer.rank, step=step))
    for step in (16, 20, 24):  # without a word between replays
        steps.load(step)
        graph.replay()
    same(back, sums(job, buffer.rank, step=24))
    del sent, back
    for step in range(5):  # calls outside of the graph, and replays again
        step_of(buffer, job, step, hooks=step % 2 == 0, zero_copy=False, logfmt=False)
    graph.replay()
    torch.cuda.synchronize()
    dist.barrier(group)
    del graph
    buffer.destroy()


def decoding_layers(group: Any) -> None:
    """A graph of more layers than results may be held, whose handles are all kept; replays, and calls around them."""
    if not on_gpu():
        return
    job, buffer, steps = _decoding_job(group)
    kept: list[Any] = [None] * layers

    def layer(number: int) -> torch.Tensor:
        mine, hooks = steps.mine, number % 2 == 0
        recv_x, _, kept[number], _, receive = buffer.low_latency_dispatch(
            mine.x, mine.topk_idx, job.max_tokens, job.experts, use_fp8=False, return_recv_hook=hooks
        )
        if receive:
            receive()
        back, _, receive = buffer.low_latency_combine(
            (recv_x.float() * steps.factors).bfloat16(),
            mine.topk_idx,
            mine.topk_weights,
            kept[number],
            return_recv_hook=hooks,
        )
        if receive:
            receive()
        return back

    graph, backs = _captured(lambda: [layer(number) for number in range(layers)], group)
    for step in (4, 8, 0):
        steps.load(step)
        graph.replay()
        for back in backs:
            same(back, sums(job, buffer.rank, step=step))
        steps.load(step + 4)
        for number in range(layers):  # the same outside of the graph
            same(layer(number), sums(job, buffer.rank, step=step + 4))
    torch.cuda.synchronize()
    dist.barrier(group)
    del graph, backs
    buffer.destroy()


def decoding_in_fp8(group: Any) -> None:
    if not on_gpu():
        return
    job, buffer, steps = _decoding_job(group)

    def call() -> Any:
        mine = steps.mine
        sent = buffer.low_latency_dispatch(
            mine.x, mine.topk_idx, job.max_tokens, job.experts, round_scale=True, use_ue8m0=True
        )
        kept = *sent[:2], tuple(sent[2])
        made = (sent[0][0].float() * steps.factors).bfloat16()
        back, _, _ = buffer.low_latency_combine(made, mine.topk_idx, mine.topk_weights, sent[2], use_logfmt=True)
        return kept, back

    graph, (sent, back) = _captured(call, group)
    for step in (4, 8):
        steps.load(step)
        graph.replay()
        check_received(job, buffer.rank, as_received(sent), step=step, rounded=True)
        assert back.isfinite().all()
    torch.cuda.synchronize()
    dist.barrier(group)
    del graph
    buffer.destroy()


def worst_case(group: Any) -> None:
    """The throughput mode, whose host must not wait for counts."""
    if not on_gpu():
        return
    job = Throughput(group)
    x, most = job.mine.x.clone(), tokens * job.size
    _, _, per_expert, in_rank, _ = job.buffer.get_dispatch_layout(job.mine.topk_idx, experts)

    def call() -> Any:
        result = job.buffer.dispatch(
            x,
            topk_idx=job.mine.topk_idx,
            topk_weights=job.mine.topk_weights,
            is_token_in_rank=in_rank,
            num_tokens_per_expert=per_expert,
            num_worst_tokens=most,
            async_finish=True,
        )
        result[5].current_stream_wait()
        back = job.buffer.combine(result[0] * 2, result[4])[0]
        again = job.buffer.dispatch(x * 2, handle=result[4])[0]
        return result, back, again

    graph, (result, back, again) = _captured(call, group)
    for factor in (1, 4):
        x.copy_(job.mine.x * factor)
        graph.replay()
        same(again[: len(job.received.x)], job.received.x * (2 * factor))
        same(result[0][: len(job.received.x)], job.received.x * factor)
        same(back, job.sums(2 * factor))
    assert back.device == device()
    torch.cuda.synchronize()
    dist.barrier(group)
    del graph, result, back, again
    job.buffer.destroy()
