"""The drop-in: errors name its arguments, not those of the engine. Ranks are threads."""

import deep_ep
import pytest
import switchyard
import torch
from ranks import with_comm
from test_deep_ep import all_inputs, dispatch, experts, on_ranks, tokens

invalid = switchyard.InvalidArgument


class Decoding:
    """The only rank, between a low-latency dispatch and its combine."""

    def __init__(self, buffer):
        self.buffer, self.mine = buffer, all_inputs()[0]
        self.slots, _, self.handle, _, _ = self.dispatch(use_fp8=False)

    def dispatch(self, most=tokens, **options):
        return self.buffer.low_latency_dispatch(self.mine.x, self.mine.topk_idx, most, experts, **options)

    def combine(self, topk_idx=None, **options):
        return self.buffer.low_latency_combine(self.slots, topk_idx, self.mine.topk_weights, self.handle, **options)

    def layout(self, topk_idx=None, count=experts, **options):
        return self.buffer.get_dispatch_layout(self.mine.topk_idx if topk_idx is None else topk_idx, count, **options)


local_mistakes = {
    "counts of float": (
        lambda s: s.dispatch(cumulative_local_expert_recv_stats=torch.zeros(experts)),
        invalid,
        "^cumulative_local_expert_recv_stats: expected dtype i32, seen f32",
    ),
    "counts in a list": (
        lambda s: s.dispatch(cumulative_local_expert_recv_stats=[1]),
        TypeError,
        "^cumulative_local_expert_recv_stats: expected a tensor .* seen list",
    ),
    "costs of a dispatch": (
        lambda s: s.dispatch(dispatch_wait_recv_cost_stats=torch.zeros(7)), invalid, "^dispatch_wait_recv_cost_stats: ",
    ),
    "costs of a combine": (
        lambda s: s.combine(s.mine.topk_idx, combine_wait_recv_cost_stats=torch.zeros(7)),
        invalid,
        "^combine_wait_recv_cost_stats: ",
    ),
    "no most tokens": (
        lambda s: s.dispatch(None), TypeError, "^num_max_dispatch_tokens_per_rank: expected a whole number",
    ),
    "too few most tokens": (lambda s: s.dispatch(0), invalid, "num_max_dispatch_tokens_per_rank: expected 1.* seen 0"),
    "no ids": (lambda s: s.combine(), TypeError, "^topk_idx: expected a torch.Tensor, seen NoneType"),
    "no handle": (
        lambda s: s.buffer.get_next_low_latency_combine_buffer(None),
        TypeError,
        "^handle: expected what low_latency_dispatch returned, seen NoneType",
    ),
    "a mask in a list": (
        lambda s: s.buffer.low_latency_query_mask_buffer([1]), TypeError, "^mask_status: expected .* seen list",
    ),
    "a rank by name": (
        lambda s: s.buffer.low_latency_update_mask_buffer("1"),
        TypeError,
        "^rank_to_mask: expected a whole number, seen str",
    ),
    "experts by name": (lambda s: s.layout(count="4"), TypeError, "^num_experts: expected a whole number, seen str"),
    "ids in a list": (lambda s: s.layout([[1]]), TypeError, "^topk_idx: expected a torch.Tensor, seen list"),
    "an event by name": (
        lambda s: s.layout(previous_event="last"),
        TypeError,
        "^previous_event: expected an EventHandle or an EventOverlap, seen str",
    ),
    "SMs by name": (lambda s: s.buffer.set_num_sms("8"), TypeError, "^num_sms: expected a whole number, seen str"),
}


@pytest.mark.parametrize("name", local_mistakes)
def test_mistakes_that_do_not_concern_peers(name):
    bad, kind, text = local_mistakes[name]

    def body(buffer, rank):
        rank = Decoding(buffer)
        with pytest.raises(kind, match=text):
            bad(rank)
        rank.combine(rank.mine.topk_idx)

    on_ranks(body, 1, low_latency_mode=True, enable_shrink=True)


def routed_by(step, in_rank):
    counts = torch.zeros(experts, dtype=torch.int32)
    return step.buffer.dispatch(step.mine.x, num_tokens_per_expert=counts, is_token_in_rank=in_rank)


def biased(step, bias, **options):
    return step.buffer.combine(step.rows, step.handle, bias=bias, **options)


def biased_later(step, bias):
    biased(step, bias, async_finish=True)[2].current_stream_wait()


class Step:
    """A rank, and a dispatch that went well."""

    def __init__(self, buffer, rank):
        self.buffer, self.mine = buffer, all_inputs()[rank]
        self.rows, _, _, _, self.handle, _ = dispatch(buffer, self.mine)
        self.in_rank = self.handle[4]
        self.wide = self.mine.x.float()


