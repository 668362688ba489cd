"""The drop-in: all ranks learn what one of them does wrong in a collective call. Ranks are threads."""

import threading

import deep_ep
import pytest
import reference
import switchyard
import torch
from deep_ep._engines import Engines, LowLatencyBuffers
from ranks import as_threads, with_comm
from test_deep_ep import all_inputs, dispatch, experts, hidden, on_ranks, ranks, tokens, top_k

invalid = switchyard.InvalidArgument


class Step:
    """A rank, and a dispatch that went well."""

    def __init__(self, buffer, rank):
        self.buffer, self.inputs = buffer, all_inputs()
        self.mine = self.inputs[rank]
        self.received = reference.flat(self.inputs, rank, experts)
        self.factor = reference.ranks_of(self.mine, experts, ranks).sum(1, keepdim=True)
        self.rows, _, _, _, self.handle, _ = dispatch(buffer, self.mine)

    def fresh(self, x=None, **options):
        return dispatch(self.buffer, self.mine, x, **options)

    def cached(self, handle=None, **options):
        return self.buffer.dispatch(self.mine.x, handle=handle or self.handle, **options)

    def combine(self, x=None, handle=None, **options):
        return self.buffer.combine(self.rows if x is None else x, handle or self.handle, **options)

    def check_that_it_goes_on(self):
        assert torch.equal(self.fresh()[0], self.received.x)
        expected = self.mine.x.float() * self.factor
        torch.testing.assert_close(self.combine()[0].float(), expected, rtol=1e-2, atol=1e-2)


def with_counts(step, counts):
    return step.buffer.dispatch(step.mine.x, topk_idx=step.mine.topk_idx, num_tokens_per_expert=counts)


# What the peers call; what the culprit calls; what it gets.
mistakes = {
    "x is no tensor": (Step.fresh, lambda s: s.fresh([1]), TypeError, "x: expected a torch.Tensor"),
    "x is flat": (Step.fresh, lambda s: s.fresh(torch.zeros(3)), invalid, "x: expected a tensor"),
    "no previous_event": (
        Step.fresh, lambda s: s.fresh(allocate_on_comm_stream=True), invalid, "allocate_on_comm_stream",
    ),
    "x is a tuple of one": (Step.fresh, lambda s: s.fresh((s.mine.x,)), TypeError, "x: expected .* seen tuple"),
    "an event by name": (
        Step.fresh,
        lambda s: s.fresh(previous_event="last"),
        TypeError,
        "previous_event: expected an EventHandle or an EventOverlap, seen str",
    ),
    "config is a dict": (Step.fresh, lambda s: s.fresh(config={}), TypeError, "config: expected a Config, seen dict"),
    "SMs are no number": (
        Step.fresh, lambda s: s.fresh(config=deep_ep.Config("8")), TypeError, "config.num_sms: expected a whole number",
    ),
    "no counts": (Step.fresh, lambda s: with_counts(s, None), invalid, "num_tokens_per_expert: expected"),
    "counts are a list": (
        Step.fresh, lambda s: with_counts(s, [1]), TypeError, "num_tokens_per_expert: expected .* seen list",
    ),
    "counts are a scalar": (
        Step.fresh, lambda s: with_counts(s, torch.tensor(9)), invalid, r"num_tokens_per_expert: .* seen shape \[\]",
    ),
    "alignment is no number": (
        Step.fresh, lambda s: s.fresh(expert_alignment="8"), TypeError, "expert_alignment: expected .* seen str",
    ),
    "alignment beyond all numbers": (
        Step.fresh, lambda s: s.fresh(expert_alignment=2**70), TypeError, "expert_alignment: expected a whole number",
    ),
    "topk_idx is flat": (
        Step.fresh,
        lambda s: s.buffer.dispatch(
            s.mine.x, num_tokens_per_expert=torch.zeros(experts).int(), topk_idx=torch.zeros(3)
        ),
        invalid,
        "topk_idx: expected a tensor",
    ),
    "topk_idx with a handle": (
        Step.cached, lambda s: s.cached(topk_idx=s.mine.topk_idx), invalid, "handle: expected no topk_idx",
    ),
    "counts are no integers": (
        Step.fresh,
        lambda s: s.buffer.dispatch(s.mine.x, num_tokens_per_expert=torch.zeros(experts), topk_idx=s.mine.topk_idx),
        invalid,
        "num_tokens_per_expert: expected integers",
    ),
    "handle is a tuple": (Step.cached, lambda s: s.cached((1, 2)), invalid, "handle: expected what dispatch"),
    "hidden differs from the handle's": (
        Step.cached, lambda s: s.buffer.dispatch(s.mine.x[:, :128].clone(), handle=s.handle), invalid, "dimension 1",
    ),
    "combine of no tensor": (Step.combine, lambda s: s.combine([1]), TypeError, "x: expected a torch.Tensor"),
    "combine along a number": (Step.combine, lambda s: s.combine(handle=3), TypeError, "seen int"),
    "bias is a number": (Step.combine, lambda s: s.combine(bias=3), TypeError, "bias: expected .* seen int"),
    "biases are numbers": (Step.combine, lambda s: s.combine(bias=(3, 4)), TypeError, "bias: expected .* seen int"),
    "three biases": (Step.combine, lambda s: s.combine(bias=(s.mine.x,) * 3), invalid, "0, 1 or 2 tensors, seen 3"),
    "combine without previous_event": (
        Step.combine, lambda s: s.combine(allocate_on_comm_stream=True), invalid, "allocate_on_comm_stream",
    ),
}


