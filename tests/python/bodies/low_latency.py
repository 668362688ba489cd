"""Low-latency calls of deep_ep, on either device. Each function checks itself."""

from __future__ import annotations

from typing import Any

import pytest
import switchyard
import torch
from decoder import Decoder
from devices import another_stream, busy, here, on_gpu
from low_latency_reference import Job


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
