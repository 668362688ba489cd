"""The drop-in: errors name its arguments, not the engine's, and say what was expected and seen; ranks as threads."""

import deep_ep
import pytest
from test_deep_ep import all_inputs, experts, on_ranks, tokens


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
        lambda s: s.buffer.low_latency_update_mask_buffer("1"), TypeError, "^rank: expected a whole number, seen str",
    ),
    "experts by name": (lambda s: s.layout(count="4"), TypeError, "^num_experts: expected a whole number, seen str"),
    "ids in a list": (lambda s: s.layout([[1]]), TypeError, "^topk_idx: expected a torch.Tensor, seen list"),
    "an event alone": (
        lambda s: s.layout(previous_event=deep_ep.EventHandle()), TypeError, "^previous_event: .* seen EventHandle",
    ),
    "SMs by name": (lambda s: s.buffer.set_num_sms("8"), TypeError, "^num_sms: expected a whole number, seen str"),
}


@pytest.mark.parametrize("name", local_mistakes)
def test_mistakes_of_one_rank_that_peers_need_not_hear(name):
    bad, kind, text = local_mistakes[name]

    def body(buffer, rank):
        rank = Decoding(buffer)
        with pytest.raises(kind, match=text):
            bad(rank)
        rank.combine(rank.mine.topk_idx)

    on_ranks(body, 1, low_latency_mode=True, enable_shrink=True)
