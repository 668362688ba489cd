"""The drop-in: a call that differs from the one before in one thing is that other call. Ranks are threads.

Calls that are like the one before take a shorter way, and options are looked up: nothing of the call before may stay.
"""

import inspect

import deep_ep
import pytest
import reference
import switchyard
import torch
from ranks import with_comm
from test_deep_ep import experts, hidden, on_ranks, ranks, top_k

invalid = switchyard.InvalidArgument


class Sizes:
    """Inputs of all ranks for a dispatch of these sizes."""

    def __init__(self, hidden=hidden, experts=experts, top_k=top_k, dtype=torch.bfloat16, ids=torch.int64, seed=0):
        self.experts, self.ids, lengths = experts, ids, (5, 0, 7)
        sizes = {"hidden": hidden, "experts": experts, "top_k": top_k, "dtype": dtype}
        self.inputs = [reference.make_inputs(seed + r, tokens=lengths[r], **sizes) for r in range(ranks)]

    def check(self, buffer, rank, alignment=1, **options):
        mine = self.inputs[rank]
        ids = mine.topk_idx.to(self.ids)
        per_rank, _, per_expert, in_rank, _ = buffer.get_dispatch_layout(ids, self.experts)
        x, seen_ids, weights, counts, handle, _ = buffer.dispatch(
            mine.x, num_tokens_per_rank=per_rank, is_token_in_rank=in_rank, num_tokens_per_expert=per_expert,
            topk_idx=ids, topk_weights=mine.topk_weights, expert_alignment=alignment, **options,
        )  # fmt: skip
        wanted = reference.flat(self.inputs, rank, self.experts, alignment=alignment)
        rows = len(wanted.x)
        assert x.dtype == mine.x.dtype and torch.equal(x[:rows], wanted.x)
        assert seen_ids.dtype == self.ids and torch.equal(seen_ids[:rows], wanted.topk_idx.to(self.ids))
        assert torch.equal(weights[:rows], wanted.topk_weights) and (seen_ids[rows:] == -1).all()
        if not options:
            assert counts == wanted.tokens_per_expert and len(x) == rows
        assert torch.equal(buffer.dispatch(mine.x, handle=handle)[0][:rows], wanted.x)


def test_each_call_is_the_one_that_was_made():
    usual = Sizes()
    others = (
        Sizes(hidden=128), Sizes(experts=6), Sizes(top_k=2), Sizes(dtype=torch.float32), Sizes(ids=torch.int32),
        Sizes(seed=50),
    )  # fmt: skip

    def body(buffer, rank):
        usual.check(buffer, rank)
        for other in others:
            other.check(buffer, rank)
            usual.check(buffer, rank)
        for options in ({"alignment": 16}, {"num_worst_tokens": 40}, {"config": deep_ep.Config(num_sms=4)}):
            usual.check(buffer, rank, **options)
            usual.check(buffer, rank)

    on_ranks(body)


def test_options_are_not_those_of_an_equal_number_of_another_type():
    usual = Sizes()

    def body(buffer, rank):
        for name in ("alignment", "num_worst_tokens"):
            usual.check(buffer, rank, **{name: 32})
            with pytest.raises(TypeError if rank == 1 else invalid):
                usual.check(buffer, rank, **{name: 32.0 if rank == 1 else 32})
        usual.check(buffer, rank)

    on_ranks(body)


def test_counts_must_still_be_integers():
    usual = Sizes()

    def body(buffer, rank):
        usual.check(buffer, rank)
        mine = usual.inputs[rank]
        with pytest.raises(invalid, match="expected integers" if rank == 1 else None):
            dtype = torch.bool if rank == 1 else torch.int32
            buffer.dispatch(
                mine.x, num_tokens_per_expert=torch.ones(experts).to(dtype), topk_idx=mine.topk_idx
            )
        usual.check(buffer, rank)

    on_ranks(body)


def test_flags_are_true_or_false_whatever_they_are():
    """The first call as the second, which is like it: options of equal numbers are looked up as the same."""
    usual = Sizes()

    def body(buffer, rank):
        for flag in (0, 1, None, True, False):
            for _ in range(2):
                event = dispatch_again(buffer, usual.inputs[rank], async_finish=flag)
                assert (event.event is not None) == bool(flag)
        usual.check(buffer, rank)

    on_ranks(body)


