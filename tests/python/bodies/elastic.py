"""deep_ep.ElasticBuffer as ranks of a group use it, on either device. Each function checks itself."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Iterator

import deep_ep
import pytest
import reference
import torch
import torch.distributed as dist
from bodies.problem import Problem
from devices import another_stream, busy, close, device, here, on_gpu, same
from ranks import played_nodes

seed = 11
generous = 20.0  # seconds; a rank that waits in vain fails soon


@dataclass(frozen=True)
class Case:
    """Sizes and routing. Everybody's inputs follow from the seed."""

    kind: str
    ranks: int
    seed: int = seed
    hidden: int = 256
    experts: int = 8
    top_k: int = 3
    tokens: tuple[int, ...] = (13, 0, 7, 1) * 2
    """Tokens of each rank."""

    @property
    def max_tokens(self) -> int:
        return max(1, *(self.tokens[: self.ranks]))

    def inputs(self, dtype: torch.dtype = torch.bfloat16) -> list[reference.Inputs]:
        return [self._inputs(rank, dtype) for rank in range(self.ranks)]

    def _inputs(self, rank: int, dtype: torch.dtype) -> reference.Inputs:
        made = reference.make_inputs(
            1000 * self.seed + rank,
            tokens=self.tokens[rank],
            hidden=self.hidden,
            experts=self.experts,
            top_k=self.top_k,
            dtype=dtype,
        )
        if self.kind == "skewed":  # all tokens choose the last expert, and few another one
            made.topk_idx[:, 1:] = -1
            made.topk_idx[:, 0] = self.experts - 1
        if self.kind == "empty":
            made.topk_idx[:] = -1
        return made


def cases(ranks: int) -> list[Case]:
    """Random, skewed and empty routing; no tokens at all; uneven sizes; ranks without experts.

    On a GPU random routing only: each further size makes an engine.
    """
    every = [
        Case("random", ranks),
        Case("skewed", ranks, seed + 1),
        Case("empty", ranks, seed + 2),
        Case("random", ranks, seed + 3, tokens=(0, 0, 0, 0)),
        Case("random", ranks, seed + 4, hidden=77, experts=7, top_k=5, tokens=(3, 5, 11, 2)),
        Case("random", ranks, seed + 5, experts=1, top_k=1),
    ]
    return every[:1] if on_gpu() else every


def make_buffer(group: Any, **options: Any) -> deep_ep.ElasticBuffer:
    defaults = {"num_bytes": 8 << 20, "num_cpu_timeout_secs": generous, "num_gpu_timeout_secs": generous}
    return deep_ep.ElasticBuffer(group, explicitly_destroy=True, **(defaults | options))


class Job(Problem):
    """A rank in a case, and a buffer."""

    def __init__(
        self, group: Any, buffer: deep_ep.ElasticBuffer, case: Case, dtype: torch.dtype = torch.bfloat16
    ) -> None:
        super().__init__(group, case.inputs(dtype), case.experts)
        self.buffer, self.case = buffer, case

    def dispatch(self, x: Any = None, **options: Any) -> Any:
        return self.buffer.dispatch(
            self.mine.x if x is None else x,
            topk_idx=self.mine.topk_idx,
            topk_weights=self.mine.topk_weights,
            num_experts=self.experts,
            **options,
        )

    def sums_in(self, do_expand: bool, factor: float = 1.0) -> torch.Tensor:
        return self.expanded_sums(factor) if do_expand else self.sums(factor)


@contextmanager
def explained(case: Case, **more: Any) -> Iterator[None]:
    """Prints the inputs when a check fails."""
    try:
        yield
    except BaseException:
        print(f"failed with seed {case.seed}: {case} {more}", file=sys.stderr, flush=True)
        raise


def jobs(group: Any, **options: Any) -> Iterator[Job]:
    """All cases with one buffer, which is destroyed in the end."""
    buffer = make_buffer(group, **options)
    for case in cases(group.size()):
        with explained(case):
            yield Job(group, buffer, case)
    buffer.destroy()