# Mistakes that the engine finds: the call of the peers, the call of the culprit, and the error of both.
mistakes = {
    "routing of int32": (
        lambda s: routed_by(s, s.in_rank),
        lambda s: routed_by(s, s.in_rank.int()),
        "is_token_in_rank: expected dtype bool, seen i32",
    ),
    "no routing": (
        lambda s: routed_by(s, s.in_rank),
        lambda s: routed_by(s, None),
        "routing: expected topk_idx, is_token_in_rank or handle, seen 0",
    ),
    "a bias": (lambda s: biased(s, s.mine.x), lambda s: biased(s, s.wide), "bias: expected dtype bf16, seen f32"),
    "a second bias": (
        lambda s: biased(s, (s.mine.x,) * 2), lambda s: biased(s, (s.mine.x, s.wide)), r"bias\[1\]: expected dtype",
    ),
    "a bias of a queued combine": (
        lambda s: biased_later(s, s.mine.x), lambda s: biased_later(s, s.wide), "bias: expected dtype bf16, seen f32",
    ),
}


@pytest.mark.parametrize("name", mistakes)
def test_errors_of_the_engine_are_in_words_of_this_interface_on_all_ranks(name):
    good, bad, text = mistakes[name]

    def body(buffer, rank):
        step = Step(buffer, rank)
        with pytest.raises(invalid, match=f"^rank 1: {text}") as caught:
            (bad if rank == 1 else good)(step)
        assert (caught.value.rank, caught.value.peer) == (1, -1)
        biased(step, step.mine.x)

    on_ranks(body, 2)


def test_a_rank_with_a_new_shape_learns_in_words_of_this_interface_why_a_peer_was_refused():
    def body(buffer, rank):
        step = Step(buffer, rank)
        with pytest.raises(invalid, match="^rank 1: bias: expected dtype bf16"):
            if rank == 1:
                biased(step, step.wide)
            else:
                counts = torch.zeros(experts + 1, dtype=torch.int32)
                buffer.dispatch(step.mine.x, topk_idx=step.mine.topk_idx, num_tokens_per_expert=counts)
        dispatch(buffer, step.mine)

    on_ranks(body, 2)


@pytest.mark.parametrize("name", ("num_nvl_bytes", "num_rdma_bytes"))
def test_sizes_are_numbers_of_bytes(name):
    def body(comm):
        with pytest.raises(switchyard.InvalidArgument, match=f"{name}: expected 0 or more, seen -1"):
            deep_ep.Buffer(comm=comm, **{name: -1})
        with pytest.raises(TypeError, match=f"{name}: expected a whole number, seen float"):
            deep_ep.Buffer(comm=comm, **{name: 1e9})

    with_comm(1, body)


@pytest.mark.parametrize("name", ["num_nvl_bytes", "num_rdma_bytes"])
@pytest.mark.parametrize("wrong", [-1, 1e9])
def test_a_size_that_one_rank_gets_wrong(name, wrong):
    def body(comm):
        with pytest.raises(switchyard.InvalidArgument, match=name):
            deep_ep.Buffer(comm=comm, **{name: wrong if comm.Get_rank() == 1 else 1 << 16})

    with_comm(2, body)


def test_local_memories_are_two():
    def body(buffer, rank):
        nvl, rdma = (buffer.get_local_buffer_tensor(torch.int32, use_rdma_buffer=rdma) for rdma in (False, True))
        assert nvl.shape == (1 << 18,) and rdma.shape == (16,)
        nvl.fill_(1)
        rdma.fill_(2)
        assert (nvl == 1).all() and (rdma == 2).all()
        for size in (torch.Size([2, 2]), (2, 2), [2, 2]):
            part = buffer.get_local_buffer_tensor(torch.int32, size, 16, True)
            assert part.shape == (2, 2) and part.data_ptr() == rdma.data_ptr() + 16 and (part == 2).all()
        assert buffer.get_local_buffer_tensor(torch.int64, 3).shape == (3,)
        assert buffer.get_local_buffer_tensor(torch.int64, offset=64, use_rdma_buffer=True).shape == (0,)

    on_ranks(body, 1, num_rdma_bytes=67)


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ((torch.float32, None, -4), invalid, "offset: expected a multiple of 4 in 0..1048576, seen -4"),
        ((torch.float32, None, (1 << 20) + 4), invalid, "offset: expected .* seen 1048580"),
        ((torch.float32, None, 3), invalid, "offset: expected a multiple of 4 .* seen 3"),
        ((torch.float32, None, "4"), TypeError, "offset: expected a whole number, seen str"),
        ((torch.float32, (1 << 18, 2)), invalid, "size: expected at most 262144 elements, seen 524288"),
        ((torch.float32, (-1,)), invalid, r"size: expected a shape, seen \[-1\]"),
        ((torch.float32, (2, 1.5)), TypeError, "size: expected a whole number, seen float"),
        (("float32",), TypeError, "dtype: expected a torch.dtype, seen str"),
    ],
    ids=str,
)
def test_views_of_local_memory_that_there_cannot_be(arguments, kind, text):
    def body(buffer, rank):
        with pytest.raises(kind, match=text):
            buffer.get_local_buffer_tensor(*arguments)

    on_ranks(body, 1)


def test_ranks_that_differ_in_the_most_tokens():
    def body(comm):
        mine, most = all_inputs()[0], 64 + comm.Get_rank()
        buffer = deep_ep.Buffer(comm=comm, low_latency_mode=True)
        text = "^rank 1: expected .* num_max_dispatch_tokens_per_rank 64 as on rank 0, seen .* 65$"
        with pytest.raises(invalid, match=text):
            buffer.low_latency_dispatch(mine.x, mine.topk_idx, most, experts)

    with_comm(2, body)
