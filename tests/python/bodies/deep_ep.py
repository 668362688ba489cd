"""The throughput mode of deep_ep.Buffer as ranks of a group use it, on either device. Each function checks itself."""

from __future__ import annotations

import time
from typing import Any

import deep_ep
import pytest
import reference
import switchyard
import torch
from bodies.problem import Problem, check_fp8
from devices import another_stream, busy, close, device, here, on_gpu, same

tokens, hidden, experts, top_k = 19, 256, 8, 4


class Job(Problem):
    """A rank and its buffer. Some ranks have fewer tokens than others, or none."""

    def __init__(self, group: Any, dtype: torch.dtype = torch.bfloat16) -> None:
        lengths = [(tokens, 0, 7, 16)[r % 4] for r in range(group.size())]
        sizes = {"hidden": hidden, "experts": experts, "top_k": top_k, "dtype": dtype}
        super().__init__(group, [reference.make_inputs(r, tokens=n, **sizes) for r, n in enumerate(lengths)], experts)
        self.buffer = deep_ep.Buffer(group, num_nvl_bytes=8 << 20, explicitly_destroy=True)

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


def every_result(group: Any) -> None:
    for alignment in (1, 16):
        job = Job(group)
        x, ids, weights, counts, handle, event = job.dispatch(expert_alignment=alignment)
        same(x, job.received().x)
        same(ids, job.received().topk_idx)
        same(weights, job.received().topk_weights)
        assert counts == job.received(alignment=alignment).tokens_per_expert
        assert event.event is None
        back, summed, event = job.buffer.combine(x, handle, topk_weights=weights)
        same(back, job.sums())
        same(summed, job.weights_back())
        assert event.event is None
        check_handle(job, handle)
        check_runtime(job)
        check_biases(job, x, handle)
        _, _, per_expert, in_rank, _ = job.buffer.get_dispatch_layout(job.mine.topk_idx, experts)
        routed = job.buffer.dispatch(job.mine.x, is_token_in_rank=in_rank, num_tokens_per_expert=per_expert)
        same(routed[0], job.received().x)
        assert routed[1] is None and routed[2] is None and routed[3] == job.received().tokens_per_expert
        routed = job.buffer.dispatch(
            job.mine.x, is_token_in_rank=in_rank, num_tokens_per_expert=per_expert, expert_alignment=alignment
        )
        assert routed[3] == counts
        local = job.buffer.get_local_buffer_tensor(torch.bfloat16)
        assert local.device == device() and local.numel() == 4 << 20
        job.buffer.destroy()


def check_handle(job: Job, handle: Any) -> None:
    if job.over_nodes:
        return check_internode_handle(job, handle)
    table = job.table()
    sent = table.sum(0, dtype=torch.int32)
    assert len(handle) == 6 and isinstance(handle, tuple)
    prefix, channels, starts, source, in_rank, head = handle
    same(prefix, job.prefixes())
    same(channels, sent.unsqueeze(1))
    same(starts, torch.zeros_like(sent).unsqueeze(1))
    same(source, job.received().source_token)
    same(in_rank, table)
    for destination in range(job.size):
        column = head[:, destination].cpu()
        assert column[table[:, destination]].tolist() == list(range(int(sent[destination])))
        assert (column[~table[:, destination]] == -1).all()


def check_runtime(job: Job) -> None:
    runtime = job.buffer.runtime
    assert (runtime.get_num_rdma_ranks(), runtime.get_rdma_rank()) == (max(job.node_of) + 1, job.node_of[job.rank])
    first = job.local_rank(job.rank) % job.node_of.count(0)
    assert runtime.get_root_rdma_rank(False) == 0 and runtime.get_root_rdma_rank(True) == first