def check_handle(job: Job, handle: Any, alignment: int) -> None:
    """Checks what callers read of a handle, with CPU sync or without."""
    wanted, ends = job.expanded(alignment=alignment), torch.tensor(job.received().prefix, dtype=torch.int32)
    same(handle.num_recv_tokens_per_expert, torch.tensor(wanted.counts, dtype=torch.int32))
    padded = torch.tensor([-(-count // alignment) * alignment for count in wanted.counts], dtype=torch.int32)
    sums = torch.tensor(wanted.ends, dtype=torch.int32) if handle.do_expand else padded.cumsum(0, dtype=torch.int32)
    same(handle.num_unaligned_recv_tokens_per_expert, torch.tensor(wanted.counts, dtype=torch.int32))
    same(handle.psum_num_recv_tokens_per_expert, sums)
    same(handle.psum_num_recv_tokens_per_scaleup_rank, by_scaleup_rank(job, ends))
    exchanged = handle._exchanged_ends_of_ranks()  # as in the expanded layout on a GPU
    same(exchanged, ends)
    assert handle.psum_num_recv_tokens_per_expert.is_contiguous() and exchanged.is_contiguous()
    same(handle.topk_idx, job.own.topk_idx)
    assert handle.topk_idx is not job.mine.topk_idx and handle.num_sms > 0 and handle.num_sms % 2 == 0
    received = job.size * job.case.max_tokens if handle.plan.num_worst_tokens else len(job.received().x)
    assert handle.num_recv_tokens == received
    check_metadata(job, handle, alignment)


def by_scaleup_rank(job: Job, ends: torch.Tensor) -> torch.Tensor:
    """Returns the ends of what ranks with the same number in their nodes sent, from those of all ranks."""
    each = job.buffer.num_scaleup_ranks
    received = ends.diff(prepend=torch.zeros(1, dtype=torch.int32)).tolist()
    return torch.tensor([sum(received[i::each]) for i in range(each)]).cumsum(0, dtype=torch.int32)


def check_metadata(job: Job, handle: Any, alignment: int) -> None:
    most = handle.num_max_tokens_per_rank or max(len(each.x) for each in job.inputs)
    wanted = reference.metadata(job.inputs, job.rank, job.experts, most, alignment)
    table = torch.tensor(wanted, dtype=torch.int32).view(-1, 2 + job.case.top_k)
    if not handle.do_expand:
        table[:, 2:] = -1
    seen = handle.recv_src_metadata
    same(seen[: len(table)], table)
    assert len(seen) == handle.num_recv_tokens and (seen[len(table) :] == -1).all()
    numbers = handle.dst_buffer_slot_idx.cpu()
    sent = [0] * job.size
    for token, ids in enumerate(job.own.topk_idx.tolist()):
        ranks = [-1 if expert < 0 else reference.rank_of(expert, job.experts, job.size) for expert in ids]
        assert numbers[token].tolist() == [-1 if rank < 0 else sent[rank] for rank in ranks]
        for rank in set(ranks) - {-1}:
            sent[rank] += 1
    assert handle.token_metadata_at_forward is None and handle.channel_linked_list is None


def check_rows(job: Job, x: torch.Tensor, do_expand: bool, alignment: int, factor: int = 1) -> None:
    """Checks that real rows lie where they belong and, in the expanded layout, that zeros lie between them."""
    if not do_expand:
        return same(x[: len(job.received().x)], job.received().x * factor)
    wanted = job.expanded(alignment=alignment)
    same(x[here(wanted.at)], wanted.x * factor)
    pads = torch.ones(len(x), dtype=torch.bool).index_fill(0, wanted.at, False)
    assert (x.cpu()[pads] == 0).all()


# ---- with CPU sync ----


def flat(group: Any) -> None:
    for job in jobs(group):
        for alignment in (None, 1, 4):
            with explained(job.case, alignment=alignment):
                check_flat(job, alignment)


def check_flat(job: Job, alignment: int | None) -> None:
    wanted = job.received(alignment=alignment or 1)
    x, ids, weights, handle, event = job.dispatch(expert_alignment=alignment)
    assert event.event is None
    same(x, wanted.x)
    same(ids, wanted.topk_idx)
    same(weights, wanted.topk_weights)
    assert handle.num_recv_tokens_per_expert_list == wanted.tokens_per_expert
    assert handle.num_expanded_tokens == sum(wanted.tokens_per_expert)
    check_handle(job, handle, alignment or 1)
    back, summed, event = job.buffer.combine(x, handle, topk_weights=weights)
    same(back, job.sums())
    same(summed, job.weights_back())
    assert event.event is None
    check_biases(job, x, handle, job.sums())
    narrow = job.buffer.dispatch(job.mine.x, job.mine.topk_idx.int(), num_experts=job.experts)
    same(narrow[0], wanted.x)
    same(narrow[1], wanted.topk_idx.int())
    assert narrow[2] is None


def check_biases(job: Job, rows: torch.Tensor, handle: Any, sums: torch.Tensor) -> None:
    for bias, factor in ((job.mine.x, 1), ((job.mine.x, job.mine.x), 2), ((), 0)):
        back, none, _ = job.buffer.combine(rows, handle, bias=bias)
        torch.testing.assert_close(
            back.cpu().float(), sums.float() + factor * job.own.x.float(), rtol=2e-2, atol=5e-2
        )
        assert none is None


def expanded(group: Any) -> None:
    for job in jobs(group):
        for alignment in (1, 8):
            with explained(job.case, alignment=alignment):
                check_expanded(job, alignment)


def check_expanded(job: Job, alignment: int) -> None:
    wanted = job.expanded(alignment=alignment)
    x, ids, weights, handle, _ = job.dispatch(do_expand=True, do_zero_padding=True, expert_alignment=alignment)
    assert ids is None and len(x) == len(weights) == wanted.rows == handle.num_expanded_tokens
    check_rows(job, x, True, alignment)
    same(weights[here(wanted.at)], wanted.weights)
    padded = [-(-count // alignment) * alignment for count in wanted.counts]
    assert handle.num_recv_tokens_per_expert_list == padded
    check_handle(job, handle, alignment)
    made = torch.full_like(x, float("nan"))  # padding rows are not read
    made[here(wanted.at)] = here(wanted.x * (2 + job.rank))
    sums = job.expanded_sums(*(2 + r for r in range(job.size)))
    back, summed, _ = job.buffer.combine(made, handle, topk_weights=weights, num_sms=handle.num_sms)
    same(back, sums)
    same(summed, job.weights_back())
    check_biases(job, made, handle, sums)


def cached(group: Any) -> None:
    for job in jobs(group):
        for do_expand in (False, True):
            with explained(job.case, do_expand=do_expand):
                check_cached(job, do_expand, 8)


def check_cached(job: Job, do_expand: bool, alignment: int) -> None:
    x, *_, handle, _ = job.dispatch(do_expand=do_expand, expert_alignment=alignment)
    for queued in (False, True):
        options: Any = {"do_zero_padding": True, "async_with_compute_stream": queued}
        again, ids, weights, same_handle, event = job.buffer.dispatch(job.mine.x * 2, handle=handle, **options)
        if queued:
            event.current_stream_wait()
        check_rows(job, again, do_expand, alignment, 2)
        assert weights is None and same_handle is handle and again.shape == x.shape
        check_ids(job, ids, do_expand)
    weighted = job.buffer.dispatch(job.mine.x, topk_weights=job.mine.topk_weights * 3, handle=handle)
    assert weighted[3] is handle
    check_ids(job, weighted[1], do_expand)
    wanted = job.expanded(alignment=alignment)
    if do_expand:
        same(weighted[0][here(wanted.at)], wanted.x)
        same(weighted[2][here(wanted.at)], wanted.weights * 3)
    else:
        same(weighted[0], job.received().x)
        same(weighted[2], job.received().topk_weights * 3)


def check_ids(job: Job, ids: torch.Tensor | None, do_expand: bool) -> None:
    """Checks the ids of a cached dispatch; past the real rows they are -1."""
    if do_expand:
        assert ids is None
        return
    wanted = job.received().topk_idx
    assert ids is not None
    same(ids[: len(wanted)], wanted)
    assert (ids[len(wanted) :] == -1).all()


def ids_overwritten(group: Any) -> None:
    """A handle keeps a copy of the ids, unless the caller wants none: then it keeps theirs."""
    for case in cases(group.size())[:1]:
        buffer = make_buffer(group, num_max_tokens_per_rank=case.max_tokens)
        job = Job(group, buffer, case)
        for options in ({}, {}, {"do_cpu_sync": False}, {"do_expand": True}, {"async_with_compute_stream": True}):
            ids = job.mine.topk_idx.clone()
            x, *_, handle, event = buffer.dispatch(job.mine.x, topk_idx=ids, num_experts=job.experts, **options)
            if event.event is not None:
                event.current_stream_wait()
            ids.fill_(0)
            same(handle.topk_idx, job.own.topk_idx)
            again, seen, *_ = buffer.dispatch(job.mine.x * 2, handle=handle)
            check_rows(job, again, options.get("do_expand", False), 1, 2)
            check_ids(job, seen, options.get("do_expand", False))
        own = job.dispatch(do_handle_copy=False)[3]
        assert own.topk_idx is job.mine.topk_idx
        buffer.destroy()


def statistics(group: Any) -> None:
    """Counts without padding are added, by fresh and by cached dispatches."""
    for job in jobs(group):
        counts = torch.tensor(job.expanded().counts, dtype=torch.int32)
        stats = here(torch.arange(len(counts), dtype=torch.int32))
        for do_cpu_sync in (True, False):
            with explained(job.case, do_cpu_sync=do_cpu_sync):
                before = stats.cpu().clone()
                *_, handle, event = job.dispatch(
                    cumulative_local_expert_recv_stats=stats,
                    expert_alignment=4,
                    num_max_tokens_per_rank=job.case.max_tokens,
                    do_cpu_sync=do_cpu_sync,
                    async_with_compute_stream=True,
                )
                event.current_stream_wait()
                same(stats, before + counts)
                job.buffer.dispatch(job.mine.x, handle=handle, cumulative_local_expert_recv_stats=stats)
                same(stats, before + 2 * counts)


# ---- without CPU sync ----


def without_cpu_sync(group: Any) -> None:
    """On a GPU the host waits for nothing at all. M is given once to the constructor, and once to the call."""
    for case in cases(group.size()):
        of_buffer = case.seed % 2 == 1
        buffer = make_buffer(group, num_max_tokens_per_rank=case.max_tokens if of_buffer else 0)
        job, of_call = Job(group, buffer, case), {} if of_buffer else {"num_max_tokens_per_rank": case.max_tokens}
        for do_expand in (False, True):
            for queued in (False, True):
                with explained(case, do_expand=do_expand, queued=queued):
                    check_without_cpu_sync(job, do_expand, queued, of_call)
        buffer.destroy()


def check_without_cpu_sync(job: Job, do_expand: bool, queued: bool, of_call: dict[str, int]) -> None:
    alignment = 4 if do_expand else 1
    options: Any = {"do_expand": do_expand, "expert_alignment": alignment, "do_cpu_sync": False} | of_call

    def step() -> Any:
        x, ids, weights, handle, event = job.dispatch(
            async_with_compute_stream=queued, do_zero_padding=True, **options
        )
        assert (event.event is not None) == queued
        # A combine and a cached dispatch are queued behind it without a wait.
        back, none, combined = job.buffer.combine(x, handle, previous_event=event, async_with_compute_stream=True)
        again, *_, same_handle, second = job.buffer.dispatch(
            job.mine.x * 2, handle=handle, do_zero_padding=True, async_with_compute_stream=True
        )
        last, _, third = job.buffer.combine(
            again, handle, previous_event=combined, previous_event_before_epilogue=second,
            async_with_compute_stream=True,
        )
        third.current_stream_wait()
        assert none is None and same_handle is handle
        return (x, ids, weights, handle), handle.psum_num_recv_tokens_per_expert, back, again, last

    step()  # makes the engine
    if on_gpu():
        torch.cuda.synchronize()
    job.buffer.barrier()
    begin = time.monotonic()
    busy(0.5)
    result, ends, back, again, last = step()
    waits = on_gpu() and not job.over_nodes and queued and time.monotonic() - begin >= 0.3
    assert not waits, "the host waited for the GPU"
    wanted = job.expanded(alignment=alignment)
    padded = torch.tensor([-(-count // alignment) * alignment for count in wanted.counts])
    same(ends, torch.tensor(wanted.ends, dtype=torch.int32) if do_expand else padded.cumsum(0, dtype=torch.int32))
    check_bounded(job, result, do_expand, alignment)
    same(back, job.sums_in(do_expand))
    same(last, job.sums_in(do_expand, 2))
    check_rows(job, again, do_expand, alignment, 2)
    assert again.shape == result[0].shape
    if not on_gpu():
        with pytest.MonkeyPatch.context() as patch:  # as for GPU tensors
            patch.setattr(deep_ep.elastic, "routes_anew", lambda num_worst_tokens, x: True)
            anew = job.buffer.dispatch(job.mine.x * 2, handle=result[3], do_zero_padding=True)
        check_rows(job, anew[0], do_expand, alignment, 2)
        check_ids(job, anew[1], do_expand)
        assert anew[2] is None and anew[3] is result[3] and anew[0].shape == again.shape


def check_bounded(job: Job, result: Any, do_expand: bool, alignment: int) -> None:
    x, ids, weights, handle = result
    assert handle.num_recv_tokens_per_expert_list == []
    check_handle(job, handle, alignment)
    check_rows(job, x, do_expand, alignment)
    if do_expand:
        wanted, local = job.expanded(alignment=alignment), -(-job.experts // job.size)
        slots = job.size * job.case.max_tokens * min(job.case.top_k, local)
        most = slots + min(slots, local) * (alignment - 1)
        assert ids is None and wanted.rows <= len(x) == len(weights) == handle.num_expanded_tokens <= most
        same(weights[here(wanted.at)], wanted.weights)
    else:
        wanted, real = job.received(), len(job.received().x)
        assert len(x) == len(ids) == len(weights) == job.size * job.case.max_tokens
        same(ids[:real], wanted.topk_idx)
        same(weights[:real], wanted.topk_weights)
        assert (ids[real:] == -1).all()


# ---- FP8 ----


def fp8(group: Any) -> None:
    """A token's scales say which token it is, so a reference with whole rows checks both."""
    buffer = make_buffer(group, num_max_tokens_per_rank=max(case.max_tokens for case in cases(group.size())))
    for case in cases(group.size()):
        for dtype, columns in ((torch.float32, -(-case.hidden // 128)), (torch.int32, 1)):
            job = Job(group, buffer, case, torch.float32)
            pairs = job.fp8(columns, dtype)
            for each, (x, scales) in zip(job.inputs, pairs):
                each.x = torch.cat([x.float(), scales.float()], 1)  # as rows and scales arrive
            pair = here(pairs[job.rank][0]), here(pairs[job.rank][1])
            for do_expand in (False, True):
                for do_cpu_sync in (True, False):
                    with explained(case, dtype=dtype, do_expand=do_expand, do_cpu_sync=do_cpu_sync):
                        check_fp8(job, pair, do_expand=do_expand, do_cpu_sync=do_cpu_sync)
    buffer.destroy()


def check_fp8(job: Job, pair: Any, **options: Any) -> None:
    column_major: Any = {"use_tma_aligned_col_major_sf": True, "async_with_compute_stream": True}
    plain, *_, handle, _ = job.dispatch(pair, expert_alignment=4, **options)
    assert plain[1].is_contiguous()
    fresh = job.dispatch(pair, expert_alignment=4, **options, **column_major)
    again = job.buffer.dispatch(pair, handle=handle, **column_major)
    wanted, at = job.received().x, torch.arange(len(job.received().x))
    if options["do_expand"]:
        wanted, at = job.expanded(alignment=4).x, job.expanded(alignment=4).at
    for result in (fresh, again):
        result[-1].current_stream_wait()
        assert result[0][1].stride() == (1, max(4, -(-len(result[0][0]) // 4) * 4))
    for rows, scales in (plain, fresh[0], again[0]):
        assert rows.dtype == torch.float8_e4m3fn and scales.dtype == pair[1].dtype
        assert scales.shape == (len(rows), pair[1].shape[1])
        same(torch.cat([rows.float(), scales.float()], 1)[here(at)], wanted)


# ---- streams and events ----


def _job(group: Any) -> Job:
    case = Case("random", group.size(), tokens=(40, 3, 17, 8) * 2)
    return Job(group, make_buffer(group, num_max_tokens_per_rank=case.max_tokens), case)


def late_inputs(group: Any) -> None:
    """Synchronous calls on a stream of the caller come after the work before them, and before the work after them."""
    job = _job(group)
    with another_stream():
        for factor, do_expand in ((1, False), (2, True), (4, False)):
            x = torch.zeros_like(job.mine.x)
            busy()
            x.copy_(job.mine.x * factor)
            received, *_, handle, _ = job.dispatch(x, do_expand=do_expand, do_zero_padding=True, expert_alignment=8)
            x.zero_()
            check_rows(job, received * 1, do_expand, 8, factor)
            rows = torch.zeros_like(received)
            busy()
            rows.copy_(received)
            back = job.buffer.combine(rows, handle)[0]
            rows.zero_()
            same(back * 1, job.sums_in(do_expand, factor))
    job.buffer.destroy()


def attributes(group: Any) -> None:
    """What is given is kept; ranks learn where they are. Without the hybrid mode all count as one domain."""
    rank, size = group.rank(), group.size()
    given = {
        "deterministic": True,
        "allow_hybrid_mode": False,
        "allow_multiple_reduction": False,
        "prefer_overlap_with_compute": False,
        "num_allocated_qps": 7,
    }
    buffer = make_buffer(group, **given)
    assert {name: getattr(buffer, name) for name in given} == given
    assert (buffer.rank_idx, buffer.num_ranks, buffer.rank, buffer.group_size) == (rank, size, rank, size)
    assert buffer.get_logical_domain_size() == deep_ep.get_logical_domain_size(group, False) == (1, size)
    buffer.destroy()
    domains(group, make_buffer(group))


def domains(group: Any, buffer: deep_ep.ElasticBuffer) -> None:
    rank, node_of = group.rank(), played_nodes(group.size())
    sizes = [node_of.count(node) for node in sorted(set(node_of))]
    physical = len(sizes), node_of.count(node_of[rank])
    regular = len(set(sizes)) == 1 and node_of == sorted(node_of)
    logical = (len(sizes), sizes[0]) if regular else (1, group.size())
    assert (buffer.num_rdma_ranks, buffer.num_nvlink_ranks) == physical == buffer.get_physical_domain_size()
    assert (buffer.num_scaleout_ranks, buffer.num_scaleup_ranks) == logical == buffer.get_logical_domain_size()
    assert (buffer.scaleout_rank_idx, buffer.scaleup_rank_idx) == divmod(rank, logical[1])
    assert not regular or (buffer.scaleout_rank_idx, logical[1]) == (node_of[rank], physical[1])
    other = dist.new_group(list(range(group.size())))  # of which no buffer was made
    for asked in (group, None, other):
        assert deep_ep.get_physical_domain_size(asked) == physical
        assert deep_ep.get_logical_domain_size(asked) == logical
    buffer.destroy()


def events_and_streams(group: Any) -> None:
    """A call waits for both events, each of a stream of its own, and work that waits for its event comes after it."""
    job = _job(group)
    job.dispatch()  # makes the engine
    half, options = len(job.mine.x) // 2, {"async_with_compute_stream": True, "allocate_on_comm_stream": True}
    for factor, do_cpu_sync in ((1, True), (2, False)):
        x, ready = torch.zeros_like(job.mine.x), []
        if on_gpu():
            torch.cuda.synchronize()
        for part in (slice(half), slice(half, None)):
            with another_stream():
                busy()
                x[part].copy_(job.mine.x[part] * factor)
                captured = deep_ep.ElasticBuffer.capture()
                assert isinstance(captured, deep_ep.EventHandle)
                ready.append(captured if part.start is None else deep_ep.EventOverlap(captured))
        before: Any = dict(zip(("previous_event", "previous_event_before_epilogue"), ready))
        received, *_, handle, event = job.dispatch(x, do_cpu_sync=do_cpu_sync, **before, **options)
        first, _, one = job.buffer.combine(received, handle, previous_event=event, **options)
        second, _, two = job.buffer.combine(
            received, handle, previous_event=event, previous_event_before_epilogue=one, **options
        )
        biased, _, three = job.buffer.combine(
            received,
            handle,
            bias=job.mine.x,
            previous_event=event.event,
            previous_event_before_epilogue=two.event,
            **options,
        )
        with another_stream(), three:
            pass
        plain, _, synchronous = job.buffer.combine(received, handle, previous_event=deep_ep.EventOverlap())
        assert synchronous.event is None
        three.current_stream_wait()
        check_rows(job, received * 1, False, 1, factor)
        for each in (first, second, plain):
            same(each * 1, job.sums(factor))
        close(biased, job.sums(factor).float() + job.own.x.float(), 5e-2)
    job.buffer.barrier()
    job.buffer.barrier(use_comm_stream=False, with_cpu_sync=True, sequential=False)
    job.buffer.destroy()


def shares_of_sms(group: Any) -> None:
    """A call gets at most this rank's part of the GPU, whatever it asks for."""
    job = _job(group)
    for sms in (2, 512):
        x, *_, handle, _ = job.dispatch(num_sms=sms, do_expand=True, expert_alignment=8)
        assert handle.num_sms == sms
        for of_combine in (0, sms):
            same(job.buffer.combine(x, handle, num_sms=of_combine)[0], job.expanded_sums())
        again = job.buffer.dispatch(job.mine.x, handle=handle, do_zero_padding=True)[0]
        check_rows(job, again, True, 8)
    comm = job.buffer.get_comm_stream()
    assert not on_gpu() or comm.device == device()
    job.buffer.destroy()
