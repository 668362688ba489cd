"""deep_ep.ElasticBuffer, as ranks of a group use it, on either device; each function checks itself."""

from __future__ import annotations

import time
from typing import Any

import deep_ep
import elastic_reference
import reference
import torch
from devices import another_stream, busy, close, device, here, on_gpu, same
from elastic_reference import Case, expanded_sums, tokens_from

experts, alignment = 8, 8


class Job:
    """A rank, its buffer, and everybody's inputs."""

    def __init__(self, group: Any, dtype: torch.dtype = torch.bfloat16) -> None:
        self.rank, self.size = group.rank(), group.size()
        self.case = Case("random", self.size, seed=3, experts=experts, tokens=(19, 0, 7, 16) * 2)
        self.inputs = self.case.inputs(dtype)
        self.mine = here(self.inputs[self.rank])
        self.buffer = deep_ep.ElasticBuffer(
            group,
            num_bytes=8 << 20,
            num_max_tokens_per_rank=self.case.max_tokens,
            num_cpu_timeout_secs=10,
            num_gpu_timeout_secs=10,
            explicitly_destroy=True,
        )
        self.flat = reference.flat(self.inputs, self.rank, experts, alignment)
        self.expanded = elastic_reference.expanded(self.inputs, self.rank, experts, alignment)

    def dispatch(self, x: Any = None, **options: Any) -> Any:
        return self.buffer.dispatch(
            self.mine.x if x is None else x,
            topk_idx=self.mine.topk_idx,
            topk_weights=self.mine.topk_weights,
            num_experts=experts,
            expert_alignment=alignment,
            **options,
        )

    def sums(self, do_expand: bool, factor: float = 1.0) -> torch.Tensor:
        """What comes back when experts multiply by a factor."""
        if do_expand:
            each = [elastic_reference.expanded(self.inputs, r, experts, alignment).x for r in range(self.size)]
            return expanded_sums([rows * factor for rows in each], self.inputs, self.rank, experts)
        received = [reference.flat(self.inputs, r, experts) for r in range(self.size)]
        return reference.combined([r.x * factor for r in received], received, self.rank, len(self.mine.x))

    def weights_back(self) -> torch.Tensor:
        mine = self.inputs[self.rank]
        return mine.topk_weights * (mine.topk_idx >= 0)


def check_handle(job: Job, handle: Any) -> None:
    same(handle.num_recv_tokens_per_expert, torch.tensor(job.expanded.counts, dtype=torch.int32))
    same(handle.psum_num_recv_tokens_per_expert, torch.tensor(job.expanded.ends, dtype=torch.int32))
    ends = tokens_from(job.inputs, job.rank, experts)
    same(handle.psum_num_recv_tokens_per_scaleup_rank, torch.tensor(ends, dtype=torch.int32))


def check_rows(job: Job, do_expand: bool, x: torch.Tensor, factor: int = 1) -> None:
    """Real ones where they belong, and, expanded, zeros between them."""
    if not do_expand:
        return same(x[: len(job.flat.x)], job.flat.x * factor)
    same(x[here(job.expanded.at)], job.expanded.x * factor)
    pads = torch.ones(len(x), dtype=torch.bool).index_fill(0, job.expanded.at, False)
    assert (x.cpu()[pads] == 0).all()


def flat(group: Any) -> None:
    job = Job(group)
    stats = here(torch.ones(len(job.expanded.counts), dtype=torch.int32))
    x, ids, weights, handle, event = job.dispatch(cumulative_local_expert_recv_stats=stats)
    assert event.event is None and handle.num_recv_tokens_per_expert_list == job.flat.tokens_per_expert
    assert len(x) == len(job.flat.x) and handle.num_expanded_tokens == sum(job.flat.tokens_per_expert)
    check_rows(job, False, x)
    same(ids, job.flat.topk_idx)
    same(weights, job.flat.topk_weights)
    assert stats.tolist() == [1 + count for count in job.expanded.counts]
    check_handle(job, handle)
    back, summed, event = job.buffer.combine(x, handle, topk_weights=weights)
    same(back, job.sums(False))
    same(summed, job.weights_back())
    assert event.event is None
    for bias, factor in ((x.new_ones(back.shape), 1), ((x.new_ones(back.shape),) * 2, 2)):
        close(job.buffer.combine(x, handle, bias=bias)[0], job.sums(False).float() + factor, 2e-2)
    job.buffer.destroy()