def dispatch_again(buffer, mine, async_finish):
    """Dispatches and combines; returns the event of the combine."""
    per_expert = buffer.get_dispatch_layout(mine.topk_idx, experts)[2]
    x, _, _, _, handle, event = buffer.dispatch(
        mine.x, num_tokens_per_expert=per_expert, topk_idx=mine.topk_idx, async_finish=async_finish, num_worst_tokens=60
    )
    if async_finish:
        event.current_stream_wait()
    event = buffer.combine(x, handle, async_finish=async_finish)[2]
    if async_finish:
        event.current_stream_wait()
    return event


def test_hooks_of_flags_that_are_numbers():
    def body(comm):
        buffer = deep_ep.Buffer(comm=comm, low_latency_mode=True, explicitly_destroy=True)
        mine = Sizes().inputs[comm.rank]
        for flag in (1, 0, None, True):
            hook = buffer.low_latency_dispatch(mine.x, mine.topk_idx, 8, experts, return_recv_hook=flag)[4]
            assert (hook is not None) == bool(flag)
            if hook is not None:
                hook()
        buffer.destroy()

    with_comm(ranks, body)


def test_a_number_of_experts_is_no_tensor_of_counts():
    usual = Sizes()

    def body(buffer, rank):
        usual.check(buffer, rank)
        mine = usual.inputs[rank]
        for _ in range(2):
            with pytest.raises(TypeError, match="num_tokens_per_expert: expected a torch.Tensor, seen int"):
                buffer.dispatch(mine.x, num_tokens_per_expert=experts, topk_idx=mine.topk_idx)
        usual.check(buffer, rank)

    on_ranks(body)


def test_scales_of_equal_bytes_and_another_dtype_are_another_call():
    def body(buffer, rank):
        mine = Sizes().inputs[rank]
        rows, groups = mine.x.to(torch.float8_e4m3fn), hidden // 128
        per_expert = buffer.get_dispatch_layout(mine.topk_idx, experts)[2]
        for dtype in (torch.int32, torch.float32):
            agreed = rows, torch.ones(len(rows), groups, dtype=dtype)
            seen = buffer.dispatch(agreed, num_tokens_per_expert=per_expert, topk_idx=mine.topk_idx)[0]
            assert seen[1].dtype == dtype
            own = rows, torch.ones(len(rows), groups, dtype=torch.int32 if rank == 1 else torch.float32)
            with pytest.raises(
                invalid, match=f"rank 1: scales: expected {4 * groups} bytes of f32 a token as on rank 0, seen .* i32"
            ):
                buffer.dispatch(own, num_tokens_per_expert=per_expert, topk_idx=mine.topk_idx)

    on_ranks(body)


def test_results_lie_where_inputs_do():
    """Whatever PyTorch's default device is when a call, or the one before, is made."""

    def body(comm):
        buffer = deep_ep.Buffer(comm=comm, low_latency_mode=True, explicitly_destroy=True)
        usual = Sizes()
        mine = usual.inputs[comm.rank]
        for other in ("cpu", "meta"):
            with torch.device(other):
                rows, counts, handle, _, hook = buffer.low_latency_dispatch(
                    mine.x, mine.topk_idx, 8, experts, use_fp8=False, return_recv_hook=True
                )
                hook()
                sums = buffer.low_latency_combine(rows, mine.topk_idx, mine.topk_weights, handle)[0]
            assert all(each.device.type == "cpu" for each in (rows, counts, sums))
        usual.check(buffer, comm.rank)
        with torch.device("meta"):
            usual_ids = mine.topk_idx
            _, _, per_expert, in_rank, _ = buffer.get_dispatch_layout(usual_ids, experts)
            result = buffer.dispatch(
                mine.x, num_tokens_per_expert=per_expert, is_token_in_rank=in_rank, topk_idx=usual_ids
            )
        assert result[0].device.type == result[1].device.type == "cpu"
        buffer.destroy()

    with_comm(ranks, body)


