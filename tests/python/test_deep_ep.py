"""The drop-in: parts of V1 that need no GPU. Ranks are threads; see bodies/deep_ep.py, too."""

import deep_ep
import deep_ep.buffers.elastic
import deep_ep.buffers.legacy
import deep_ep.utils.event
import pytest
import reference
import switchyard
import torch
from deep_ep._layout import any_layout, by_torch
from ranks import ThreadComm, as_threads, with_comm
from switchyard import _core

ranks, tokens, hidden, experts, top_k = 3, 19, 256, 9, 4


def all_inputs(dtype=torch.bfloat16):
    lengths = (tokens, 0, 7)
    return [
        reference.make_inputs(r, tokens=lengths[r], hidden=hidden, experts=experts, top_k=top_k, dtype=dtype)
        for r in range(ranks)
    ]


def on_ranks(body, size=ranks, **options):
    def run(comm):
        buffer = deep_ep.Buffer(comm=comm, num_nvl_bytes=1 << 20, explicitly_destroy=True, **options)
        try:
            return body(buffer, comm.rank)
        finally:
            buffer.destroy()

    return with_comm(size, run)


def dispatch(buffer, mine, x=None, **options):
    per_rank, per_rdma, per_expert, in_rank, _ = buffer.get_dispatch_layout(mine.topk_idx, experts)
    return buffer.dispatch(
        mine.x if x is None else x,
        num_tokens_per_rank=per_rank,
        num_tokens_per_rdma_rank=per_rdma,
        is_token_in_rank=in_rank,
        num_tokens_per_expert=per_expert,
        topk_idx=mine.topk_idx,
        topk_weights=mine.topk_weights,
        **options,
    )


def test_top_level_names():
    assert deep_ep.topk_idx_t == torch.int64 and deep_ep.engine == "switchyard"
    for module in (deep_ep.utils, deep_ep.utils.event, deep_ep.buffers.legacy, deep_ep.buffers.elastic):
        assert module.EventOverlap is deep_ep.EventOverlap and module.EventHandle is deep_ep.EventHandle
    assert deep_ep.buffers.legacy.Buffer is deep_ep.Buffer and deep_ep.buffers.legacy.Config is deep_ep.Config
    assert deep_ep.buffers.elastic.ElasticBuffer is deep_ep.ElasticBuffer
    assert deep_ep.buffers.elastic.EPHandle is deep_ep.EPHandle


def test_config_and_hints():
    config = deep_ep.Config(24, 8, 512, 16, 128)
    assert (config.num_sms, config.num_max_rdma_chunked_recv_tokens) == (24, 128)
    assert deep_ep.Config(**{"num_sms": 8}).num_max_nvl_chunked_recv_tokens == 256
    small, large = (config.get_nvl_buffer_size_hint(hidden * 2, r) for r in (2, 8))
    assert 0 < small < large and config.get_rdma_buffer_size_hint(hidden * 2, 8) == 0
    assert isinstance(deep_ep.Buffer.get_dispatch_config(8), deep_ep.Config)
    assert isinstance(deep_ep.Buffer.get_combine_config(7), deep_ep.Config)
    assert deep_ep.Buffer.is_sm90_compiled() in (True, False)