def expanded(group: Any) -> None:
    job = Job(group)
    x, ids, weights, handle, _ = job.dispatch(do_expand=True, do_zero_padding=True)
    assert ids is None and len(x) == len(weights) == job.expanded.rows == handle.num_expanded_tokens
    check_rows(job, True, x)
    same(weights[here(job.expanded.at)], job.expanded.weights)
    check_handle(job, handle)
    made = torch.full_like(x, float("nan"))  # rows that only pad are not read
    made[here(job.expanded.at)] = x[here(job.expanded.at)] * 2
    back, summed, _ = job.buffer.combine(made, handle, topk_weights=weights)
    same(back, job.sums(True, 2))
    same(summed, job.weights_back())
    job.buffer.destroy()


def cached(group: Any) -> None:
    job = Job(group)
    for do_expand in (False, True):
        x, *_, handle, _ = job.dispatch(do_expand=do_expand)
        for asynchronous in (False, True):
            options: Any = {"do_zero_padding": True, "async_with_compute_stream": asynchronous}
            again, ids, weights, same_handle, event = job.buffer.dispatch(job.mine.x * 2, handle=handle, **options)
            if asynchronous:
                event.current_stream_wait()
            check_rows(job, do_expand, again, 2)
            assert ids is None and weights is None and same_handle is handle and again.shape == x.shape
        weighted = job.buffer.dispatch(job.mine.x, topk_weights=job.mine.topk_weights * 2, handle=handle)
        assert weighted[3] is not handle
        wanted = job.expanded.weights if do_expand else job.flat.topk_weights
        same(weighted[2][here(job.expanded.at)] if do_expand else weighted[2], wanted * 2)
    job.buffer.destroy()


def _queued(job: Job, do_expand: bool) -> Any:
    """A step, forward and cached, that nothing on the host has to wait in."""
    options: Any = {"async_with_compute_stream": True, "do_zero_padding": True}
    x, ids, weights, handle, event = job.dispatch(do_cpu_sync=False, do_expand=do_expand, **options)
    event.current_stream_wait()
    ends = handle.psum_num_recv_tokens_per_expert
    again, *_, second = job.buffer.dispatch(job.mine.x * 2, handle=handle, **options)
    back, _, last = job.buffer.combine(
        x, handle, previous_event=event, previous_event_before_epilogue=second, async_with_compute_stream=True
    )
    last.current_stream_wait()
    return (x, ids, weights, handle), ends, again, back


def without_cpu_sync(group: Any) -> None:
    """On a GPU the host waits for nothing at all."""
    job = Job(group)
    for do_expand in (False, True):
        _queued(job, do_expand)  # makes the engine
        if on_gpu():
            torch.cuda.synchronize()
        group.barrier().wait()
        begin = time.monotonic()
        busy(0.5)
        (x, ids, weights, handle), ends, again, back = _queued(job, do_expand)
        assert not on_gpu() or time.monotonic() - begin < 0.3, "the host waited for the GPU"
        same(ends, torch.tensor(job.expanded.ends, dtype=torch.int32))
        check_rows(job, do_expand, x)
        check_rows(job, do_expand, again, 2)
        same(back, job.sums(do_expand))
        assert handle.num_recv_tokens_per_expert_list == [] and again.shape == x.shape
        check_handle(job, handle)
        if do_expand:
            assert len(x) == handle.num_expanded_tokens >= job.expanded.rows
            same(weights[here(job.expanded.at)], job.expanded.weights)
        else:
            assert len(x) == job.size * job.case.max_tokens and (ids[len(job.flat.x) :] == -1).all()
            same(ids[: len(job.flat.x)], job.flat.topk_idx)
            same(weights[: len(job.flat.x)], job.flat.topk_weights)
    job.buffer.destroy()


