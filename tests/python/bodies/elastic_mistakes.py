"""Wrong calls of deep_ep.ElasticBuffer, sizes, and deadlines, as ranks of a group see them on the CPU."""

from __future__ import annotations

from typing import Any

import deep_ep
import pytest
import switchyard
import torch
import torch.distributed as dist
from bodies.elastic import Case, Job, explained, generous, make_buffer

invalid = switchyard.InvalidArgument


def _job(group: Any, **options: Any) -> Job:
    tokens: Any = options.pop("tokens", (13, 0, 7, 1))
    return Job(group, make_buffer(group, **options), Case("random", group.size(), tokens=tokens))


def late_peer(group: Any) -> None:
    """The constructor's seconds are the deadline of a wait."""
    job = _job(group, num_cpu_timeout_secs=generous if group.rank() else 0.4)
    job.dispatch()
    if job.rank == 0:
        with pytest.raises(TimeoutError) as caught:
            job.dispatch()
        assert isinstance(caught.value, switchyard.Timeout) and caught.value.peer > 0
    dist.barrier(group)


def mistakes(group: Any) -> None:
    job = _job(group)
    *_, handle, _ = job.dispatch(expert_alignment=2)
    for kind, text, call in mistaken_calls(job, handle):
        with pytest.raises(kind, match=text):
            call()
    # All ranks learn of the mistake of one.
    x = job.mine.x if job.rank else job.mine.x[:, :100]
    with pytest.raises(invalid):
        job.buffer.dispatch(x, handle=handle)
    bounded = Job(group, make_buffer(group, num_max_tokens_per_rank=5), job.case)
    own_words = "x: dimension 0: expected at most num_max_tokens_per_rank = 5"
    with pytest.raises(invalid, match=own_words if len(job.mine.x) > 5 else "rank 0: x: "):
        bounded.dispatch()
    job.dispatch()
    for _ in range(2):
        job.buffer.destroy()
    with pytest.raises(switchyard.Unusable, match="was destroyed"):
        job.dispatch()


def mistaken_calls(job: Job, handle: Any) -> list[Any]:
    """Calls that are wrong on all ranks, and what they raise."""
    x, ids, experts, buffer = job.mine.x, job.mine.topk_idx, job.experts, job.buffer
    stats = torch.zeros(99, dtype=torch.int32)
    return [
        (TypeError, "topk_idx: expected a torch.Tensor", lambda: buffer.dispatch(x, num_experts=experts)),
        (TypeError, "x: expected a torch.Tensor", lambda: buffer.dispatch([1], ids, num_experts=experts)),
        (invalid, "x: expected a tensor .tokens", lambda: buffer.dispatch(x[0:0].flatten(), ids, num_experts=2)),
        (invalid, "num_experts: expected it", lambda: buffer.dispatch(x, ids)),
        (invalid, "num_max_tokens_per_rank", lambda: job.dispatch(do_cpu_sync=False)),
        (invalid, "topk_idx: expected none with a", lambda: buffer.dispatch(x, ids.clone(), handle=handle)),
        (invalid, "expert_alignment: expected 2", lambda: buffer.dispatch(x, handle=handle, expert_alignment=4)),
        (invalid, "do_expand: expected False", lambda: buffer.dispatch(x, handle=handle, do_expand=True)),
        (invalid, "num_experts: expected 8", lambda: buffer.dispatch(x, handle=handle, num_experts=9)),
        (invalid, "0, 1 or 2 tensors, seen 3", lambda: buffer.combine(x, handle, bias=(x,) * 3)),
        (TypeError, "handle: expected the EPHandle", lambda: buffer.combine(x, 3)),
        (TypeError, "handle: expected the EPHandle", lambda: buffer.dispatch(x, handle=(1, 2))),
        (invalid, "recv_stats: expected", lambda: job.dispatch(cumulative_local_expert_recv_stats=stats)),
    ]


def one_culprit(group: Any) -> None:
    """The rank that makes a mistake gets its own error, its peers learn whose mistake it was, and all go on."""
    job = _job(group)
    rows, _, _, handle, _ = job.dispatch()
    good = {
        "dispatch": job.dispatch,
        "cached": lambda: job.buffer.dispatch(job.mine.x, handle=handle),
        "combine": lambda: job.buffer.combine(rows, handle),
    }
    for culprit in (0, job.size - 1):
        for of, kind, text, bad in solitary_mistakes(job, rows, handle):
            with explained(job.case, culprit=culprit, text=text):
                if job.rank == culprit:
                    with pytest.raises(kind, match=text):
                        bad()
                else:
                    with pytest.raises(invalid, match=f"rank {culprit}"):
                        good[of]()
                assert torch.equal(job.dispatch()[0], job.received().x)
    assert job.buffer.combine(rows, handle)[0].shape == job.mine.x.shape
    job.buffer.destroy()