def test_hints_for_several_nodes(monkeypatch):
    """Nobody asks the ranks, so launchers say how many a node has; without one a node has 8, as DeepEP's."""
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.delenv("OMPI_COMM_WORLD_LOCAL_SIZE", raising=False)
    hint = deep_ep.Config().get_rdma_buffer_size_hint
    assert hint(14336, 8) == 0 < hint(14336, 16) <= hint(14336, 2048)
    for name in ("OMPI_COMM_WORLD_LOCAL_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "4")
        assert hint(14336, 4) == 0 < hint(14336, 8)
        monkeypatch.delenv(name)


@pytest.mark.parametrize("num_ranks, num_experts", ((8, 256), (16, 256), (64, 256), (6, 9)))
def test_low_latency_hint_has_room_for_the_slots(num_ranks, num_experts):
    """A rank has slots for what all ranks may send to each of its experts, over nodes as within one."""
    hint = deep_ep.Buffer.get_low_latency_rdma_size_hint
    most_local = -(-num_experts // num_ranks)
    rows = most_local * num_ranks * 128
    assert hint(128, 7168, num_ranks, num_experts) >= 2 * rows * (7168 * 2 + 7168 * 2)  # two results, and their outputs
    assert hint(128, 7168, num_ranks, num_experts) < hint(129, 7168, num_ranks, num_experts)
    assert hint(128, 7168, num_ranks, num_experts) < hint(128, 7169, num_ranks, num_experts)


def test_set_num_sms():
    before = deep_ep.Buffer.num_sms
    try:
        deep_ep.Buffer.set_num_sms(32)
        assert deep_ep.Buffer.num_sms == 32 and deep_ep.Buffer.get_dispatch_config(4).num_sms == 32
        with pytest.raises(switchyard.InvalidArgument, match="even"):
            deep_ep.Buffer.set_num_sms(7)
    finally:
        deep_ep.Buffer.set_num_sms(before)


def test_attributes_and_local_memory():
    def body(buffer, rank):
        assert (buffer.rank, buffer.group_size) == (rank, ranks)
        assert (buffer.num_nvl_bytes, buffer.num_rdma_bytes) == (1 << 20, 0)
        assert buffer.group is None and buffer.low_latency_mode is False
        buffer.get_comm_stream()
        flat = buffer.get_local_buffer_tensor(torch.bfloat16)
        assert flat.shape == (1 << 19,)
        flat[:] = 3
        part = buffer.get_local_buffer_tensor(torch.bfloat16, size=torch.Size([4, 8]), offset=64)
        assert part.shape == (4, 8) and part.data_ptr() == flat.data_ptr() + 64 and (part == 3).all()
        assert buffer.get_local_buffer_tensor(torch.uint8, use_rdma_buffer=True).numel() == 0
        with pytest.raises(switchyard.InvalidArgument, match="size: expected at most"):
            buffer.get_local_buffer_tensor(torch.bfloat16, size=torch.Size([1 << 20]))

    on_ranks(body)


def test_what_callers_ask_the_runtime_for():
    def body(buffer, rank):
        runtime = buffer.runtime
        assert runtime.is_available() and (runtime.get_num_rdma_ranks(), runtime.get_rdma_rank()) == (1, 0)
        assert type(runtime.get_comm_stream()) is type(buffer.get_comm_stream())
        with pytest.raises(AttributeError, match="low_latency_dispatch"):
            runtime.low_latency_dispatch()
        return buffer

    assert [buffer.runtime for buffer in on_ranks(body)] == [None] * ranks


def test_internode_calls_are_the_same_calls():
    def body(buffer, rank):
        mine = all_inputs()[rank]
        per_rank, per_rdma, per_expert, in_rank, _ = buffer.get_dispatch_layout(mine.topk_idx, experts)
        layout = (per_rank, per_rdma, in_rank, per_expert)
        wanted, *_ = dispatch(buffer, mine)
        rows, ids, weights, counts, handle, event = buffer.internode_dispatch(
            mine.x, None, *layout, mine.topk_idx, mine.topk_weights, config=deep_ep.Config(), async_finish=True
        )
        event.current_stream_wait()
        assert torch.equal(rows, wanted) and ids.shape == weights.shape == (len(rows), top_k) and sum(counts) > 0
        back, _, _ = buffer.internode_combine(rows, handle, config=deep_ep.Config())
        assert torch.equal(back, buffer.combine(rows, handle)[0])

    on_ranks(body)


def test_the_worst_case_needs_topk_idx():
    inputs = all_inputs()

    def body(buffer, rank):
        per_rank, _, per_expert, in_rank, _ = buffer.get_dispatch_layout(inputs[rank].topk_idx, experts)
        with pytest.raises(switchyard.InvalidArgument, match="num_worst_tokens"):
            buffer.dispatch(
                inputs[rank].x, None, per_rank, None, in_rank, per_expert, num_worst_tokens=ranks * tokens
            )
        dispatch(buffer, inputs[rank])

    on_ranks(body)


def test_handles_are_equal_to_themselves_alone():
    inputs = all_inputs()

    def body(buffer, rank):
        one, other = (dispatch(buffer, inputs[rank])[4] for _ in range(2))
        assert one == one and one != other and not one == other and one != () and len({one, other}) == 2
        assert {one: 1, other: 2}[one] == 1 and [other, one].index(one) == 1
        whole = (1, *one, 2)
        assert all(a is b for a, b in zip((1,) + one + (2,), whole, strict=True)) and len(whole) == 8

    on_ranks(body)


def test_too_little_memory_is_reported_in_words_of_this_interface(monkeypatch):
    monkeypatch.setenv("SWITCHYARD_HEAP_BYTES", str(1 << 16))

    def body(buffer, rank):
        sizes = {"hidden": hidden, "experts": experts, "top_k": top_k, "dtype": torch.bfloat16}
        mine = reference.make_inputs(rank, tokens=900, **sizes)
        with pytest.raises(switchyard.OutOfMemory, match="free earlier results, or raise SWITCHYARD_HEAP_B") as caught:
            dispatch(buffer, mine)
        assert "::" not in str(caught.value) and isinstance(caught.value, MemoryError)

    on_ranks(body)


def test_shapes_may_change_between_calls():
    def body(buffer, rank):
        for size, k, count in ((hidden, top_k, experts), (64, 2, 6), (hidden, top_k, experts)):
            mine = reference.make_inputs(rank, tokens=40, hidden=size, experts=count, top_k=k, dtype=torch.bfloat16)
            _, _, per_expert, in_rank, _ = buffer.get_dispatch_layout(mine.topk_idx, count)
            x, *_, handle, _ = buffer.dispatch(
                mine.x,
                topk_idx=mine.topk_idx,
                topk_weights=mine.topk_weights,
                num_tokens_per_expert=per_expert,
                is_token_in_rank=in_rank,
            )
            factor = in_rank.sum(1, keepdim=True)
            torch.testing.assert_close(
                buffer.combine(x, handle)[0].float(), mine.x.float() * factor, rtol=1e-2, atol=1e-2
            )

    on_ranks(body)


def test_misuse_is_named():
    inputs = all_inputs()

    def body(buffer, rank):
        mine = inputs[rank]
        with pytest.raises(switchyard.InvalidArgument, match="allocate_on_comm_stream"):
            buffer.get_dispatch_layout(mine.topk_idx, experts, allocate_on_comm_stream=True)
        with pytest.raises(switchyard.InvalidArgument, match="allocate_on_comm_stream"):
            dispatch(buffer, mine, allocate_on_comm_stream=True, async_finish=True)
        with pytest.raises(switchyard.InvalidArgument, match="num_tokens_per_expert"):
            buffer.dispatch(mine.x, topk_idx=mine.topk_idx)
        with pytest.raises(TypeError, match="handle: expected what dispatch returned, seen int"):
            buffer.combine(mine.x, 3)
        with pytest.raises(switchyard.InvalidArgument, match="topk_idx: expected dtype i64 or i32, seen f32"):
            buffer.get_dispatch_layout(mine.topk_idx.float(), experts)
        with pytest.raises(switchyard.InvalidArgument, match=f"expected -1 or 0..{experts - 1}, seen {experts}"):
            buffer.get_dispatch_layout(torch.full((2, top_k), experts), experts)
        with pytest.raises(switchyard.InvalidArgument, match="num_worst_tokens"):
            dispatch(buffer, mine, num_worst_tokens=1)
        dispatch(buffer, mine)

    on_ranks(body)


def test_constructor_and_destroy():
    with pytest.raises(TypeError):
        deep_ep.Buffer(None, nonsense=1)
    with pytest.raises(switchyard.InvalidArgument, match="exactly one of group"):
        deep_ep.Buffer(None)

    inputs = all_inputs()

    def body(comm):
        buffer = deep_ep.Buffer(
            group=None, num_nvl_bytes=0, num_rdma_bytes=0, low_latency_mode=False, num_qps_per_rank=1, comm=comm
        )
        with pytest.raises(switchyard.InvalidArgument, match="explicitly_destroy"):
            buffer.destroy()
        buffer = deep_ep.Buffer(comm=comm, explicitly_destroy=True)
        dispatch(buffer, inputs[comm.rank])
        buffer.destroy()
        buffer.destroy()
        with pytest.raises(switchyard.Unusable, match="was destroyed"):
            dispatch(buffer, inputs[comm.rank])

    with_comm(ranks, body)


def test_ranks_that_disagree_learn_of_it():
    def body(comm):
        with pytest.raises(switchyard.InvalidArgument, match=r"rank 1: .*num_nvl_bytes.* as on rank 0"):
            deep_ep.Buffer(comm=comm, num_nvl_bytes=1 << (20 + comm.rank))

    with_comm(2, body)


def test_a_board_of_one():
    board = ThreadComm.Board(1)
    buffer = deep_ep.Buffer(comm=ThreadComm(board, 0))
    mine = all_inputs()[0]
    x, *_ = dispatch(buffer, mine)
    assert torch.equal(x, mine.x[(mine.topk_idx >= 0).any(1)])
    assert as_threads(1, lambda communicator: communicator.size) == [1]


def test_the_layout_of_gpu_tensors():
    """The same operations on CPU tensors: they are the ones of torch that run on both."""
    for mine in all_inputs():
        for count, size in ((experts, 2), (experts, 3), (experts, 4), (2, 3), (3, 3)):
            few = mine.topk_idx.where(mine.topk_idx < count, -1)
            expected = _core.get_layout(few, count, size)
            for ids in (few, few.int()):
                for seen, wanted in zip(by_torch(ids, count, size), expected):
                    assert torch.equal(seen, wanted) and seen.dtype == wanted.dtype
    with pytest.raises(switchyard.InvalidArgument, match="topk_idx"):
        by_torch(torch.zeros(3, 2), experts, 2)


def test_the_layout_of_an_engine():
    """As get_dispatch_layout calls it on a GPU: the same by either way, and without room by torch."""
    inputs = all_inputs()

    def body(communicator):
        ids = inputs[communicator.rank].topk_idx
        sizes = (experts, communicator.size)
        with switchyard.Buffer(
            communicator, max_tokens=tokens, hidden=hidden, num_experts=experts, top_k=top_k
        ) as buffer:
            found = [any_layout(buffer, ids, sizes, asynchronous) for asynchronous in (False, True)]
            found.append(any_layout(FullBuffer(), ids, sizes, True))
        (_, none), (_, event), (_, instead) = found
        assert none is None and event.done and instead is None
        for layout, _ in found:
            for seen, wanted in zip(layout, by_torch(ids, *sizes)):
                assert torch.equal(seen, wanted) and seen.dtype == wanted.dtype

    as_threads(ranks, body)


class FullBuffer:
    @property
    def _core(self):
        raise switchyard.OutOfMemory("full")
