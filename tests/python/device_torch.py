"""switchyard.torch as ranks of a group use it, on either device; each function checks itself."""

from __future__ import annotations

from typing import Any

import reference
import switchyard
import switchyard.torch as sy
import torch
import torch.distributed as dist
from devices import device, here
from torch.utils.checkpoint import checkpoint
from torch_layer import check_compiled, dense, matrices_of, run_experts

tokens, hidden, experts, top_k = 9, 16, 10, 3


def _inputs(rank: int) -> reference.Inputs:
    return reference.make_inputs(
        rank, tokens=tokens - rank % 3, hidden=hidden, experts=experts, top_k=top_k, dtype=torch.float32
    )


def _buffer(group: Any) -> switchyard.Buffer:
    return switchyard.Buffer(
        switchyard.Communicator.from_torch(group),
        max_tokens=tokens,
        hidden=hidden,
        num_experts=experts,
        top_k=top_k,
    )


def _expected(rank: int, size: int) -> tuple[torch.Tensor, ...]:
    """Output, and gradients of inputs and of this rank's experts, which are summed over all ranks."""
    matrices = matrices_of(experts, hidden).requires_grad_()
    results = []
    for each in map(_inputs, range(size)):
        x, weights = each.x.requires_grad_(), each.topk_weights.requires_grad_()
        y = dense(x, each.topk_idx, weights, matrices)
        y.square().sum().backward()
        results.append((y.detach(), x.grad, weights.grad))
    own = reference.experts_of(rank, experts, size)
    return *results[rank], matrices.grad[own.start : own.stop]


def layer(group: Any) -> None:
    """The module forward and backward, also with checkpoints; backward runs in autograd's own thread on a GPU."""
    rank, size = group.rank(), group.size()
    own = reference.experts_of(rank, experts, size)
    expected = _expected(rank, size)
    with _buffer(group) as buffer:
        for alignment, wrap in ((1, False), (4, False), (1, True)):
            matrices = here(matrices_of(experts, hidden)[own.start : own.stop]).requires_grad_()
            mine = here(_inputs(rank))
            x, weights = mine.x.requires_grad_(), mine.topk_weights.requires_grad_()
            module = sy.MoEDispatcher(buffer, run_experts(matrices), expert_alignment=alignment)
            arguments = x, mine.topk_idx, weights
            y = checkpoint(module, *arguments, use_reentrant=False) if wrap else module(*arguments)
            y.square().sum().backward()
            for seen, wanted in zip((y, x.grad, weights.grad, matrices.grad), expected):
                assert seen.device == device()
                torch.testing.assert_close(seen.detach().cpu(), wanted, rtol=1e-4, atol=1e-5)


def transposed_maps(group: Any) -> None:
    """<dispatch(x), g> == <x, backward(g)>, and so for the weights and for combine: summed over ranks."""
    mine = here(_inputs(group.rank()))
    with _buffer(group) as buffer:
        for layout in ("flat", "expanded"):
            x, weights = mine.x.clone().requires_grad_(), mine.topk_weights.clone().requires_grad_()
            routed = sy.dispatch(buffer, x, mine.topk_idx, weights, layout=layout)
            assert routed.token.device.type == "cpu" and routed.x.device == device()
            gx, gw = torch.randn_like(routed.x), torch.randn_like(routed.topk_weights)
            torch.autograd.backward([routed.x, routed.topk_weights], [gx, gw])
            rows = torch.randn_like(routed.x).requires_grad_()
            y = sy.combine(buffer, rows, routed)
            gy = torch.randn_like(y)
            y.backward(gy)
            mine_of_both = [
                (routed.x.detach() * gx).sum(), (routed.topk_weights.detach() * gw).sum(), (y.detach() * gy).sum(),
                (x.grad * mine.x).sum(), (weights.grad * mine.topk_weights).sum(), (rows.grad * rows.detach()).sum(),
            ]
            everybody: list[Any] = [None] * group.size()
            dist.all_gather_object(everybody, [each.item() for each in mine_of_both], group)
            sides = torch.tensor(everybody).sum(0)
            torch.testing.assert_close(sides[:3], sides[3:], rtol=1e-3, atol=1e-3)


def compiled(group: Any) -> None:
    with _buffer(group) as buffer:
        check_compiled(buffer, here(_inputs(group.rank())))
