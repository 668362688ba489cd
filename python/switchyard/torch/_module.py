"""A layer whose experts are spread over the ranks."""

from __future__ import annotations

from typing import Callable

from torch import Tensor, nn

from .._buffer import Buffer
from ._functions import combine, dispatch

Experts = Callable[[Tensor, Tensor], Tensor]


class MoEDispatcher(nn.Module):
    """Runs the experts of all ranks on the tokens of all ranks.

    Args:
        buffer: a buffer of the ranks that hold the experts.
        experts: runs the experts of this rank. It takes rows [n, H], grouped by local expert, and tokens_per_expert
            [L] int64 on the CPU, and returns [n, H]. Padding rows are zeros and have no effect.
        expert_alignment: the rows of each expert start at a multiple of it.
    """

    def __init__(self, buffer: Buffer, experts: Experts, *, expert_alignment: int = 1) -> None:
        super().__init__()
        self.buffer = buffer
        self.experts = experts
        self.expert_alignment = expert_alignment

    def forward(self, x: Tensor, topk_idx: Tensor, topk_weights: Tensor) -> Tensor:
        """Returns [N, H]: for each token the weighted sum of its experts' outputs.

        Args:
            x: [N, H] bfloat16, float16 or float32.
            topk_idx: [N, K] int64 or int32; -1: slot not used.
            topk_weights: [N, K] float32.
        """
        routed = dispatch(
            self.buffer, x, topk_idx, topk_weights, layout="expanded", expert_alignment=self.expert_alignment
        )
        outputs = self.experts(routed.x, routed.tokens_per_expert)
        weighted = outputs * routed.topk_weights.unsqueeze(1).to(outputs.dtype)
        return combine(self.buffer, weighted, routed)