def test_low_latency_calls_of_other_sizes():
    def body(comm):
        buffer = deep_ep.Buffer(comm=comm, low_latency_mode=True, explicitly_destroy=True)
        usual = {"most": 8, "hidden": 256, "experts": 9, "top_k": 4}
        for change in ({}, {"hidden": 128}, {}, {"experts": 6}, {}, {"top_k": 2}, {}, {"most": 16}, {}):
            sizes = usual | change
            mine = reference.make_inputs(
                comm.rank, tokens=5, dtype=torch.bfloat16, **{name: sizes[name] for name in usual if name != "most"}
            )
            rows, counts, handle, _, _ = buffer.low_latency_dispatch(
                mine.x, mine.topk_idx, sizes["most"], sizes["experts"], use_fp8=False
            )
            local = sizes["experts"] // ranks
            assert rows.shape == (local, ranks * sizes["most"], sizes["hidden"]) and counts.shape == (local,)
            assert handle[2:] == (sizes["most"], sizes["hidden"], sizes["experts"])
            sums = buffer.low_latency_combine(rows, mine.topk_idx, mine.topk_weights, handle)[0]
            used = (mine.topk_weights * (mine.topk_idx >= 0)).sum(1, keepdim=True)
            torch.testing.assert_close(sums.float(), mine.x.float() * used, rtol=2e-2, atol=2e-2)
        with pytest.raises(invalid, match="x: expected bfloat16"):
            buffer.low_latency_dispatch(mine.x.float(), mine.topk_idx, 8, 9)
        buffer.destroy()

    with_comm(ranks, body)


# ---- V2, with one rank ----


@pytest.fixture
def elastic():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    buffer = deep_ep.ElasticBuffer(torch.distributed.group.WORLD, num_max_tokens_per_rank=8, explicitly_destroy=True)
    yield buffer
    buffer.destroy()
    torch.distributed.destroy_process_group()


def inputs_of_one(top_k=top_k, seed=0):
    return reference.make_inputs(seed, tokens=7, hidden=hidden, experts=experts, top_k=top_k, dtype=torch.bfloat16)


def test_a_handle_keeps_the_ids_of_its_call(elastic):
    for ids in (inputs_of_one().topk_idx, inputs_of_one(2 * top_k).topk_idx[:, ::2], inputs_of_one().topk_idx.int()):
        mine = inputs_of_one()
        for _ in range(2):  # the second is like the first
            kept = ids.clone()
            handle = elastic.dispatch(mine.x, ids, mine.topk_weights, num_experts=experts)[3]
            ids.zero_()
            assert torch.equal(handle.topk_idx, kept) and handle.topk_idx.dtype == kept.dtype
            assert handle.topk_idx is handle.topk_idx
            again = elastic.dispatch(mine.x, None, mine.topk_weights, handle=handle)
            wanted = reference.flat([reference.Inputs(mine.x, kept.long(), mine.topk_weights)], 0, experts)
            assert torch.equal(again[0], wanted.x) and torch.equal(again[1].long(), wanted.topk_idx)
            ids.copy_(kept)
        handle = elastic.dispatch(mine.x, ids, num_experts=experts, do_handle_copy=False)[3]
        assert handle.topk_idx is ids


def test_numbers_are_asked_for_again(elastic):
    mine = inputs_of_one()
    for wrong in ({"num_experts": float(experts)}, {"num_experts": experts, "expert_alignment": 1.0}):
        elastic.dispatch(mine.x, mine.topk_idx, num_experts=experts, expert_alignment=1)
        with pytest.raises(TypeError, match="expected a whole number, seen float"):
            elastic.dispatch(mine.x, mine.topk_idx, **wrong)
        with pytest.raises(TypeError, match="num_experts: expected a whole number, seen list"):
            elastic.dispatch(mine.x, mine.topk_idx, num_experts=[experts])
    with pytest.raises(invalid, match="expected at most num_max_tokens_per_rank = 6, seen 7"):
        elastic.dispatch(mine.x, mine.topk_idx, num_experts=experts, num_max_tokens_per_rank=6)
    for do_expand in (False, True, False):
        handle = elastic.dispatch(mine.x, mine.topk_idx, num_experts=experts, do_expand=do_expand)[3]
        assert handle.do_expand == do_expand


