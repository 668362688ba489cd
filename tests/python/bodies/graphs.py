"""Calls that are captured into a CUDA graph and replayed with other values in place. They need GPUs."""

from __future__ import annotations

from typing import Any

import reference
import torch
import torch.distributed as dist
from bodies.deep_ep import Job as Throughput
from bodies.deep_ep import experts, tokens
from bodies.elastic import Case, make_buffer
from bodies.elastic import Job as Elastic
from bodies.low_latency_kept import layers
from decoder import Decoder
from devices import device, here, same


class Steps(Decoder):
    """A rank whose inputs stay in place. Every fourth step has as many tokens as step 0."""

    def __init__(self, buffer: Any, job: Any) -> None:
        super().__init__(buffer, job)
        self.mine = self.inputs(0)
        own = reference.experts_of(self.rank, job.experts, job.ranks)
        self.factors = here(torch.tensor([1 + e / 8 for e in own]).view(-1, 1, 1))

    def load(self, step: int) -> None:
        for place, values in zip(vars(self.mine).values(), vars(self.inputs(step)).values()):
            place.copy_(values)

    def made(self, recv_x: torch.Tensor) -> torch.Tensor:
        """Returns the outputs of the experts, computed on the GPU."""
        return (recv_x.float() * self.factors).bfloat16()

    def end(self, group: Any) -> None:
        """Waits until no rank replays. Then the graphs of all ranks may go, and their buffers."""
        torch.cuda.synchronize()
        dist.barrier(group)


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


def decoding(group: Any) -> None:
    steps = Steps.of(group)
    buffer, mine = steps.buffer, steps.mine

    def call() -> Any:
        recv_x, counts, handle, _, receive = steps.dispatch(mine, hooks=True)
        receive()
        kept = recv_x, counts, tuple(handle)  # the items of a handle can be read only before its combine
        rows = buffer.get_next_low_latency_combine_buffer(handle)
        rows.copy_(steps.made(recv_x))
        back, event, hook = steps.combine(mine, (recv_x, counts, handle), rows, zero_copy=True, async_finish=True)
        event.current_stream_wait()
        assert hook is None
        return kept, back

    graph, (sent, back) = _captured(call, group)
    for step in (4, 8, 12, 0):
        steps.load(step)
        graph.replay()
        steps.check_received(sent, step)
        steps.check_sums(back, step)
    for step in (16, 20, 24):  # nothing is checked between replays
        steps.load(step)
        graph.replay()
    steps.check_sums(back, 24)
    del sent, back
    for step in range(5):  # calls outside of the graph, and replays again
        steps.step(step, hooks=step % 2 == 0)
    graph.replay()
    steps.end(group)
    del graph
    buffer.destroy()


def decoding_layers(group: Any) -> None:
    """A graph has more layers than results may be held, and all handles are kept; calls run between replays."""
    steps = Steps.of(group)
    kept: list[Any] = [None] * layers

    def layer(number: int) -> torch.Tensor:
        hooks = number % 2 == 0
        sent = steps.dispatch(steps.mine, hooks)
        kept[number] = sent[2]
        if hooks:
            sent[4]()
        back, _, receive = steps.combine(steps.mine, sent, steps.made(sent[0]), hooks)
        if hooks:
            receive()
        return back

    graph, backs = _captured(lambda: [layer(number) for number in range(layers)], group)
    for step in (4, 8, 0):
        steps.load(step)
        graph.replay()
        for back in backs:
            steps.check_sums(back, step)
        steps.load(step + 4)
        for number in range(layers):  # the same outside of the graph
            steps.check_sums(layer(number), step + 4)
    steps.end(group)
    del graph, backs
    steps.buffer.destroy()


def decoding_in_fp8(group: Any) -> None:
    steps = Steps.of(group)

    def call() -> Any:
        sent = steps.dispatch(steps.mine, use_fp8=True, round_scale=True, use_ue8m0=True)
        kept = *sent[:2], tuple(sent[2])
        return kept, steps.combine(steps.mine, sent, steps.made(sent[0][0]), use_logfmt=True)[0]

    graph, (sent, back) = _captured(call, group)
    for step in (4, 8):
        steps.load(step)
        graph.replay()
        steps.check_received(sent, step, rounded=True)
        assert back.isfinite().all()
    steps.end(group)
    del graph
    steps.buffer.destroy()


def worst_case(group: Any) -> None:
    """In throughput mode the host must not wait for counts."""
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
        same(again[: len(job.received().x)], job.received().x * (2 * factor))
        same(result[0][: len(job.received().x)], job.received().x * factor)
        same(back, job.sums(2 * factor))
    assert back.device == device()
    torch.cuda.synchronize()
    dist.barrier(group)
    del graph, result, back, again
    job.buffer.destroy()


def worst_case_of_v2(group: Any) -> None:
    """Each replay adds to the statistics, and copies ids and scales anew."""
    case = Case("random", group.size())
    job = Elastic(group, make_buffer(group, num_max_tokens_per_rank=case.max_tokens), case)
    pairs = job.fp8(2, torch.float32)
    for each, (x, scales) in zip(job.inputs, pairs):
        each.x = torch.cat([x.float(), scales], 1)  # as rows and scales arrive
    pair, counts = (here(pairs[job.rank][0]), here(pairs[job.rank][1])), job.expanded().counts
    stats, wanted = here(torch.zeros(len(counts), dtype=torch.int64)), job.received().x

    def call() -> Any:
        options = {"cumulative_local_expert_recv_stats": stats, "use_tma_aligned_col_major_sf": True}
        (rows, scales), _, _, handle, _ = job.dispatch(pair, do_cpu_sync=False, **options)
        return rows, scales, handle.topk_idx

    call()  # those that are captured are like one before
    graph, (rows, scales, kept) = _captured(call, group)
    stats.zero_()
    for replays in (1, 2, 3):
        for each in (kept, scales):
            each.zero_()
        graph.replay()
        same(torch.cat([rows.float(), scales], 1)[: len(wanted)], wanted)
        same(kept, job.own.topk_idx)
        same(stats, torch.tensor(counts) * replays)
    torch.cuda.synchronize()
    dist.barrier(group)
    del graph, rows, scales, kept
    job.buffer.destroy()


def layouts(group: Any) -> None:
    """A graph owns what it writes, also where the engine has a kernel for layouts."""
    job = Throughput(group)
    job.dispatch()
    ids = job.mine.topk_idx.clone()
    graph, result = _captured(lambda: job.buffer.get_dispatch_layout(ids, experts), group)
    ids.fill_(-1)
    graph.replay()
    assert not result[2].any() and not result[3].any()
    ids.copy_(job.mine.topk_idx)
    graph.replay()
    same(result[0], job.table().sum(0, dtype=torch.int32))
    same(result[2], job.per_expert())
    same(result[3] * 1, job.table() * 1)
    torch.cuda.synchronize()
    dist.barrier(group)
    del graph, result
    job.buffer.destroy()