@pytest.mark.parametrize("culprit", [0, ranks - 1])
@pytest.mark.parametrize("name", mistakes)
def test_one_rank_errs_and_all_learn_of_it(name, culprit):
    good, bad, kind, text = mistakes[name]

    def body(buffer, rank):
        step = Step(buffer, rank)
        with pytest.raises(kind if rank == culprit else invalid, match=text if rank == culprit else f"rank {culprit}"):
            (bad if rank == culprit else good)(step)
        step.check_that_it_goes_on()

    on_ranks(body)


def of_another_shape(buffer, size=hidden, count=experts, k=top_k):
    ids = torch.zeros(2, k, dtype=torch.int64)
    per_expert = torch.zeros(count, dtype=torch.int32)
    return buffer.dispatch(
        torch.zeros(2, size, dtype=torch.bfloat16), topk_idx=ids, num_tokens_per_expert=per_expert
    )


@pytest.mark.parametrize("culprit", [0, ranks - 1])
@pytest.mark.parametrize("shape", [{"size": 128}, {"count": 6}, {"k": 2}], ids=str)
@pytest.mark.parametrize("good", [Step.fresh, Step.cached, Step.combine])
def test_one_rank_comes_with_another_shape(good, shape, culprit):
    def body(buffer, rank):
        step = Step(buffer, rank)
        theirs = "a dispatch with the same" if good is Step.fresh else "rank"
        with pytest.raises(invalid, match="first to make a dispatch of" if rank == culprit else theirs):
            of_another_shape(buffer, **shape) if rank == culprit else good(step)
        step.check_that_it_goes_on()

    on_ranks(body)


def test_ranks_come_with_different_new_shapes():
    def body(buffer, rank):
        step = Step(buffer, rank)
        with pytest.raises(invalid, match="rank 1: expected .* hidden 128, .* as on rank 0, seen .* hidden 64,"):
            of_another_shape(buffer, size=64 if rank == 1 else 128)
        of_another_shape(buffer, size=128)
        step.check_that_it_goes_on()

    on_ranks(body)


def test_float16_of_one_rank_is_not_taken_for_a_new_shape_alone():
    def body(buffer, rank):
        step = Step(buffer, rank)
        own = "rank 1: x: dtype: expected bf16 as on rank 0, seen f16"
        with pytest.raises(invalid, match=own if rank == 1 else "rank 1: expected .* same dtype, .* seen another"):
            step.fresh(step.mine.x.half() if rank == 1 else None)
        step.check_that_it_goes_on()

    on_ranks(body)


@pytest.mark.parametrize("of", [Engines, LowLatencyBuffers])
def test_a_peer_that_does_not_come_to_make_an_engine(of, monkeypatch):
    def late(self, shape):
        raise switchyard.Timeout("waited", 0, 1, "all_gather")

    monkeypatch.setattr(of, "_made", late)
    monkeypatch.setattr(Engines, "_agree_on", lambda self, shape: None)
    sizes = (hidden, experts, top_k, torch.device("cpu"))
    text = "waited; .*hidden=256.*check that all ranks make calls with these"
    with pytest.raises(switchyard.Timeout, match=text) as caught:
        made = of(None, 0) if of is Engines else of(None, Engines(None, 0), False)
        made.of((*sizes, 0) if of is Engines else (9, *sizes))
    assert (caught.value.rank, caught.value.peer, caught.value.phase) == (0, 1, "all_gather")


after_the_end = {
    "get_dispatch_layout": lambda b, mine: b.get_dispatch_layout(mine.topk_idx, experts),
    "dispatch": lambda b, mine: b.dispatch(
        mine.x, topk_idx=mine.topk_idx, num_tokens_per_expert=torch.zeros(experts, dtype=torch.int32)
    ),
    "get_local_buffer_tensor": lambda b, _: b.get_local_buffer_tensor(torch.uint8),
    "get_comm_stream": lambda b, _: b.get_comm_stream(),
    "low_latency_dispatch": lambda b, mine: b.low_latency_dispatch(mine.x, mine.topk_idx, tokens, experts),
    "clean_low_latency_buffer": lambda b, _: b.clean_low_latency_buffer(tokens, hidden, experts),
    "get_next_low_latency_combine_buffer": lambda b, _: b.get_next_low_latency_combine_buffer(b.handle_of_test),
    "low_latency_update_mask_buffer": lambda b, _: b.low_latency_update_mask_buffer(0, True),
    "low_latency_query_mask_buffer": lambda b, _: b.low_latency_query_mask_buffer(torch.zeros(1, dtype=torch.int32)),
    "low_latency_clean_mask_buffer": lambda b, _: b.low_latency_clean_mask_buffer(),
    "cached dispatch": lambda b, mine: b.dispatch(mine.x, handle=b.v1_handle_of_test),
    "combine": lambda b, mine: b.combine(mine.x, b.v1_handle_of_test),
    "low_latency_combine": lambda b, mine: b.low_latency_combine(
        mine.x, mine.topk_idx, mine.topk_weights, b.handle_of_test
    ),
}