def test_numbers_that_change_in_place(elastic):
    """A tensor of one number is the same object when it holds another."""
    mine, alignment, do_expand = inputs_of_one(), torch.tensor(4), torch.tensor(True)
    for value in (4, 16, 1):
        alignment.fill_(value)
        options = {"expert_alignment": alignment, "do_expand": do_expand}
        handle = elastic.dispatch(mine.x, mine.topk_idx, num_experts=torch.tensor(experts), **options)[3]
        counts = [int((mine.topk_idx == expert).sum()) for expert in range(experts)]
        assert handle.num_recv_tokens_per_expert_list == [-(-count // value) * value for count in counts]
    for sync in (True, False, True):
        handle = elastic.dispatch(mine.x, mine.topk_idx, num_experts=experts, do_cpu_sync=torch.tensor(sync))[3]
        assert bool(handle.num_recv_tokens_per_expert_list) == sync


def test_flags_of_v2(elastic):
    mine = inputs_of_one()
    for flag in (0, 1, None, True, False):
        for sync in (False, True):
            for _ in range(2):
                options = {"do_cpu_sync": sync, "do_zero_padding": flag, "do_expand": flag, "do_handle_copy": flag}
                x, _, _, handle, event = elastic.dispatch(
                    mine.x, mine.topk_idx, num_experts=experts, async_with_compute_stream=flag, **options
                )
                assert (event.event is not None) == bool(flag)
                if flag:
                    event.current_stream_wait()
                assert elastic.combine(x, handle, async_with_compute_stream=flag)[0].shape == mine.x.shape


def test_one_number_for_all_experts_is_refused_as_pytorch_does(elastic):
    mine, wide = inputs_of_one(), torch.zeros(1, dtype=torch.int32)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="single memory location"):
            elastic.dispatch(
                mine.x, mine.topk_idx, num_experts=experts, cumulative_local_expert_recv_stats=wide.expand(experts)
            )
    assert wide.item() == 0
    elastic.dispatch(mine.x, mine.topk_idx, num_experts=experts)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.int16])
def test_statistics_of_each_dtype(elastic, dtype):
    mine = inputs_of_one()
    rows = torch.stack([(mine.topk_idx == expert).sum() for expert in range(experts)])
    for step in (1, 2):
        stats = torch.ones(step * experts, dtype=dtype)[::step]
        for _ in range(2):
            elastic.dispatch(mine.x, mine.topk_idx, num_experts=experts, cumulative_local_expert_recv_stats=stats)
        assert torch.equal(stats, (1 + 2 * rows).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32])
def test_scales_by_column(elastic, dtype):
    mine = inputs_of_one()
    scales = torch.arange(14).view(7, 2).to(dtype)
    pair = mine.x.to(torch.float8_e4m3fn), scales.t().contiguous().t()
    plain = elastic.dispatch(pair, mine.topk_idx, num_experts=experts)[0]
    for _ in range(2):
        rows, seen = elastic.dispatch(pair, mine.topk_idx, num_experts=experts, use_tma_aligned_col_major_sf=True)[0]
        assert torch.equal(seen, plain[1]) and seen.dtype == dtype and plain[1].is_contiguous()
        assert seen.stride() == (1, -(-len(seen) // 4) * 4) and seen.data_ptr() % 16 == 0


def test_fewer_words_than_scales(elastic):
    """int32 scales need not be as many as float32 ones, and their bits are no numbers."""
    mine = inputs_of_one()
    words = torch.randint(-(2**31), 2**31, (7, 1), generator=torch.Generator().manual_seed(3)).int()
    words[0] = 0x7F800001  # as a float, a NaN that signals
    handle_rows, seen = elastic.dispatch((mine.x.to(torch.float8_e4m3fn), words), mine.topk_idx, num_experts=experts)[0]
    kept = reference.flat([mine], 0, experts).source_token
    assert torch.equal(seen, words[kept.long()]) and len(handle_rows) == len(seen)


# ---- functions as torch.compile sees them ----


def test_calls_have_the_parameters_that_they_had():
    calls = (deep_ep.Buffer.dispatch, deep_ep.ElasticBuffer.dispatch, switchyard.Buffer.dispatch, switchyard.Buffer)
    for call in calls:
        function = call.__init__ if inspect.isclass(call) else call
        behind = inspect.unwrap(function)
        assert function.__defaults__ == behind.__defaults__ and function.__kwdefaults__ == behind.__kwdefaults__
        assert function.__name__ == behind.__name__ and function.__doc__ == behind.__doc__
    with pytest.raises(TypeError, match="unexpected keyword argument 'no_such'"):
        deep_ep.Buffer.dispatch(None, None, no_such=1)