def check_internode_handle(job: Job, handle: Any) -> None:
    assert len(handle) == 10 and isinstance(handle, tuple)
    in_rank, to_nodes, to_ranks, from_nodes, node_ends, starts, rank_ends, meta, node_head, rank_head = handle
    sent = job.table().sum(0, dtype=torch.int32)
    same(in_rank, job.table())
    same(to_nodes, job.per_node().unsqueeze(1))
    same(to_ranks, sent.unsqueeze(1))
    passed_on = passed_on_by(job)
    same(from_nodes, passed_on.unsqueeze(1))
    same(node_ends, passed_on.cumsum(0, dtype=torch.int32))
    same(starts, torch.zeros_like(sent).unsqueeze(1))
    same(rank_ends, torch.tensor(job.received().prefix, dtype=torch.int32))
    received = job.received()
    nodes = torch.tensor(job.node_of, dtype=torch.int32)[received.source.long()]
    same(meta.view(torch.int32), torch.stack([nodes, received.source_token], 1))
    for node, goes in enumerate(job.node_table().unbind(1)):
        assert node_head[:, node][goes].tolist() == list(range(int(goes.sum())))
        assert (node_head[:, node][~goes] == -1).all()
    ranks = job.node_of.count(job.node_of[job.rank])
    same(rank_head, torch.full((int(passed_on.sum()), ranks), -1, dtype=torch.int32))


def passed_on_by(job: Job) -> torch.Tensor:
    """Returns [nodes] int32: tokens of each node that come to this rank's node by this rank."""
    own, tokens = job.node_of[job.rank], [0] * (max(job.node_of) + 1)
    ranks = job.node_of.count(own)
    for source, node in enumerate(job.node_of):
        mine = source == job.rank if node == own else job.local_rank(source) % ranks == job.local_rank(job.rank)
        tokens[node] += int(job.node_table(source)[:, own].sum()) if mine else 0
    return torch.tensor(tokens, dtype=torch.int32)


def check_biases(job: Job, x: torch.Tensor, handle: Any) -> None:
    plain, bias = job.sums().float(), job.mine.x
    for given, factor in ((bias, 1), ((bias,), 1), ((bias, bias), 2), ((), 0)):
        close(job.buffer.combine(x, handle, bias=given)[0], plain + factor * job.own.x.float(), 2e-2)


def source_tokens(group: Any) -> None:
    """recv_src_idx of a dispatch whose rows are freed at once: a copy on the CPU, and gone on a GPU."""
    job = Job(group)
    late = job.dispatch()[4]
    item = 7 if job.over_nodes else 3
    if on_gpu():
        torch.cuda.synchronize()
        job.dispatch()
        try:
            late[item]
        except switchyard.Unusable as error:
            assert "received rows" in str(error)
    elif job.over_nodes:
        same(late[item].view(torch.int32)[:, 1], job.received().source_token)
    else:
        same(late[item], job.received().source_token)
    job.buffer.destroy()