@pytest.mark.parametrize("name", after_the_end)
def test_use_after_destroy(name):
    mine = all_inputs()[0]

    def body(comm):
        buffer = deep_ep.Buffer(comm=comm, low_latency_mode=True, enable_shrink=True, explicitly_destroy=True)
        buffer.v1_handle_of_test = dispatch(buffer, mine)[4]
        buffer.handle_of_test = buffer.low_latency_dispatch(mine.x, mine.topk_idx, tokens, experts)[2]
        buffer.destroy()
        with pytest.raises(switchyard.Unusable, match="destroyed"):
            after_the_end[name](buffer, mine)

    with_comm(1, body)


@pytest.mark.parametrize("culprit", [0, ranks - 1])
@pytest.mark.parametrize("later", [False, True])
def test_one_rank_prefills_while_the_others_decode(later, culprit):
    """On the first call of a buffer or later: on all ranks an error says which calls met, and the buffer goes on."""
    inputs = all_inputs()

    def body(buffer, rank):
        if later:
            dispatch(buffer, inputs[rank])
        ids = torch.arange(top_k).expand(2, top_k).contiguous()
        x = torch.zeros(2, hidden, dtype=torch.bfloat16)

        def decode():
            return buffer.low_latency_dispatch(x, ids, 4, experts, use_fp8=False)

        with pytest.raises(switchyard.Error, match="low_latency_dispatch"):
            dispatch(buffer, inputs[rank]) if rank == culprit else decode()
        Step(buffer, rank).check_that_it_goes_on()
        decode()

    on_ranks(body, low_latency_mode=True)


@pytest.mark.parametrize("culprit", [0, ranks - 1])
def test_one_rank_errs_along_the_items_of_an_older_handle(culprit):
    """The peers are in a call of the engine that made the handle, which is not the latest one."""

    def body(buffer, rank):
        step = Step(buffer, rank)
        items = tuple(step.handle)
        of_another_shape(buffer, size=128)
        good, bad = torch.zeros_like(step.rows), "no tensor"
        with pytest.raises(TypeError if rank == culprit else invalid, match="x" if rank == culprit else "rank"):
            step.combine(x=bad if rank == culprit else good, handle=items)
        assert torch.equal(step.combine(x=good, handle=items)[0], torch.zeros_like(step.mine.x))

    on_ranks(body)


def test_after_a_timeout_every_text_says_what_to_do(monkeypatch):
    monkeypatch.setenv("SWITCHYARD_TIMEOUT_MS", "300")
    failed = threading.Barrier(ranks, timeout=20)
    advice = "; this buffer has failed: make a new one on all ranks$"
    waited = r"waited 300 ms \(timeout, or SWITCHYARD_TIMEOUT_MS\) for rank 0 during dispatch/announce: .*"

    def body(buffer, rank):
        step = Step(buffer, rank)
        if rank > 0:
            with pytest.raises(switchyard.Timeout, match=waited + advice):
                step.fresh()
        failed.wait()
        for call in (step.fresh, step.combine):
            with pytest.raises(switchyard.Timeout, match="(earlier call failed|stopped because).*" + waited + advice):
                call()

    on_ranks(body)


def test_a_failed_buffer_of_switchyard_names_reset():
    def body(communicator):
        sizes = {"max_tokens": 4, "hidden": 8, "num_experts": 2, "top_k": 1}
        buffer = switchyard.Buffer(communicator, timeout=0.3, **sizes)
        if communicator.rank == 1:
            advice = r"this buffer has failed: call reset\(\) on all ranks, or make a new one on all ranks$"
            with pytest.raises(switchyard.Timeout, match=advice):
                buffer.dispatch(torch.zeros(1, 8), torch.zeros(1, 1, dtype=torch.int64))
        communicator.barrier()

    as_threads(2, body)


def test_results_lie_where_x_lies():
    """Whatever the default device is."""

    def body(buffer, rank):
        step = Step(buffer, rank)
        with torch.device("meta"):
            back, _, event = step.combine(async_finish=True)
            event.current_stream_wait()
            prefix = step.handle[0]
        assert back.device.type == prefix.device.type == "cpu"
        torch.testing.assert_close(back.float(), step.mine.x.float() * step.factor, rtol=1e-2, atol=1e-2)

    on_ranks(body)
