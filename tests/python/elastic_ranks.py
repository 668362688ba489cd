"""Ranks of a gloo group that use ElasticBuffer; each compares what it gets with elastic_reference."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import Any, Iterator

import deep_ep
import pytest
import reference
import switchyard
import torch
import torch.distributed as dist
from elastic_reference import Case, Expanded, cases, expanded, expanded_sums, tokens_from

generous = 20.0  # seconds; tests that wait for nobody fail soon


def make_buffer(group: Any, **options: Any) -> deep_ep.ElasticBuffer:
    return deep_ep.ElasticBuffer(
        group, explicitly_destroy=True, **{"num_cpu_timeout_secs": generous, "num_bytes": 1 << 20, **options}
    )


@contextmanager
def told(case: Case, **more: Any) -> Iterator[None]:
    """Says on failure what the inputs were."""
    try:
        yield
    except BaseException:
        print(f"failed with seed {case.seed}: {case} {more}", file=sys.stderr, flush=True)
        raise


def dispatch(buffer: deep_ep.ElasticBuffer, case: Case, mine: reference.Inputs, x: Any = None, **options: Any) -> Any:
    return buffer.dispatch(
        mine.x if x is None else x,
        topk_idx=mine.topk_idx,
        topk_weights=mine.topk_weights,
        num_experts=case.experts,
        **options,
    )


def check_handle(case: Case, inputs: list[reference.Inputs], handle: Any, rank: int, alignment: int) -> None:
    """What callers read of it, with CPU sync or without."""
    wanted = expanded(inputs, rank, case.experts, alignment)
    assert handle.psum_num_recv_tokens_per_expert.tolist() == wanted.ends
    assert handle.num_recv_tokens_per_expert.tolist() == wanted.counts
    ends = tokens_from(inputs, rank, case.experts)
    assert handle.psum_num_recv_tokens_per_scaleup_rank.tolist() == ends
    exchanged = handle._exchanged_ends_of_ranks()  # the GPU's way
    assert exchanged.tolist() == ends
    psums = (handle.psum_num_recv_tokens_per_expert, handle.psum_num_recv_tokens_per_scaleup_rank, exchanged)
    assert all(each.dtype == torch.int32 and each.is_contiguous() for each in psums)
    assert handle.topk_idx is not None and handle.num_sms > 0 and handle.num_sms % 2 == 0


# ---- with CPU sync ----


def flat(group: Any, seed: int) -> None:
    rank = dist.get_rank(group)
    buffer = make_buffer(group)
    for case in cases(group.size(), seed):
        for alignment in (None, 1, 4):
            with told(case, alignment=alignment):
                flat_case(buffer, case, rank, alignment)
    buffer.destroy()


def flat_case(buffer: deep_ep.ElasticBuffer, case: Case, rank: int, alignment: int | None) -> None:
    inputs = case.inputs()
    mine, everybody = inputs[rank], [reference.flat(inputs, r, case.experts, alignment or 1) for r in range(case.ranks)]
    x, ids, weights, handle, event = dispatch(buffer, case, mine, expert_alignment=alignment)
    wanted = everybody[rank]
    assert event.event is None
    assert torch.equal(x, wanted.x) and torch.equal(ids, wanted.topk_idx) and torch.equal(weights, wanted.topk_weights)
    assert handle.num_recv_tokens_per_expert_list == wanted.tokens_per_expert
    assert handle.num_expanded_tokens == sum(wanted.tokens_per_expert) and handle.topk_idx is mine.topk_idx
    check_handle(case, inputs, handle, rank, alignment or 1)
    back, back_weights, event = buffer.combine(x, handle, topk_weights=weights)
    assert event.event is None
    assert torch.equal(back, reference.combined([each.x for each in everybody], everybody, rank, len(mine.x)))
    assert torch.equal(back_weights, mine.topk_weights * (mine.topk_idx >= 0))
    narrow = mine.topk_idx.int()
    same_x, same_ids, no_weights, *_ = buffer.dispatch(mine.x, narrow, num_experts=case.experts)
    assert torch.equal(same_x, x) and torch.equal(same_ids, ids.int()) and no_weights is None
    again, none, no_weights, same, _ = buffer.dispatch(mine.x * 2, handle=handle)
    assert torch.equal(again, wanted.x * 2) and none is None and no_weights is None and same is handle


def expand(group: Any, seed: int) -> None:
    rank = dist.get_rank(group)
    buffer = make_buffer(group)
    for case in cases(group.size(), seed):
        for alignment in (1, 8):
            with told(case, alignment=alignment):
                expanded_case(buffer, case, rank, alignment)
    buffer.destroy()


def expanded_case(buffer: deep_ep.ElasticBuffer, case: Case, rank: int, alignment: int) -> None:
    inputs = case.inputs()
    mine, wanted = inputs[rank], expanded(inputs, rank, case.experts, alignment)
    options = {"do_expand": True, "expert_alignment": alignment, "do_zero_padding": True}
    x, ids, weights, handle, _ = dispatch(buffer, case, mine, **options)
    assert ids is None and weights.shape == (wanted.rows,) and len(x) == wanted.rows == handle.num_expanded_tokens
    check_rows(x, wanted, wanted.x)
    assert torch.equal(weights[wanted.at], wanted.weights)
    padded = [-(-count // alignment) * alignment for count in wanted.counts]
    assert handle.num_recv_tokens_per_expert_list == padded
    check_handle(case, inputs, handle, rank, alignment)
    check_expanded_combine(buffer, case, inputs, rank, handle, weights)
    again, none, no_weights, same, _ = buffer.dispatch(mine.x * 2, handle=handle, do_expand=True, do_zero_padding=True)
    check_rows(again, wanted, wanted.x * 2)
    assert none is None and no_weights is None and same is handle
    new, _, others, another, _ = buffer.dispatch(mine.x, topk_weights=mine.topk_weights * 3, handle=handle)
    assert torch.equal(new[wanted.at], wanted.x) and torch.equal(others[wanted.at], wanted.weights * 3)
    assert another is not handle and another.num_recv_tokens_per_expert_list == padded


def check_rows(x: torch.Tensor, wanted: Expanded, rows: torch.Tensor) -> None:
    """Real rows where they belong, zeros between them."""
    assert torch.equal(x[wanted.at], rows)
    pads = torch.ones(len(x), dtype=torch.bool).index_fill(0, wanted.at, False)
    assert (x[pads] == 0).all()


def outputs_of(wanted: Expanded, rank: int, rows: int) -> torch.Tensor:
    """What the experts of a rank made: other than what they got. Rows that only pad hold what no sum may have."""
    outputs = torch.full((rows, wanted.x.shape[1]), float("nan"), dtype=wanted.x.dtype)
    outputs[wanted.at] = wanted.x * (2 + rank)
    return outputs


def check_expanded_combine(
    buffer: deep_ep.ElasticBuffer,
    case: Case,
    inputs: list[reference.Inputs],
    rank: int,
    handle: Any,
    weights: torch.Tensor,
) -> None:
    mine = inputs[rank]
    everybody = [expanded(inputs, r, case.experts, handle.expert_alignment) for r in range(case.ranks)]
    made = outputs_of(everybody[rank], rank, len(weights))
    sums = expanded_sums([each.x * (2 + r) for r, each in enumerate(everybody)], inputs, rank, case.experts)
    back, back_weights, _ = buffer.combine(made, handle, topk_weights=weights, num_sms=handle.num_sms)
    assert torch.equal(back, sums)
    assert torch.equal(back_weights, mine.topk_weights * (mine.topk_idx >= 0))
    for bias, factor in ((mine.x, 1), ((mine.x, mine.x), 2), ((), 0)):
        back, none, _ = buffer.combine(made, handle, bias=bias)
        torch.testing.assert_close(back.float(), sums.float() + factor * mine.x.float(), rtol=2e-2, atol=5e-2)
        assert none is None


def statistics(group: Any, seed: int) -> None:
    """Counts without padding are added, fresh and cached."""
    rank = dist.get_rank(group)
    buffer = make_buffer(group)
    for case in cases(group.size(), seed):
        inputs = case.inputs()
        counts = expanded(inputs, rank, case.experts, 4).counts
        stats = torch.arange(len(counts), dtype=torch.int32)
        for do_cpu_sync in (True, False):
            with told(case, do_cpu_sync=do_cpu_sync):
                before = stats.clone()
                *_, handle, event = dispatch(
                    buffer,
                    case,
                    inputs[rank],
                    cumulative_local_expert_recv_stats=stats,
                    expert_alignment=4,
                    num_max_tokens_per_rank=case.max_tokens,
                    do_cpu_sync=do_cpu_sync,
                    async_with_compute_stream=True,
                )
                event.current_stream_wait()
                assert (stats - before).tolist() == counts
                buffer.dispatch(inputs[rank].x, handle=handle, cumulative_local_expert_recv_stats=stats)
                assert (stats - before).tolist() == [2 * count for count in counts]
    buffer.destroy()


# ---- without ----


def no_cpu_sync(group: Any, seed: int) -> None:
    rank = dist.get_rank(group)
    for case in cases(group.size(), seed):
        # M once from the constructor, once from the call.
        buffer = make_buffer(group, num_max_tokens_per_rank=case.max_tokens if case.seed % 2 else 0)
        of_call = {} if case.seed % 2 else {"num_max_tokens_per_rank": case.max_tokens}
        for do_expand in (False, True):
            for asynchronous in (False, True):
                with told(case, do_expand=do_expand, asynchronous=asynchronous):
                    options = {"do_expand": do_expand, "async_with_compute_stream": asynchronous, **of_call}
                    no_sync_case(buffer, case, rank, **options)
        buffer.destroy()


def no_sync_case(buffer: deep_ep.ElasticBuffer, case: Case, rank: int, **options: Any) -> None:
    inputs = case.inputs()
    mine, alignment = inputs[rank], 4 if options["do_expand"] else 1
    x, ids, weights, handle, event = dispatch(
        buffer, case, mine, do_cpu_sync=False, expert_alignment=alignment, do_zero_padding=True, **options
    )
    assert (event.event is not None) == options["async_with_compute_stream"]
    # A combine that is queued behind it needs no wait.
    back, none, combined = buffer.combine(x, handle, previous_event=event, async_with_compute_stream=True)
    combined.current_stream_wait()
    assert none is None and handle.num_recv_tokens_per_expert_list == []
    check_handle(case, inputs, handle, rank, alignment)
    if options["do_expand"]:
        check_bounded_expanded(case, inputs, rank, x, weights, handle)
        everybody = [expanded(inputs, r, case.experts, alignment).x for r in range(case.ranks)]
        assert ids is None and torch.equal(back, expanded_sums(everybody, inputs, rank, case.experts))
    else:
        check_bounded_flat(case, inputs, rank, (x, ids, weights))
        received = [reference.flat(inputs, r, case.experts) for r in range(case.ranks)]
        assert torch.equal(back, reference.combined([each.x for each in received], received, rank, len(mine.x)))
    zeros = {"handle": handle, "do_zero_padding": True}
    again, *_, same, cached = buffer.dispatch(mine.x * 2, **zeros, async_with_compute_stream=True)
    cached.current_stream_wait()
    assert_doubled(x, again, handle, same)
    with pytest.MonkeyPatch.context() as patch:  # as for GPU tensors
        patch.setattr(deep_ep._calls, "_routes_anew", lambda call, earlier: True)
        again, none, no_weights, same, _ = buffer.dispatch(mine.x * 2, **zeros)
    assert_doubled(x, again, handle, same)
    assert none is None and no_weights is None


def assert_doubled(x: torch.Tensor, again: torch.Tensor, handle: Any, same: Any) -> None:
    real = int(handle.core.num_recv_rows)
    assert torch.equal(again[:real], x[:real] * 2) and again.shape == x.shape and same is handle


def check_bounded_flat(case: Case, inputs: list[reference.Inputs], rank: int, seen: tuple[Any, Any, Any]) -> None:
    x, ids, weights = seen
    wanted = reference.flat(inputs, rank, case.experts)
    real = len(wanted.x)
    assert len(x) == len(ids) == len(weights) == case.ranks * case.max_tokens
    assert torch.equal(x[:real], wanted.x) and torch.equal(ids[:real], wanted.topk_idx)
    assert torch.equal(weights[:real], wanted.topk_weights) and (ids[real:] == -1).all()


def check_bounded_expanded(
    case: Case, inputs: list[reference.Inputs], rank: int, x: Any, weights: Any, handle: Any
) -> None:
    wanted = expanded(inputs, rank, case.experts, handle.expert_alignment)
    local = -(-case.experts // case.ranks)
    slots = case.ranks * case.max_tokens * min(case.top_k, local)
    most = slots + min(slots, local) * (handle.expert_alignment - 1)
    assert wanted.rows <= len(x) == len(weights) == handle.num_expanded_tokens <= most
    check_rows(x, wanted, wanted.x)
    assert torch.equal(weights[wanted.at], wanted.weights)


# ---- FP8 ----


def fp8(group: Any, seed: int) -> None:
    rank = dist.get_rank(group)
    buffer = make_buffer(group)
    for case in cases(group.size(), seed):
        for dtype in (torch.float32, torch.int32):
            for do_expand in (False, True):
                with told(case, dtype=dtype, do_expand=do_expand):
                    fp8_case(buffer, case, rank, dtype, do_expand)
    buffer.destroy()


def fp8_case(buffer: deep_ep.ElasticBuffer, case: Case, rank: int, dtype: torch.dtype, do_expand: bool) -> None:
    """A token's scales say which it is: so the reference of whole rows tells those of both."""
    columns = -(-case.hidden // 128) if dtype == torch.float32 else 1
    marks = [torch.arange(n * columns).view(columns, n).t() + 1000 * r for r, n in enumerate(case.tokens[: case.ranks])]
    inputs = case.inputs(torch.float32)
    for each, scales in zip(inputs, marks):
        each.x = torch.cat([each.x.to(torch.float8_e4m3fn).float(), scales], 1)  # as both arrive
    mine = inputs[rank]
    x = mine.x[:, : case.hidden].to(torch.float8_e4m3fn), marks[rank].to(dtype)
    if do_expand:
        wanted = expanded(inputs, rank, case.experts, 4)
        at, rows = wanted.at, wanted.x
    else:
        rows = reference.flat(inputs, rank, case.experts).x
        at = torch.arange(len(rows))
    (seen, scales), *_, handle, _ = dispatch(buffer, case, mine, x, do_expand=do_expand, expert_alignment=4)
    aligned = buffer.dispatch(x, handle=handle, use_tma_aligned_col_major_sf=True, async_with_compute_stream=True)
    aligned[-1].current_stream_wait()
    for values, of_values in ((seen, scales), aligned[0]):
        assert values.dtype == torch.float8_e4m3fn and of_values.dtype == dtype
        assert of_values.shape == (len(values), columns)
        assert torch.equal(torch.cat([values[at].float(), of_values[at].float()], 1), rows)
    assert scales.is_contiguous()
    assert aligned[0][1].stride() == (1, max(4, -(-len(seen) // 4) * 4))


# ---- streams, deadlines, mistakes ----


def order(group: Any, seed: int) -> None:
    """Calls start after the events they are given, and come back by their own."""
    rank = dist.get_rank(group)
    case = Case("random", group.size(), seed, tokens=(40, 3, 17, 8))
    inputs = case.inputs()
    buffer = make_buffer(group, num_max_tokens_per_rank=case.max_tokens)
    with told(case):
        event = buffer.capture()
        x, _, _, handle, first = dispatch(
            buffer,
            case,
            inputs[rank],
            previous_event=event,
            async_with_compute_stream=True,
            allocate_on_comm_stream=True,
            do_cpu_sync=False,
        )
        once, _, second = buffer.combine(
            x, handle, previous_event=first, previous_event_before_epilogue=event, async_with_compute_stream=True
        )
        twice, _, third = buffer.combine(
            x,
            handle,
            bias=inputs[rank].x,
            previous_event=first,
            previous_event_before_epilogue=second,
            async_with_compute_stream=True,
        )
        with third:
            pass
        received = [reference.flat(inputs, r, case.experts) for r in range(case.ranks)]
        assert torch.equal(once, reference.combined([r.x for r in received], received, rank, len(inputs[rank].x)))
        torch.testing.assert_close(twice.float(), once.float() + inputs[rank].x.float(), rtol=2e-2, atol=2e-2)
        *_, synchronous = buffer.combine(x, handle, previous_event=deep_ep.EventOverlap())
        assert synchronous.event is None
    buffer.barrier()
    buffer.barrier(use_comm_stream=False, with_cpu_sync=True)
    buffer.destroy()


def late_peer(group: Any, seed: int) -> None:
    """The constructor's seconds are the deadline of a wait."""
    rank = dist.get_rank(group)
    case = Case("random", group.size(), seed)
    buffer = make_buffer(group, num_cpu_timeout_secs=generous if rank else 0.4)
    mine = case.inputs()[rank]
    dispatch(buffer, case, mine)
    if rank == 0:
        with pytest.raises(TimeoutError) as caught:
            dispatch(buffer, case, mine)
        assert isinstance(caught.value, switchyard.Timeout) and caught.value.peer == 1
    dist.barrier(group)


def mistakes(group: Any, seed: int) -> None:
    rank = dist.get_rank(group)
    case = Case("random", group.size(), seed)
    mine = case.inputs()[rank]
    buffer = make_buffer(group)
    *_, handle, _ = dispatch(buffer, case, mine, expert_alignment=2)
    for kind, text, call in mistaken_calls(buffer, case, mine, handle):
        with pytest.raises(kind, match=text):
            call()
    # All ranks hear of what one did wrong.
    x = mine.x if rank else mine.x[:, :100]
    with pytest.raises(switchyard.InvalidArgument):
        buffer.dispatch(x, handle=handle)
    bounded = make_buffer(group, num_max_tokens_per_rank=5)
    own_words = "x: dimension 0: expected at most num_max_tokens_per_rank = 5"
    with pytest.raises(switchyard.InvalidArgument, match=own_words if len(mine.x) > 5 else "rank 0: x: "):
        dispatch(bounded, case, mine)
    dispatch(buffer, case, mine)
    buffer.destroy()
    buffer.destroy()
    with pytest.raises(switchyard.Unusable, match="was destroyed"):
        dispatch(buffer, case, mine)


def mistaken_calls(buffer: deep_ep.ElasticBuffer, case: Case, mine: reference.Inputs, handle: Any) -> list[Any]:
    invalid = switchyard.InvalidArgument
    ids, experts = mine.topk_idx, case.experts
    return [
        (TypeError, "topk_idx: expected a torch.Tensor", lambda: buffer.dispatch(mine.x, num_experts=experts)),
        (TypeError, "x: expected a torch.Tensor", lambda: buffer.dispatch([1], ids, num_experts=experts)),
        (invalid, "x: expected a tensor .tokens", lambda: buffer.dispatch(mine.x[0:0].flatten(), ids, num_experts=2)),
        (invalid, "num_experts: expected it", lambda: buffer.dispatch(mine.x, ids)),
        (invalid, "num_max_tokens_per_rank", lambda: dispatch(buffer, case, mine, do_cpu_sync=False)),
        (invalid, "topk_idx: expected none with a handle", lambda: buffer.dispatch(mine.x, ids.clone(), handle=handle)),
        (invalid, "expert_alignment: expected 2", lambda: buffer.dispatch(mine.x, handle=handle, expert_alignment=4)),
        (invalid, "do_expand: expected False", lambda: buffer.dispatch(mine.x, handle=handle, do_expand=True)),
        (invalid, "num_experts: expected 8", lambda: buffer.dispatch(mine.x, handle=handle, num_experts=9)),
        (invalid, "0, 1 or 2 tensors, seen 3", lambda: buffer.combine(mine.x, handle, bias=(mine.x,) * 3)),
        (TypeError, "handle: expected the EPHandle", lambda: buffer.combine(mine.x, 3)),
        (TypeError, "handle: expected the EPHandle", lambda: buffer.dispatch(mine.x, handle=(1, 2))),
        (invalid, "expected_?.*recv_stats|recv_stats: expected", lambda: dispatch(
            buffer, case, mine, cumulative_local_expert_recv_stats=torch.zeros(99, dtype=torch.int32)
        )),
    ]


def one_culprit(group: Any, seed: int) -> None:
    """What one rank does wrong it hears itself; its peers hear that it did, and all go on."""
    rank = dist.get_rank(group)
    case = Case("random", group.size(), seed)
    inputs = case.inputs()
    mine, wanted = inputs[rank], reference.flat(inputs, rank, case.experts)
    buffer = make_buffer(group)
    rows, _, _, handle, _ = dispatch(buffer, case, mine)
    good = {
        "dispatch": lambda: dispatch(buffer, case, mine),
        "cached": lambda: buffer.dispatch(mine.x, handle=handle),
        "combine": lambda: buffer.combine(rows, handle),
    }
    for culprit in (0, group.size() - 1):
        for of, kind, text, bad in solitary_mistakes(buffer, case, mine, rows, handle):
            with told(case, culprit=culprit, text=text):
                if rank == culprit:
                    with pytest.raises(kind, match=text):
                        bad()
                else:
                    with pytest.raises(switchyard.InvalidArgument, match=f"rank {culprit}"):
                        good[of]()
                assert torch.equal(dispatch(buffer, case, mine)[0], wanted.x)
    assert buffer.combine(rows, handle)[0].shape == mine.x.shape
    buffer.destroy()


def solitary_mistakes(
    buffer: deep_ep.ElasticBuffer, case: Case, mine: reference.Inputs, rows: torch.Tensor, handle: Any
) -> list[Any]:
    """What the peers call, what the culprit gets, and calls."""
    invalid, ids, experts = switchyard.InvalidArgument, mine.topk_idx, case.experts
    return [
        ("dispatch", TypeError, "x: expected", lambda: buffer.dispatch([1], ids, num_experts=experts)),
        ("dispatch", TypeError, "topk_idx", lambda: buffer.dispatch(mine.x, [1], num_experts=experts)),
        ("dispatch", invalid, "num_experts: expected it", lambda: buffer.dispatch(mine.x, ids)),
        ("dispatch", TypeError, "expert_alignment: .* seen float", lambda: dispatch(
            buffer, case, mine, expert_alignment=1.5
        )),
        ("dispatch", TypeError, "recv_stats: expected a torch.Tensor, seen list", lambda: dispatch(
            buffer, case, mine, cumulative_local_expert_recv_stats=[1]
        )),
        ("dispatch", invalid, "recv_stats: expected shape .*, seen .99.", lambda: dispatch(
            buffer, case, mine, cumulative_local_expert_recv_stats=torch.zeros(99, dtype=torch.int32)
        )),
        ("cached", invalid, "recv_stats: expected integers, seen torch.bool", lambda: buffer.dispatch(
            mine.x, handle=handle, cumulative_local_expert_recv_stats=torch.zeros(case.experts, dtype=torch.bool)
        )),
        ("dispatch", TypeError, "previous_event_before_epilogue: expected an EventOverlap", lambda: dispatch(
            buffer, case, mine, previous_event_before_epilogue=deep_ep.EventHandle()
        )),
        ("dispatch", invalid, "num_max_tokens_per_rank", lambda: dispatch(buffer, case, mine, do_cpu_sync=False)),
        ("dispatch", invalid, "first to call", lambda: buffer.dispatch(mine.x[:, :128], ids, num_experts=experts)),
        ("dispatch", invalid, "first to call", lambda: dispatch(buffer, case, mine, num_max_tokens_per_rank=4096)),
        ("cached", invalid, "do_expand", lambda: buffer.dispatch(mine.x, handle=handle, do_expand=True)),
        ("cached", TypeError, "the EPHandle", lambda: buffer.dispatch(mine.x, handle=(1, 2))),
        ("combine", TypeError, "the EPHandle", lambda: buffer.combine(rows, 3)),
        ("combine", TypeError, "x: expected", lambda: buffer.combine([1], handle)),
        ("combine", invalid, "0, 1 or 2 tensors", lambda: buffer.combine(rows, handle, bias=(mine.x,) * 3)),
    ]


def sizes(group: Any, seed: int) -> None:
    """Calls of many num_max_tokens_per_rank share few engines, and keep their own bounds."""
    rank = dist.get_rank(group)
    case = Case("random", group.size(), seed, tokens=(5, 3, 7, 2))
    inputs = case.inputs()
    mine, wanted = inputs[rank], reference.flat(inputs, rank, case.experts)
    buffer = make_buffer(group, num_max_tokens_per_rank=16)
    for most in (None, 7, 9, 16, 17, 20, 32, 33, 50):
        x, _, _, handle, _ = dispatch(buffer, case, mine, num_max_tokens_per_rank=most, do_cpu_sync=False)
        assert len(x) == group.size() * (most or 16) and torch.equal(x[: len(wanted.x)], wanted.x)
        assert handle.num_max_tokens_per_rank == (most or 16)
    assert sorted(shape.max_tokens for shape in buffer._engines._buffers) == [16, 32, 64]
    with pytest.raises(switchyard.InvalidArgument):  # of all ranks
        dispatch(buffer, case, mine, num_max_tokens_per_rank=4)
    with pytest.raises(switchyard.InvalidArgument):
        dispatch(buffer, case, mine, num_max_tokens_per_rank=6, do_cpu_sync=False)
    assert torch.equal(dispatch(buffer, case, mine)[0], wanted.x)
    barrier, comm_stream = buffer.barrier, buffer.get_comm_stream
    buffer.destroy()
    for call in (barrier, comm_stream, lambda: dispatch(buffer, case, mine), lambda: buffer.combine(x, handle)):
        with pytest.raises(switchyard.Unusable, match="destroyed"):
            call()


def construction(group: Any, seed: int) -> None:
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    hint = deep_ep.ElasticBuffer.get_buffer_size_hint
    assert hint(group, 0, 0) == 0
    small, larger = hint(group, 16, 256), hint(group, 16, 256, num_topk=4)
    assert size * 16 * 4 * 256 <= small < larger and hint(group, 16, 256, 4, use_fp8_dispatch=True) < larger
    buffer = deep_ep.ElasticBuffer(group, num_max_tokens_per_rank=16, hidden=256, num_topk=4, num_cpu_timeout_secs=20)
    assert (buffer.group, buffer.rank, buffer.group_size, buffer.num_bytes) == (group, rank, size, larger)
    with pytest.raises(switchyard.InvalidArgument, match="explicitly_destroy"):
        buffer.destroy()
    assert buffer.get_theoretical_num_sms(8, 2) % 2 == 0 < buffer.get_theoretical_num_sms(num_experts=8, num_topk=2)
    assert buffer.get_theoretical_num_qps(16) == 0
    buffer.capture().current_stream_wait()
    with pytest.raises(NotImplementedError, match="num_cpu_bytes"):
        deep_ep.ElasticBuffer(group, 1 << 20, num_cpu_bytes=1)
    with pytest.raises(TypeError):
        deep_ep.ElasticBuffer(group, nonsense=1)  # type: ignore[call-arg]
    with pytest.raises(switchyard.InvalidArgument, match=r"rank 1: .*num_max_tokens_per_rank.* as on rank 0"):
        deep_ep.ElasticBuffer(group, num_bytes=0, num_max_tokens_per_rank=1 + rank % 2)