def fp8_and_cached(group: Any) -> None:
    job = Job(group, torch.float32)
    for dtype, columns in ((torch.float32, hidden // 128), (torch.int32, 1)):
        pairs = job.fp8(columns, dtype)
        strided = pairs[job.rank][1].t().contiguous().t()
        pair = here(pairs[job.rank][0]), here(strided)
        result = job.dispatch(pair)
        for rows, scales in (result[0], job.buffer.dispatch(pair, handle=result[4])[0]):
            assert rows.dtype == torch.float8_e4m3fn and scales.dtype == dtype and scales.is_contiguous()
            assert scales.shape == (len(rows), columns)
            check_fp8(job, pairs, rows, scales)
        for queued in (False, True):
            most = tokens * job.size
            (rows, scales), *_, event = job.dispatch(pair, async_finish=queued, num_worst_tokens=most)
            assert (event.event is not None) == queued and len(scales) == most
            if queued:
                event.current_stream_wait()
            check_fp8(job, pairs, rows, scales)
    job.buffer.destroy()


def weights_of_all_ranks(group: Any) -> None:
    """A combine sums all K slots of all ranks that have a token, also where it has no ids, and any K."""
    job = Job(group)
    everybody = [job.received(r) for r in range(job.size)]
    _, _, per_expert, in_rank, _ = job.buffer.get_dispatch_layout(job.mine.topk_idx, experts)
    masked = job.buffer.dispatch(job.mine.x, is_token_in_rank=in_rank, num_tokens_per_expert=per_expert)
    for routed, columns in ((job.dispatch(), top_k), (masked, top_k), (masked, 1), (job.dispatch(), 7)):
        shapes = [(len(each.x), columns) for each in everybody]
        made = [torch.arange(n * k, dtype=torch.float32).view(n, k) + 100 * r for r, (n, k) in enumerate(shapes)]
        back, seen, _ = job.buffer.combine(routed[0], routed[4], topk_weights=here(made[job.rank]))
        same(back, job.sums())
        same(seen, reference.weights_of_all_ranks(made, everybody, job.rank, len(job.own.x)))
    job.buffer.destroy()


def tuples(group: Any) -> None:
    """A tuple of a handle's items is as good as the handle, as frameworks rebuild it; other tuples are refused."""
    job = Job(group)
    x, *_, handle, _ = job.dispatch()
    items = list(handle)
    few = (None, *items[1:4], *[None] * (len(items) - 4))
    rebuilt = (tuple(items), type(handle)(each for each in items), items, few)
    del handle, items
    for each in rebuilt:
        same(job.buffer.combine(x, each)[0], job.sums())
        same(job.buffer.dispatch(job.mine.x * 2, handle=each)[0], job.received().x * 2)
    for wrong in (tuple(each.clone() for each in rebuilt[0]), (), (1, 2, 3, 4, 5, 6)):
        with pytest.raises(switchyard.InvalidArgument, match="handle: expected what dispatch returned, or a tuple"):
            job.buffer.combine(x, wrong)
    with pytest.raises(TypeError, match="handle: expected what dispatch returned, seen int"):
        job.buffer.combine(x, 1)
    same(job.buffer.combine(x, rebuilt[0])[0], job.sums())
    job.buffer.destroy()


def ids_overwritten(group: Any) -> None:
    """Ids that the caller overwrites after a dispatch change nothing."""
    job = Job(group)
    per_rank, _, per_expert, in_rank, _ = job.buffer.get_dispatch_layout(job.mine.topk_idx, experts)
    for options in ({}, {"num_worst_tokens": tokens * job.size}):
        ids = job.mine.topk_idx.clone()
        handle = job.buffer.dispatch(
            job.mine.x, None, per_rank, num_tokens_per_expert=per_expert, topk_idx=ids, **options
        )[4]
        ids.fill_(0)
        same(handle.is_token_in_rank, job.table())
        again = job.buffer.dispatch(job.mine.x * 2, handle=handle)[0]
        same(again[: len(job.received().x)], job.received().x * 2)
    job.buffer.destroy()


def cached(group: Any) -> None:
    """A cached dispatch returns rows alone, and ignores what else get_dispatch_layout returned."""
    job = Job(group)
    handle = job.dispatch()[4]
    again, *nothing, event = job.buffer.dispatch(job.mine.x * 2, handle=handle)
    same(again, job.received().x * 2)
    assert nothing == [None] * 4 and event.event is None
    back, none, _ = job.buffer.combine(again, handle)
    same(back, job.sums(2))
    assert none is None
    per_rank, _, per_expert, in_rank, _ = job.buffer.get_dispatch_layout(job.mine.topk_idx, experts)
    layout = {"num_tokens_per_rank": per_rank, "num_tokens_per_expert": per_expert, "is_token_in_rank": in_rank}
    same(job.buffer.dispatch(job.mine.x, handle=handle, **layout)[0], job.received().x)
    job.buffer.destroy()


def late_inputs(group: Any) -> None:
    """Synchronous calls on a stream of the caller come after the work before them, and before the work after them."""
    job = Job(group)
    with another_stream():
        for factor in (1, 2, 4):
            x = torch.zeros_like(job.mine.x)
            busy()
            x.copy_(job.mine.x * factor)
            received, *_, handle, _ = job.dispatch(x)
            x.zero_()
            same(received * 1, job.received().x * factor)
            rows = torch.zeros_like(received)
            busy()
            rows.copy_(received)
            back = job.buffer.combine(rows, handle)[0]
            rows.zero_()
            same(back * 1, job.sums(factor))
    job.buffer.destroy()


def events_and_streams(group: Any) -> None:
    """The call waits for previous_event alone, of either class, and work that waits for its event comes after it."""
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
            ready: Any = deep_ep.Buffer.capture()
            ready = ready if factor == 1 else ready.event
        received, _, weights, counts, handle, event = job.dispatch(x, previous_event=ready, **options)
        assert counts == job.received().tokens_per_expert
        with another_stream(), event:
            pass
        event.current_stream_wait()
        same(received * 1, job.received().x * factor)
        first, none, one = job.buffer.combine(received, handle, previous_event=event, **options)
        biased, _, two = job.buffer.combine(received, handle, bias=job.mine.x, previous_event=one.event, **options)
        second, summed, three = job.buffer.combine(
            received, handle, topk_weights=weights, previous_event=two, **options
        )
        plain = job.buffer.combine(received, handle, previous_event=deep_ep.EventOverlap())[0]  # behind queued ones
        for each in (three, two, one):
            each.current_stream_wait()
        for sums in (first, second, plain):
            same(sums * 1, job.sums(factor))
        close(biased, job.sums(factor).float() + job.own.x.float(), 2e-2)
        same(summed * 1, job.weights_back())
        assert none is None
    comm = job.buffer.get_comm_stream()
    assert not on_gpu() or comm.device == device()
    job.buffer.destroy()


def layouts(group: Any) -> None:
    """PyTorch makes layouts before the first dispatch, and the engine later: both the same, and on any stream."""
    job = Job(group)
    for made in (False, True):
        assert (job.buffer._engines.for_layout(job.mine.topk_idx, experts) is not None) == (made and on_gpu())
        for queued, behind in ((False, False), (True, True), (True, False)):
            with another_stream():
                late = torch.full_like(job.mine.topk_idx, -1)
                busy()
                late.copy_(job.mine.topk_idx)
                captured = job.buffer.capture().event
                before = {"previous_event": captured, "allocate_on_comm_stream": True} if behind else {}
                per_rank, per_rdma, per_expert, in_rank, event = job.buffer.get_dispatch_layout(
                    late, experts, async_finish=queued, **before
                )
                assert (event.event is not None) == queued
                if queued:
                    event.current_stream_wait()
                job.check_per_node(per_rdma)
                late.fill_(-1)
                same(in_rank * 1, job.table() * 1)
                same(per_rank * 1, job.table().sum(0, dtype=torch.int32))
                same(per_expert * 1, job.per_expert())
        job.dispatch()
    job.buffer.destroy()


def worst_case(group: Any) -> None:
    """On a GPU the host waits for nothing at all; over nodes hosts take part in every call."""
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
    waits = on_gpu() and not job.over_nodes and time.monotonic() - begin >= 0.3
    assert not waits, "the host waited for the GPU"
    for each in (last, combined, event):
        each.current_stream_wait()
    check_worst_case(job, (x, ids, weights, counts, handle))
    same(back, job.sums())
    check_again(job, again, handle)
    assert nothing == [None] * 4
    *result, event = job.dispatch(num_worst_tokens=most)  # synchronous
    check_worst_case(job, result)
    assert event.event is None
    check_again(job, job.buffer.dispatch(job.mine.x * 2, handle=result[4])[0], result[4])
    if not on_gpu():
        for queued in (False, True):
            with pytest.MonkeyPatch.context() as patch:  # as for GPU tensors
                patch.setattr(deep_ep.buffer, "routes_anew", lambda num_worst_tokens, x: True)
                again, *nothing, event = job.buffer.dispatch(job.mine.x * 2, handle=handle, async_finish=queued)
            if queued:
                event.current_stream_wait()
            check_again(job, again, handle)
            assert nothing == [None] * 4
    if not job.over_nodes:
        same(handle[0], job.prefixes())
    job.buffer.destroy()


def check_worst_case(job: Job, result: Any) -> None:
    x, ids, weights, counts, handle = result
    rows, most = len(job.received().x), tokens * job.size
    assert counts == [] and x.shape == (most, hidden) and len(ids) == len(weights) == most
    same(x[:rows], job.received().x)
    same(ids[:rows], job.received().topk_idx)
    same(weights[:rows], job.received().topk_weights)
    assert (ids[rows:] == -1).all()
    source = handle[7].view(torch.int32)[:, 1] if job.over_nodes else handle[3]
    same(source[:rows], job.received().source_token)


def check_again(job: Job, again: torch.Tensor, handle: Any) -> None:
    """Checks a cached dispatch of 2 * x: it has as many rows as its dispatch."""
    assert again.shape == (tokens * job.size, hidden)
    same(again[: len(job.received().x)], job.received().x * 2)
    close(job.buffer.combine(again, handle)[0], job.sums(2))


def memory_is_reused_in_order(group: Any) -> None:
    """Results are freed while the stream still reads them, and the next calls take their memory."""
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
        same(kept[2 * step], job.received().x * (step % 4 + 1))
        same(kept[2 * step + 1], job.sums(step % 4 + 1))
    job.buffer.destroy()


def shares_of_sms(group: Any) -> None:
    """A call gets at most this rank's part of the GPU, whatever its config asks for."""
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
