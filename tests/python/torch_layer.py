"""A layer of experts, with ranks and without, for tests of switchyard.torch."""

from __future__ import annotations

from typing import Any, Callable

import reference
import switchyard
import switchyard.torch as sy
import torch


def matrices_of(experts: int, hidden: int) -> torch.Tensor:
    """[experts, hidden, hidden], the same on all ranks."""
    return torch.randn(experts, hidden, hidden, generator=torch.Generator().manual_seed(5)) / hidden**0.5


def run_experts(matrices: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Rows grouped by expert through a matrix each."""

    def run(rows: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        parts = rows.split(counts.tolist())
        return torch.cat([torch.tanh(part @ matrix) for part, matrix in zip(parts, matrices)])

    return run


def dense(x: Any, ids: Any, weights: Any, matrices: Any) -> torch.Tensor:
    """The layer without ranks."""
    every = torch.tanh(torch.einsum("nh,ehg->neg", x, matrices))
    picked = every[torch.arange(len(x)).unsqueeze(1), ids.clamp(min=0)]
    return (picked * (weights * (ids >= 0)).unsqueeze(2)).sum(1)


def check_compiled(buffer: switchyard.Buffer, mine: reference.Inputs) -> None:
    """torch.compile makes of a dispatch and a combine what they are without it, gradients included."""

    def layer(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        routed = sy.dispatch(buffer, x, mine.topk_idx, weights)
        return sy.combine(buffer, torch.tanh(routed.x) * routed.topk_weights.sum(1, keepdim=True), routed)

    results = []
    for function in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
        x, weights = mine.x.clone().requires_grad_(), mine.topk_weights.clone().requires_grad_()
        y = function(x, weights)
        y.square().sum().backward()
        results.append((y.detach(), x.grad, weights.grad))
    for eager, compiled in zip(*results):
        torch.testing.assert_close(eager, compiled)