def solitary_mistakes(job: Job, rows: torch.Tensor, handle: Any) -> list[Any]:
    """The call of the peers, what the culprit gets, and the culprit's call."""
    buffer, x, ids, experts = job.buffer, job.mine.x, job.mine.topk_idx, job.experts

    def counted(stats: Any, **options: Any) -> Any:
        return lambda: job.dispatch(cumulative_local_expert_recv_stats=stats, **options)

    def cached(**options: Any) -> Any:
        return lambda: buffer.dispatch(x, **({"handle": handle} | options))

    flags = torch.zeros(experts, dtype=torch.bool)
    return [
        ("dispatch", TypeError, "x: expected", lambda: buffer.dispatch([1], ids, num_experts=experts)),
        ("dispatch", TypeError, "topk_idx", lambda: buffer.dispatch(x, [1], num_experts=experts)),
        ("dispatch", invalid, "num_experts: expected it", lambda: buffer.dispatch(x, ids)),
        ("dispatch", TypeError, "expert_alignment: .* seen float", lambda: job.dispatch(expert_alignment=1.5)),
        ("dispatch", TypeError, "recv_stats: expected a torch.Tensor, seen list", counted([1])),
        ("dispatch", invalid, "recv_stats: expected shape .*, seen .99.", counted(torch.zeros(99, dtype=torch.int32))),
        ("cached", invalid, "recv_stats: expected integers, seen torch.bool", cached(
            cumulative_local_expert_recv_stats=flags
        )),
        ("dispatch", TypeError, "previous_event_before_epilogue: expected an EventHandle", lambda: job.dispatch(
            previous_event_before_epilogue="last"
        )),
        ("dispatch", invalid, "num_max_tokens_per_rank", lambda: job.dispatch(do_cpu_sync=False)),
        ("dispatch", invalid, "first to make a disp", lambda: buffer.dispatch(x[:, :128], ids, num_experts=experts)),
        ("dispatch", invalid, "first to make a dispatch", lambda: job.dispatch(num_max_tokens_per_rank=4096)),
        ("cached", invalid, "do_expand", cached(do_expand=True)),
        ("cached", TypeError, "the EPHandle", cached(handle=(1, 2))),
        ("combine", TypeError, "the EPHandle", lambda: buffer.combine(rows, 3)),
        ("combine", TypeError, "x: expected", lambda: buffer.combine([1], handle)),
        ("combine", invalid, "0, 1 or 2 tensors", lambda: buffer.combine(rows, handle, bias=(x,) * 3)),
    ]


def sizes(group: Any) -> None:
    """Calls with many num_max_tokens_per_rank share few engines, and each keeps its own bound."""
    job = _job(group, tokens=(5, 3, 7, 2), num_max_tokens_per_rank=16)
    wanted = job.received().x
    for most in (None, 7, 9, 16, 17, 20, 32, 33, 50):
        x, _, _, handle, _ = job.dispatch(num_max_tokens_per_rank=most, do_cpu_sync=False)
        assert len(x) == job.size * (most or 16) and torch.equal(x[: len(wanted)], wanted)
        assert handle.num_max_tokens_per_rank == (most or 16)
    assert sorted(shape.max_tokens for shape in job.buffer._engines._buffers) == [16, 32, 64]
    for options in ({"num_max_tokens_per_rank": 4}, {"num_max_tokens_per_rank": 4, "do_cpu_sync": False}):
        with pytest.raises(invalid):  # on all ranks, since rank 0 has 5 tokens
            job.dispatch(**options)
    assert torch.equal(job.dispatch()[0], wanted)
    barrier, comm_stream = job.buffer.barrier, job.buffer.get_comm_stream
    job.buffer.destroy()
    for call in (barrier, comm_stream, job.dispatch, lambda: job.buffer.combine(x, handle)):
        with pytest.raises(switchyard.Unusable, match="destroyed"):
            call()


def construction(group: Any) -> None:
    rank, size = group.rank(), group.size()
    hint = deep_ep.ElasticBuffer.get_buffer_size_hint
    assert hint(group, 0, 0) == 0
    small, larger = hint(group, 16, 256), hint(group, 16, 256, num_topk=4)
    assert size * 16 * 4 * 256 <= small < larger and hint(group, 16, 256, 4, use_fp8_dispatch=True) < larger
    buffer = deep_ep.ElasticBuffer(group, num_max_tokens_per_rank=16, hidden=256, num_topk=4, num_cpu_timeout_secs=20)
    assert (buffer.group, buffer.rank, buffer.group_size, buffer.num_bytes) == (group, rank, size, larger)
    with pytest.raises(invalid, match="explicitly_destroy"):
        buffer.destroy()
    assert buffer.get_theoretical_num_sms(8, 2) % 2 == 0 < buffer.get_theoretical_num_sms(num_experts=8, num_topk=2)
    assert buffer.get_theoretical_num_qps(16) == 0
    with pytest.raises(NotImplementedError, match="num_cpu_bytes"):
        deep_ep.ElasticBuffer(group, 1 << 20, num_cpu_bytes=1)
    with pytest.raises(TypeError):
        deep_ep.ElasticBuffer(group, nonsense=1)  # type: ignore[call-arg]
    with pytest.raises(invalid, match=r"rank 1: .*num_max_tokens_per_rank.* as on rank 0"):
        deep_ep.ElasticBuffer(group, num_bytes=0, num_max_tokens_per_rank=1 + rank % 2)


def repeated_ids(group: Any) -> None:
    """Without CPU sync results have room for distinct ids; the text names what the caller passed."""
    buffer = make_buffer(group, num_max_tokens_per_rank=4)
    x, ids = torch.zeros(4, 8, dtype=torch.bfloat16), torch.zeros(4, 3, dtype=torch.int64)
    seen = 4 * 3 * group.size()
    with pytest.raises(invalid, match=rf"topk_idx: expected distinct ids .* at most \d+ rows, seen {seen}"):
        buffer.dispatch(x, ids, num_experts=group.size(), do_expand=True, do_cpu_sync=False)
    buffer.dispatch(x, ids, num_experts=group.size(), do_expand=True)
    buffer.destroy()