def fp8_column_major(group: Any) -> None:
    """A token's scales say which it is."""
    job = Job(group)
    for dtype, columns in ((torch.float32, job.case.hidden // 128), (torch.int32, 1)):
        scales = [
            torch.arange(len(each.x) * columns).view(columns, -1).t() + 1000 * rank
            for rank, each in enumerate(job.inputs)
        ]
        x = [each.x.to(torch.float8_e4m3fn) for each in job.inputs]
        both = [
            reference.Inputs(torch.cat([x[r].float(), scales[r].float()], 1), each.topk_idx, each.topk_weights)
            for r, each in enumerate(job.inputs)
        ]
        pair = here(x[job.rank]), here(scales[job.rank].to(dtype))
        for do_cpu_sync in (True, False):
            _fp8_flat_and_expanded(job, both, pair, do_cpu_sync)
    job.buffer.destroy()


def _fp8_flat_and_expanded(job: Job, both: list[reference.Inputs], pair: Any, do_cpu_sync: bool) -> None:
    options: Any = {"use_tma_aligned_col_major_sf": True, "async_with_compute_stream": True}
    for do_expand in (False, True):
        first, *_, handle, event = job.dispatch(pair, do_expand=do_expand, do_cpu_sync=do_cpu_sync, **options)
        event.current_stream_wait()
        again, *_, event = job.buffer.dispatch(pair, handle=handle, **options)
        event.current_stream_wait()
        wanted = reference.flat(both, job.rank, experts).x
        at = torch.arange(len(wanted))
        if do_expand:
            wanted, at = elastic_reference.expanded(both, job.rank, experts, alignment).x, job.expanded.at
        for rows, scales in (first, again):
            assert rows.dtype == torch.float8_e4m3fn and scales.dtype == pair[1].dtype
            assert scales.stride() == (1, max(4, -(-len(rows) // 4) * 4))
            same(torch.cat([rows.float(), scales.float()], 1)[here(at)], wanted)


def late_inputs(group: Any) -> None:
    """Synchronous calls on a stream of the caller's: they come after what it does before them, and before the rest."""
    job = Job(group)
    with another_stream():
        for factor, do_expand in ((1, False), (2, True), (4, False)):
            x = torch.zeros_like(job.mine.x)
            busy()
            x.copy_(job.mine.x * factor)
            received, *_, handle, _ = job.dispatch(x, do_expand=do_expand, do_zero_padding=True)
            x.zero_()
            check_rows(job, do_expand, received * 1, factor)
            rows = torch.zeros_like(received)
            busy()
            rows.copy_(received)
            back = job.buffer.combine(rows, handle)[0]
            rows.zero_()
            same(back * 1, job.sums(do_expand, factor))
    job.buffer.destroy()


def events_and_streams(group: Any) -> None:
    """A call waits for both events, each of a stream of its own, and what waits for its event comes after it."""
    job = Job(group)
    job.dispatch()  # makes the engine
    half, options = len(job.mine.x) // 2, {"async_with_compute_stream": True, "allocate_on_comm_stream": True}
    for factor in (1, 2):
        x, ready = torch.zeros_like(job.mine.x), []
        if on_gpu():
            torch.cuda.synchronize()
        for part in (slice(half), slice(half, None)):
            with another_stream():
                busy()
                x[part].copy_(job.mine.x[part] * factor)
                ready.append(deep_ep.ElasticBuffer.capture())
        before: Any = dict(zip(("previous_event", "previous_event_before_epilogue"), ready))
        received, *_, handle, event = job.dispatch(x, **before, **options)
        with another_stream(), event:
            pass
        event.current_stream_wait()
        check_rows(job, False, received * 1, factor)
        first, _, one = job.buffer.combine(received, handle, previous_event=event, **options)
        second, _, two = job.buffer.combine(
            received, handle, previous_event=event, previous_event_before_epilogue=one, **options
        )
        plain = job.buffer.combine(received, handle)[0]  # synchronous, behind asynchronous ones
        two.current_stream_wait()
        for each in (first, second, plain):
            same(each * 1, job.sums(False, factor))
    job.buffer.barrier()
    job.buffer.destroy()


def shares_of_sms(group: Any) -> None:
    """What a call asks for beyond this rank's part of the GPU is cut."""
    job = Job(group)
    for sms in (2, 512):
        x, *_, handle, _ = job.dispatch(num_sms=sms, do_expand=True)
        assert handle.num_sms == sms
        for of_combine in (0, sms):
            same(job.buffer.combine(x, handle, num_sms=of_combine)[0], job.sums(True))
        again = job.buffer.dispatch(job.mine.x, handle=handle, do_zero_padding=True)[0]
        check_rows(job, True, again)
    comm = job.buffer.get_comm_stream()
    assert not on_gpu() or comm.device == device()
    job.buffer.destroy()
