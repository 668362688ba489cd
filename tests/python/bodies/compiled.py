"""Public calls within functions that torch.compile compiles, with graph breaks: the results are those without it."""

from __future__ import annotations

from typing import Any, Callable

import deep_ep
import reference
import switchyard
import torch
from devices import here, same

tokens, hidden, experts, top_k = 9, 256, 8, 3
most = 16


def check(group: Any, steps: Callable[..., torch.Tensor]) -> None:
    """Compares steps(x, ids, weights), compiled and not; all ranks call it alike."""
    sizes = {"tokens": tokens - group.rank(), "hidden": hidden, "experts": experts, "top_k": top_k}
    mine = here(reference.make_inputs(group.rank(), dtype=torch.bfloat16, **sizes))
    wanted = steps(mine.x, mine.topk_idx, mine.topk_weights)
    for function in (torch.compile(steps, backend="eager"), torch.compile(steps, backend="eager")):
        same(function(mine.x, mine.topk_idx, mine.topk_weights), wanted.cpu())
    torch._dynamo.reset()


def decoding(group: Any) -> None:
    """deep_ep's low-latency calls, hooks included."""
    buffer = deep_ep.Buffer(group, low_latency_mode=True, explicitly_destroy=True)

    def steps(x: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        for hooks in (True, False):
            rows, counts, handle, event, hook = buffer.low_latency_dispatch(
                x * 2, ids, most, experts, use_fp8=False, async_finish=not hooks, return_recv_hook=hooks
            )
            hook() if hook is not None else event.current_stream_wait()
            out = torch.zeros_like(x)
            x, event, hook = buffer.low_latency_combine(
                rows * 1, ids, weights, handle, async_finish=not hooks, return_recv_hook=hooks, out=out
            )
            hook() if hook is not None else event.current_stream_wait()
        return x + 1

    check(group, steps)
    buffer.destroy()


def prefill(group: Any) -> None:
    """deep_ep's V1 and V2."""
    buffer = deep_ep.Buffer(group, 8 << 20, explicitly_destroy=True)
    elastic = deep_ep.ElasticBuffer(group, num_max_tokens_per_rank=most, hidden=hidden, explicitly_destroy=True)

    def steps(x: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        _, _, per_expert, in_rank, event = buffer.get_dispatch_layout(ids, experts, async_finish=True)
        rows, _, _, _, handle, event = buffer.dispatch(
            x * 2, topk_idx=ids, topk_weights=weights, num_tokens_per_expert=per_expert, is_token_in_rank=in_rank,
            previous_event=event, async_finish=True,
        )
        event.current_stream_wait()
        x = buffer.combine(rows * handle[4].shape[1], handle)[0]
        rows, _, _, handle, event = elastic.dispatch(x / 2, ids, weights, num_experts=experts)
        counts = handle.psum_num_recv_tokens_per_expert
        return elastic.combine(rows * (1 + 0 * counts[-1]), handle, previous_event=elastic.capture())[0] + 1

    check(group, steps)
    buffer.destroy()
    elastic.destroy()


def buffers(group: Any) -> None:
    """switchyard.Buffer and LowLatencyBuffer."""
    with switchyard.Communicator.from_torch(group) as communicator:
        sizes = {"max_tokens": most, "hidden": hidden, "num_experts": experts, "top_k": top_k}
        engine = "cuda" if here(torch.zeros(1)).is_cuda else "cpu"
        buffer = switchyard.Buffer(communicator, engine=engine, **sizes)
        decoder = switchyard.LowLatencyBuffer(communicator, engine=engine, **sizes)

        def steps(x: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            routed = buffer.dispatch(x * 2, ids, weights)
            x = buffer.combine(routed.x * 3, routed.handle, bias0=x).x
            sent, hook = decoder.send_dispatch(x / 4, ids)
            hook()
            return decoder.combine(sent.x * 3, sent.handle, topk_weights=weights) + 1

        check(group, steps)
        buffer.destroy()
        decoder.destroy()
