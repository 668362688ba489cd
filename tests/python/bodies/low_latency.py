"""The low-latency modes of deep_ep.Buffer and of switchyard, on either device. Each function checks itself."""

from __future__ import annotations

import copy
import os
from typing import Any

import deep_ep
import pytest
import reference
import switchyard
import torch
import torch.distributed as dist
from devices import another_stream, busy, close, device, here, on_gpu, same
from low_latency_reference import Job, check_received, dequantised, outputs_of, scales_of_exponents, sums

Nobody: frozenset[int] = frozenset()


class Decoder:
    """A rank that decodes through deep_ep."""

    def __init__(self, buffer: deep_ep.Buffer, job: Job) -> None:
        self.buffer, self.job, self.rank = buffer, job, buffer.rank

    @classmethod
    def of(cls, group: Any, job: Job | None = None, **options: Any) -> Decoder:
        job = job or Job(group.size())
        hint = deep_ep.Buffer.get_low_latency_rdma_size_hint(job.max_tokens, job.hidden, job.ranks, job.experts)
        assert hint > 0
        buffer = deep_ep.Buffer(
            group=group,
            num_nvl_bytes=0,
            num_rdma_bytes=hint,
            low_latency_mode=True,
            num_qps_per_rank=max(1, job.experts // job.ranks),
            explicitly_destroy=True,
            **options,
        )
        return cls(buffer, job)

    def inputs(self, step: int = 0) -> Any:
        return here(self.job.inputs(self.rank, step))

    def dispatch(self, mine: Any, hooks: bool = False, **options: Any) -> Any:
        """Dispatches in bfloat16, unless options say otherwise."""
        return self.buffer.low_latency_dispatch(
            mine.x,
            mine.topk_idx,
            self.job.max_tokens,
            self.job.experts,
            **({"use_fp8": False, "return_recv_hook": hooks} | options),
        )

    def check_received(self, sent: Any, step: int = 0, **options: Any) -> None:
        check_received(self.job, self.rank, as_received(sent), step=step, **options)

    def outputs(self, sent: Any) -> torch.Tensor:
        """Returns what this rank's experts make of a dispatch."""
        return here(outputs_of(rows_of(sent[0], self.job), self.rank, self.job))

    def combine(self, mine: Any, sent: Any, made: Any = None, hooks: bool = False, **options: Any) -> Any:
        return self.buffer.low_latency_combine(
            self.outputs(sent) if made is None else made,
            mine.topk_idx,
            mine.topk_weights,
            sent[2],
            return_recv_hook=hooks,
            **options,
        )

    def check_sums(self, back: torch.Tensor, step: int = 0, missing: frozenset[int] = Nobody) -> None:
        same(back, sums(self.job, self.rank, step=step, missing=missing))

    def check_sums_of_fp8(self, back: torch.Tensor, step: int = 0, missing: frozenset[int] = Nobody) -> None:
        """The terms of a token may cancel one another: the error is that of the terms."""
        expected = sums(self.job, self.rank, step=step, missing=missing)
        torch.testing.assert_close(back.cpu().float(), expected.float(), rtol=0.07, atol=0.6)

    def step(self, step: int, hooks: bool = False, zero_copy: bool = False, logfmt: bool = False) -> Any:
        """Makes a decoding step in bfloat16. Returns the handle, which alone lives on."""
        mine = self.inputs(step)
        sent = self.dispatch(mine, hooks)
        assert (sent[4] is not None) == hooks and sent[3].event is None
        if hooks:
            sent[4]()
        check_handle(self.job, sent[2])
        self.check_received(sent, step)
        made = self.outputs(sent)
        if zero_copy:
            self.buffer.get_next_low_latency_combine_buffer(sent[2])[:, :, :] = made
        out = torch.empty_like(mine.x) if step % 2 else None
        back, event, hook = self.combine(mine, sent, made, hooks, use_logfmt=logfmt, zero_copy=zero_copy, out=out)
        if hooks:
            hook()
        assert event.event is None and (out is None or back is out)
        if logfmt:
            expected = sums(self.job, self.rank, step=step).float()
            torch.testing.assert_close(back.cpu().float(), expected, rtol=0.1, atol=0.1)
        else:
            self.check_sums(back, step)
        return sent[2]

    def step_without(self, missing: frozenset[int]) -> None:
        """Makes step 1, in which ranks are missing."""
        mine = self.inputs(1)
        sent = self.dispatch(mine)
        self.check_received(sent, 1, missing=missing)
        self.check_sums(self.combine(mine, sent)[0], 1, missing)

    def masks(self) -> list[int]:
        status = here(torch.full((self.job.ranks,), 7, dtype=torch.int32))
        self.buffer.low_latency_query_mask_buffer(status)
        return status.tolist()


def as_received(sent: tuple[Any, ...]) -> tuple[Any, Any, Any, Any, Any]:
    """Returns the result of a dispatch as low_latency_reference.check_received takes it."""
    recv_x, counts, handle = sent[:3]
    x, scales = recv_x if isinstance(recv_x, tuple) else (recv_x, None)
    assert x.device == device()
    return x.cpu(), None if scales is None else scales.cpu(), counts.cpu(), handle[0].cpu(), handle[1].cpu()


def rows_of(recv_x: Any, job: Job) -> torch.Tensor:
    """Returns [L, M*R, H] on the CPU: the rows that experts compute on."""
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


# ---- deep_ep ----


def bf16_steps(group: Any) -> None:
    decoder = Decoder.of(group)
    decoder.buffer.clean_low_latency_buffer(decoder.job.max_tokens, decoder.job.hidden, decoder.job.experts)
    for step in range(12):
        decoder.step(step, hooks=step % 2 == 0, zero_copy=step % 3 == 0, logfmt=step % 3 == 1)
    decoder.buffer.destroy()


def fp8_steps(group: Any) -> None:
    decoder = Decoder.of(group)
    groups, slots = decoder.job.hidden // 128, decoder.job.max_tokens * decoder.job.ranks
    for step, (round_scale, ue8m0) in enumerate([(False, False), (True, False), (True, True)] * 2):
        mine = decoder.inputs(step)
        sent = decoder.dispatch(mine, use_fp8=True, round_scale=round_scale, use_ue8m0=ue8m0, async_finish=True)
        sent[3].current_stream_wait()
        x, scales = sent[0]
        assert x.dtype == torch.float8_e4m3fn and scales.dtype == (torch.int32 if ue8m0 else torch.float32)
        assert scales.shape[1:] == (slots, -(-groups // 4) if ue8m0 else groups) and scales.stride()[1:] == (1, slots)
        decoder.check_received(sent, step, rounded=round_scale)
        back, event, _ = decoder.combine(mine, sent, async_finish=True)
        event.current_stream_wait()
        decoder.check_sums_of_fp8(back, step)
    decoder.buffer.destroy()


def two_micro_batches(group: Any) -> None:
    """Two results are outstanding, halves are interleaved, and variables still hold the results before."""
    decoder = Decoder.of(group)
    a: Any = None
    b: Any = None
    for step in range(0, 12, 2):
        batches = [decoder.inputs(step + i) for i in range(2)]
        a = decoder.dispatch(batches[0], hooks=True)
        a[4]()
        b = decoder.dispatch(batches[1], hooks=True)
        decoder.check_received(a, step)
        b[4]()
        decoder.check_received(b, step + 1)
        backs = []
        for each, mine in zip((a, b), batches):
            back, _, hook = decoder.combine(mine, each, hooks=True)
            hook()
            backs.append(back)
        for i, back in enumerate(backs):
            decoder.check_sums(back, step + i)
    decoder.buffer.destroy()


def two_sends(group: Any) -> None:
    """Both micro-batches are sent before either is received."""
    decoder = Decoder.of(group)
    for step in range(0, 8, 2):
        batches = [decoder.inputs(step + i) for i in range(2)]
        both = [decoder.dispatch(mine, hooks=True) for mine in batches]
        for sent in both:
            sent[4]()
        combined = []
        for i, (mine, sent) in enumerate(zip(batches, both)):
            decoder.check_received(sent, step + i)
            combined.append(decoder.combine(mine, sent, hooks=True))
        for i, (back, _, hook) in enumerate(combined):
            hook()
            decoder.check_sums(back, step + i)
    decoder.buffer.destroy()


layers = 8


def kept_handles(group: Any) -> None:
    """vLLM keeps a handle for each layer until it replaces it in the next step."""
    decoder = Decoder.of(group)
    kept: list[Any] = [None] * layers
    for step in range(3 * layers):
        layer = step % layers
        kept[layer] = decoder.step(step, hooks=layer % 2 == 0, zero_copy=layer % 3 == 0)
    for handle in kept:
        check_that_it_is_over(decoder, handle)
    what_was_read_holds_its_slots(decoder)
    decoder.buffer.destroy()


def check_that_it_is_over(decoder: Decoder, handle: Any) -> None:
    """A handle whose dispatch was combined and whose result is gone has what was read from it, and nothing else."""
    job, mine = decoder.job, decoder.inputs()
    assert handle[2:] == (job.max_tokens, job.hidden, job.experts) and len(handle) == 5
    rows = here(torch.zeros(job.experts // job.ranks, job.max_tokens * job.ranks, job.hidden).bfloat16())
    for given in (handle, tuple(handle)):
        with pytest.raises(switchyard.InvalidArgument, match="keep recv_x to combine it again"):
            decoder.combine(mine, (None, None, given), rows)
        with pytest.raises(switchyard.InvalidArgument, match="keep recv_x to combine it again"):
            decoder.buffer.get_next_low_latency_combine_buffer(given)
    sent = decoder.dispatch(mine)
    decoder.combine(mine, sent, sent[0])
    unread = sent[2]
    del sent
    for item in range(2):
        with pytest.raises(switchyard.Unusable, match="are read while recv_x lives, or before the combine"):
            unread[item]


def what_was_read_holds_its_slots(decoder: Decoder) -> None:
    """Results that are kept hold their slots, and keep their contents; so do handles that were not combined."""
    holders: list[Any] = [lambda sent: sent[0], lambda sent: sent[0].view(-1)[:5], lambda sent: sent[2]]
    for what in (*holders, lambda sent: tuple(sent[2])):
        held, before, rows = [], [], set()
        for step in range(4):
            mine = decoder.inputs(step)
            sent = decoder.dispatch(mine, hooks=True)
            sent[4]()
            rows.add(sent[0].data_ptr())
            held.append(what(sent))
            before.append(held[-1].clone() if isinstance(held[-1], torch.Tensor) else None)
            if before[-1] is not None:
                decoder.combine(mine, sent, sent[0])
        sent = None
        more = dispatch_if_it_grows(decoder, 4)
        assert more is None or more[0].data_ptr() not in rows
        for seen, wanted in zip(held, before):
            assert wanted is None or torch.equal(seen, wanted)
        held.clear()
        del seen, more


def dispatch_if_it_grows(decoder: Decoder, step: int) -> Any:
    """Dispatches when 4 results are held. Returns None if memory of this kind does not grow, on all ranks alike."""
    try:
        return decoder.dispatch(decoder.inputs(step))
    except switchyard.InvalidArgument as error:
        assert "low_latency_dispatch: expected the result of 4 dispatches ago to be released" in str(error)
        assert "free earlier results: recv_x" in str(error)
        return None


def kept_rows(group: Any) -> None:
    """recv_x of every call lives on, with its scales, on some ranks or on all; each stays what it was."""
    decoder = Decoder.of(group)
    kept: list[Any] = []
    for step in range(4):
        kept.append(decoder.dispatch(decoder.inputs(step))[0])
    if dispatch_if_it_grows(decoder, 4) is None:
        decoder.buffer.destroy()
        return
    kept.clear()
    for keeps in (decoder.rank == 0, decoder.rank != 0, True):
        for step in range(14):
            mine, hooks = decoder.inputs(step), step % 2 == 0
            use_fp8 = step % 3 == 0
            sent = decoder.dispatch(mine, hooks, use_fp8=use_fp8)
            if hooks:
                sent[4]()
            if not use_fp8:
                decoder.check_received(sent, step)
                decoder.check_sums(decoder.combine(mine, sent, hooks=False)[0], step)
            if keeps:
                tensors = sent[0] if use_fp8 else (sent[0],)
                kept.append((tensors, [bits(each).clone() for each in tensors], sent[2]))
            assert all(stays(tensors, before) for tensors, before, _ in kept)
        if keeps:
            refuses_an_old_handle(decoder, kept[1][2])
        kept.clear()
    decoder.buffer.destroy()


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(torch.uint8)


def stays(tensors: Any, before: list[torch.Tensor]) -> bool:
    return all(torch.equal(bits(now), then) for now, then in zip(tensors, before))


def refuses_an_old_handle(decoder: Decoder, handle: Any) -> None:
    """Its rows live, but its slots have had other dispatches since."""
    rows = here(torch.zeros(decoder.job.experts // decoder.job.ranks, decoder.job.max_tokens * decoder.job.ranks,
                            decoder.job.hidden).bfloat16())
    with pytest.raises(switchyard.InvalidArgument, match="handle: expected one of the latest 4 dispatches, seen that"):
        decoder.combine(decoder.inputs(1), (None, None, handle), rows)


def kept_small_results(group: Any) -> None:
    """recv_count and what was read from the handle may be kept: they have memory of their own."""
    decoder = Decoder.of(group)
    kept = []
    for step in range(10):
        mine, hooks = decoder.inputs(step), step % 2 == 0
        sent = decoder.dispatch(mine, hooks)
        early = list(sent[2]) if step % 4 == 0 else None
        if hooks:
            sent[4]()
        small = [sent[1], *(early or list(sent[2]))[:2]]
        decoder.check_received(sent, step)
        assert torch.equal(small[2], sent[2][1])
        kept.append((small, [each.clone() for each in small]))
        decoder.combine(mine, sent, sent[0])
    for small, before in kept:
        assert all(torch.equal(*pair) for pair in zip(small, before))
    decoder.buffer.destroy()


def combined_again(group: Any) -> None:
    """A dispatch is combined several times while recv_x lives, with other rows, in place and from elsewhere, as a whole
    and in halves, and others come in between."""
    decoder = Decoder.of(group)
    for step in range(4):
        mine = decoder.inputs(step)
        sent = decoder.dispatch(mine)
        made = decoder.outputs(sent)
        for again in range(7):
            factor = 2.0 ** (again % 3)
            zero_copy, hooks, logfmt = again % 3 != 1, again % 2 == 0, again == 4
            if zero_copy and not logfmt:
                decoder.buffer.get_next_low_latency_combine_buffer(sent[2])[:, :, :] = made * factor
            options = {"use_logfmt": logfmt, "zero_copy": zero_copy and not logfmt}
            back, _, hook = decoder.combine(mine, sent, made * factor, hooks, **options)
            if hooks:
                hook()
            expected = sums(decoder.job, decoder.rank, step=step) * factor
            close(back, expected, 0.1) if logfmt else same(back, expected)
            if again == 2:
                decoder.step(step + 20)  # a dispatch and a combine of other rows
    with pytest.raises(switchyard.InvalidArgument, match="receive half is done"):
        hook = decoder.combine(mine, sent, made, hooks=True)[2]
        decoder.combine(mine, sent, made)
    hook()
    decoder.buffer.destroy()


def rebuilt_handles(group: Any) -> None:
    """A plain tuple of a handle's items is as good as the handle, also if it is all that lives of it."""
    decoder = Decoder.of(group)
    mapped: Any = [
        tuple,
        list,
        lambda handle: (*handle,),
        lambda handle: type(handle)(each for each in handle),  # as FSDP maps over inputs and outputs of a module
        lambda handle: tuple(each.detach() if isinstance(each, torch.Tensor) else each for each in handle),
        lambda handle: (handle[0].view(-1), *handle[1:]),
        copy.copy,
    ]
    for step, rebuild in enumerate(mapped):
        mine, hooks = decoder.inputs(step), step % 2 == 1
        recv_x, counts, handle, event, hook = decoder.dispatch(mine, hooks)
        handle = rebuild(handle)
        assert type(handle) in (tuple, list)
        if hooks:
            hook()
        source = handle[0].view(-1, decoder.job.max_tokens * group.size())
        decoder.check_received((recv_x, counts, (source, handle[1])), step)
        made = decoder.outputs((recv_x,))
        del recv_x
        zero_copy = step % 3 == 0
        if zero_copy:
            decoder.buffer.get_next_low_latency_combine_buffer(handle)[:, :, :] = made
        back = decoder.combine(mine, (None, None, handle), made, zero_copy=zero_copy)[0]
        decoder.check_sums(back, step)
    for unknown in ((), (1, 2), (torch.zeros(3),), tuple(each.clone() for each in handle[:2])):
        with pytest.raises(switchyard.InvalidArgument, match=f"handle: .*seen a tuple of {len(unknown)} others"):
            decoder.combine(mine, (None, None, unknown), made)
    for wrong in (None, 3, handle[0]):
        with pytest.raises(TypeError, match="handle: expected what low_latency_dispatch returned"):
            decoder.combine(mine, (None, None, wrong), made)
    decoder.buffer.destroy()


def repeated_ids(group: Any) -> None:
    """An id that repeats within a token is a row each, and each slot counts in the sum with its weight."""
    decoder = Decoder.of(group, Job(group.size(), repeats=True))
    for step in range(4):
        mine = decoder.inputs(step)
        stats = here(torch.zeros(decoder.job.experts // decoder.job.ranks, dtype=torch.int32))
        sent = decoder.dispatch(mine, hooks=step % 2 == 0, cumulative_local_expert_recv_stats=stats)
        if sent[4] is not None:
            sent[4]()
        decoder.check_received(sent, step)
        assert torch.equal(stats, sent[1])
        made = decoder.outputs(sent)
        once = decoder.combine(mine, sent, made)[0]
        decoder.check_sums(once, step)
    if not on_gpu():
        too_many = decoder.inputs(-decoder.rank)  # max_tokens of them
        too_many.topk_idx.fill_(1)
        text = r"topk_idx\[4, 0\]: expected at most num_max_dispatch_tokens_per_rank = 12 rows for an expert"
        with pytest.raises(switchyard.InvalidArgument, match=text):
            decoder.dispatch(too_many)
    decoder.step(4)
    decoder.buffer.destroy()


def statistics(group: Any) -> None:
    decoder = Decoder.of(group)
    stats = here(torch.zeros(decoder.job.experts // decoder.job.ranks, dtype=torch.int32))
    waits, combine_waits = (here(torch.zeros(decoder.job.ranks, dtype=torch.int64)) for _ in range(2))
    counted: Any = {"cumulative_local_expert_recv_stats": stats, "dispatch_wait_recv_cost_stats": waits}
    expected = torch.zeros_like(stats)
    for step in range(3):
        mine = decoder.inputs(step)
        sent = decoder.dispatch(mine, **counted)
        expected += sent[1]
        decoder.combine(mine, sent, sent[0], combine_wait_recv_cost_stats=combine_waits)
    assert torch.equal(stats, expected)
    assert (waits >= 0).all() and waits.sum() > 0 and (combine_waits >= 0).all()
    decoder.buffer.destroy()


def masks(group: Any) -> None:
    """The other ranks mask the last one and go on without it; then it comes back."""
    go_on_without(group, frozenset({group.size() - 1}))


def go_on_without(group: Any, out: frozenset[int]) -> None:
    """Two parts of the ranks mask one another, go on, and come together again."""
    decoder = Decoder.of(group, enable_shrink=True)
    ranks = decoder.job.ranks
    decoder.step(0)
    dist.barrier(group)
    missing = frozenset(range(ranks)) - out if decoder.rank in out else out
    for peer in missing:
        decoder.buffer.low_latency_update_mask_buffer(rank_to_mask=peer, mask=True)
    assert decoder.masks() == [int(r in missing) for r in range(ranks)]
    decoder.step_without(missing)
    dist.barrier(group)
    decoder.buffer.low_latency_clean_mask_buffer()
    dist.barrier(group)  # a rank that looks sooner finds itself masked by a peer, and masks that peer again
    assert decoder.masks() == [0] * ranks
    dist.barrier(group)
    decoder.step(2, hooks=True, zero_copy=True)
    decoder.buffer.destroy()


def late_peer(group: Any) -> None:
    """With enable_shrink the others go on without a rank that does not come. Needs processes of its own."""
    os.environ["SWITCHYARD_TIMEOUT_MS"] = "5000"  # before the library reads it
    decoder = Decoder.of(group, enable_shrink=True)
    decoder.step(0)
    late = decoder.job.ranks - 1
    dist.barrier(group)
    if decoder.rank != late:
        decoder.step_without(frozenset({late}))
        assert decoder.masks() == [int(rank == late) for rank in range(decoder.job.ranks)]
    dist.barrier(group)
    decoder.buffer.destroy()


def lost_peer(group: Any) -> None:
    """With enable_shrink the others go on without ranks that leave, before the first call and before a clean. Needs
    processes of its own."""
    decoder = Decoder.of(group, enable_shrink=True)
    lost = decoder.job.ranks - 1
    if decoder.rank == lost:
        decoder.buffer.destroy()
        dist.barrier(group)
        return
    for job in (decoder.job, Job(group.size(), hidden=256)):  # a buffer of the engine for each
        others = Decoder(decoder.buffer, job)
        others.step_without(frozenset({lost}))
        assert others.masks() == [int(rank == lost) for rank in range(job.ranks)]
    # The mask of a rank that is gone cannot be taken away.
    decoder.buffer.low_latency_clean_mask_buffer()
    decoder.step_without(frozenset({lost}))
    assert decoder.masks() == [int(rank == lost) for rank in range(decoder.job.ranks)]
    if decoder.rank == 0:
        decoder.buffer.destroy()
        dist.barrier(group)
        return
    decoder.buffer.clean_low_latency_buffer(decoder.job.max_tokens, decoder.job.hidden, decoder.job.experts)
    assert decoder.masks() == [int(rank in (0, lost)) for rank in range(decoder.job.ranks)]
    decoder.step_without(frozenset({0, lost}))
    dist.barrier(group)
    decoder.buffer.destroy()


def peer_that_never_comes(group: Any) -> None:
    """The same with a rank that lives, and makes its first call when the others have given it up."""
    os.environ["SWITCHYARD_RENDEZVOUS_TIMEOUT_MS"] = "3000"  # before the library reads it
    decoder = Decoder.of(group, enable_shrink=True)
    late = decoder.job.ranks - 1
    others = frozenset(range(late))
    if decoder.rank != late:
        decoder.step_without(frozenset({late}))
    dist.barrier(group)
    if decoder.rank == late:
        decoder.step_without(others)
    assert decoder.masks() == [int((rank == late) != (decoder.rank == late)) for rank in range(decoder.job.ranks)]
    dist.barrier(group)
    decoder.buffer.destroy()


def halves_on_streams(group: Any) -> None:
    """Each half runs on the stream that is current then. Inputs come late, and are overwritten at once."""
    decoder = Decoder.of(group)
    for step in range(6):
        mine = decoder.inputs(step)
        with another_stream():
            late = decoder.inputs(step)
            late.x.zero_()
            late.topk_idx.fill_(-1)
            busy(0.005)
            late.x.copy_(mine.x)
            late.topk_idx.copy_(mine.topk_idx)
            sent = decoder.dispatch(late, hooks=step % 2 == 0, async_finish=step % 2 == 1)
            if sent[4] is not None:
                sent[4]()
            else:
                sent[3].current_stream_wait()
            late.x.zero_()
            decoder.check_received(sent, step)
            out = torch.empty_like(mine.x)
            back, _, hook = decoder.combine(late, sent, hooks=True, out=out)
            hook()
            hook()  # without effect
            assert back is out
            decoder.check_sums(back * 1, step)
        del sent
        if on_gpu():
            torch.cuda.synchronize()
    decoder.buffer.destroy()


def solitary_mistakes(group: Any) -> None:
    """A wrong call of one rank sends nothing, and the peers wait for the corrected one."""
    decoder = Decoder.of(group)
    decoder.step(0)
    mine = decoder.inputs()
    wrong = [({"topk_idx": mine.topk_idx.float()}, "topk_idx"), ({"x": mine.x.float()}, "bfloat16")]
    if on_gpu():
        wrong.append(({"topk_idx": mine.topk_idx.cpu()}, "topk_idx: expected a tensor on device cuda"))
    for change, text in wrong if decoder.rank == 0 else []:
        bad = decoder.inputs()
        vars(bad).update(change)
        with pytest.raises(switchyard.InvalidArgument, match=text):
            decoder.dispatch(bad)
    decoder.step(1, hooks=True)
    decoder.buffer.destroy()


# ---- switchyard ----


def buffer_of(group: Any, job: Job) -> switchyard.LowLatencyBuffer:
    return switchyard.LowLatencyBuffer(
        switchyard.Communicator.from_torch(group),
        max_tokens=job.max_tokens,
        hidden=job.hidden,
        num_experts=job.experts,
        top_k=job.top_k,
    )


def all_options_of_the_buffer(group: Any) -> None:
    """Rows grouped by expert, with each cast, and by rank, with weights; opaque payloads. Ranks hold 1 to 5 experts."""
    job = Job(group.size(), experts=10)
    with buffer_of(group, job) as buffer:
        assert buffer.engine == device().type and buffer.num_bytes > 0 and not any(buffer.masked())
        for cast in ("none", "fp8", "fp8_pow2", "fp8_ue8m0"):
            by_expert(buffer, job, group.rank(), cast)
        by_rank(buffer, job, group.rank())
        opaque(buffer, job, group.rank())
        buffer.synchronize()


def by_expert(buffer: switchyard.LowLatencyBuffer, job: Job, rank: int, cast: str) -> None:
    mine = here(job.inputs(rank))
    received = buffer.dispatch(mine.x, mine.topk_idx, cast=cast)
    names = ("x", "scales", "counts", "source_token", "ranges")
    tensors = tuple(getattr(received, name) for name in names)
    on_cpu = tuple(None if each is None else each.cpu() for each in tensors)
    check_received(job, rank, on_cpu, rounded=cast not in ("none", "fp8"))  # type: ignore[arg-type]
    assert received.topk_idx is None and received.topk_weights is None
    assert (received.scales is None) == (cast == "none") and received.x.device == device()


def by_rank(buffer: switchyard.LowLatencyBuffer, job: Job, rank: int) -> None:
    mine = here(job.inputs(rank))
    received = buffer.dispatch(mine.x, mine.topk_idx, topk_weights=mine.topk_weights, layout="rank_major")
    assert received.ranges is None and received.x.shape == (job.ranks, job.max_tokens, job.hidden)
    counts, first = received.counts.tolist(), reference.experts_of(rank, job.experts, job.ranks).start
    for source in range(job.ranks):
        theirs, count = job.inputs(source), counts[source]
        tokens = received.source_token[source, :count].tolist()
        same(received.x[source, :count], theirs.x[tokens])
        ids = received.topk_idx[source, :count].cpu().long()
        ours = ids >= 0
        assert torch.equal((ids + first)[ours], theirs.topk_idx[tokens][ours])
        weights = received.topk_weights[source, :count].cpu()
        assert torch.equal(weights, theirs.topk_weights[tokens] * ours)
    rows = buffer.outputs(received.handle, torch.bfloat16)
    rows.copy_(received.x)
    table = reference.ranks_of(job.inputs(rank), job.experts, job.ranks)
    expected = (job.inputs(rank).x.float() * table.sum(1, keepdim=True)).bfloat16()
    same(buffer.combine(rows, received.handle), expected)


def opaque(buffer: switchyard.LowLatencyBuffer, job: Job, rank: int) -> None:
    mine = here(job.inputs(rank))
    for size in (2 * job.hidden, 100):
        received = buffer.dispatch(mine.x.view(torch.uint8)[:, :size], mine.topk_idx)
        assert received.x.shape[2] == size
        for local in range(buffer.num_local_experts):
            for source in range(job.ranks):
                begin, count = divmod(int(received.ranges[local, source]), 1 << 32)
                tokens = received.source_token[local, begin : begin + count].tolist()
                payload = job.inputs(source).x.view(torch.uint8)[tokens, :size]
                same(received.x[local, begin : begin + count], payload)
        del received
