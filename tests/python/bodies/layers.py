"""switchyard.torch as ranks of a group use it, on either device. Each function checks itself."""

from __future__ import annotations

from typing import Any, Callable

import reference
import switchyard
import switchyard.torch as sy
import torch
import torch.distributed as dist
from devices import device, here
from torch.utils.checkpoint import checkpoint

tokens, hidden, experts, top_k = 9, 16, 10, 3


def matrices_of(experts: int, hidden: int) -> torch.Tensor:
    """Returns [experts, hidden, hidden], the same on all ranks."""
    return torch.randn(experts, hidden, hidden, generator=torch.Generator().manual_seed(5)) / hidden**0.5


def run_experts(matrices: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Returns experts that multiply their rows by a matrix each."""

    def run(rows: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        parts = rows.split(counts.tolist())
        return torch.cat([torch.tanh(part @ matrix) for part, matrix in zip(parts, matrices)])

    return run


def dense(x: Any, ids: Any, weights: Any, matrices: Any) -> torch.Tensor:
    """Returns the output of the layer in this process alone."""
    every = torch.tanh(torch.einsum("nh,ehg->neg", x, matrices))
    picked = every[torch.arange(len(x)).unsqueeze(1), ids.clamp(min=0)]
    return (picked * (weights * (ids >= 0)).unsqueeze(2)).sum(1)


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
    """Returns the output, and gradients of inputs and of this rank's experts, which are sums over all ranks."""
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
    """The module forward and backward, also with checkpoints. On a GPU backward runs in a thread of autograd."""
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
    """<dispatch(x), g> == <x, backward(g)>, summed over ranks; the same holds for the weights and for combine."""
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
            again = x.detach().clone().requires_grad_()
            cached = sy.dispatch_cached(buffer, again, routed)
            assert torch.equal(cached, routed.x.detach())
            cached.backward(gx)
            torch.testing.assert_close(again.grad, x.grad)
            mine_of_both = [
                (routed.x.detach() * gx).sum(), (routed.topk_weights.detach() * gw).sum(), (y.detach() * gy).sum(),
                (x.grad * mine.x).sum(), (weights.grad * mine.topk_weights).sum(), (rows.grad * rows.detach()).sum(),
            ]
            everybody: list[Any] = [None] * group.size()
            dist.all_gather_object(everybody, [each.item() for each in mine_of_both], group)
            sides = torch.tensor(everybody).sum(0)
            torch.testing.assert_close(sides[:3], sides[3:], rtol=1e-3, atol=1e-3)


def compiled(group: Any) -> None:
    """torch.compile changes nothing about a dispatch and a combine, gradients included."""
    mine = here(_inputs(group.rank()))
    with _buffer(group) as buffer:

        def layer(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            routed = sy.dispatch(buffer, x, mine.topk_idx, weights)
            return sy.combine(buffer, torch.tanh(routed.x) * routed.topk_weights.sum(1, keepdim=True), routed)

        results = []
        for function in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
            x, weights = mine.x.clone().requires_grad_(), mine.topk_weights.clone().requires_grad_()
            y = function(x, weights)
            y.square().sum().backward()
            results.append((y.detach(), x.grad, weights.grad))
        for eager, other in zip(*results):
            torch.testing.assert_close(eager, other)
