"""What a dispatch of ElasticBuffer leaves behind."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import switchyard
import torch

from . import _prefix_sums
from ._layout import layout_of


class Plan(NamedTuple):
    """How a dispatch was asked for; a cached one repeats it."""

    do_expand: bool
    num_experts: int
    expert_alignment: int
    num_max_tokens_per_rank: int
    """0: not said."""
    num_worst_tokens: int
    """Rows of the result; 0: as many as come, which the host waits to hear."""
    num_sms: int
    """CUDA; 0: the engine chooses."""


# What callers are told when the engine chooses.
theoretical_num_sms = 16


class EPHandle:
    """What combine and a cached dispatch take; callers may keep it and pass it on.

    N tokens of this rank, K top-k, R ranks, L local experts. Tensors lie where the dispatched ones do. After an
    asynchronous dispatch read them when its event is done: on the CPU they wait for it, on the GPU they are computed on
    the current stream.

    Attributes:
        do_expand: expanded layout: a row per (token, local expert); else flat: a row per token.
        num_experts, expert_alignment, num_max_tokens_per_rank: of the dispatch.
        num_sms: that the dispatch was given, or get_theoretical_num_sms.
        topk_idx: [N, K], as given to the dispatch.
        num_recv_tokens_per_expert_list: L rows of each local expert, rounded up to expert_alignment; empty without CPU
            sync.
        num_expanded_tokens: rows of the expanded layout, padding included; without CPU sync the most there may be.
        core, buffer: the engine's handle, and its buffer.
    """

    def __init__(
        self,
        plan: Plan,
        topk_idx: torch.Tensor,
        buffer: switchyard.Buffer,
        received: Any,
        num_expanded_tokens: int,
    ) -> None:
        self.plan = plan
        self.do_expand = plan.do_expand
        self.num_experts = plan.num_experts
        self.expert_alignment = plan.expert_alignment
        self.num_max_tokens_per_rank = plan.num_max_tokens_per_rank
        self.num_sms = plan.num_sms or theoretical_num_sms
        self.topk_idx = topk_idx
        self.core = received.handle
        self.buffer = buffer
        self.num_recv_tokens_per_expert_list: list[int] = received.tokens_per_expert
        self.num_expanded_tokens = num_expanded_tokens
        self._counts: torch.Tensor | None = received.recv_counts

    @cached_property
    def num_recv_tokens_per_expert(self) -> torch.Tensor:
        """[L] int32: rows of each local expert, without padding."""
        if self._counts is not None:
            return _prefix_sums.rows_of_experts(self._counts, self.buffer.num_local_experts)
        rows = self.core.real_tokens(self.topk_idx)
        return rows.to(self.topk_idx.device) if self.topk_idx.is_cuda else rows

    @cached_property
    def psum_num_recv_tokens_per_expert(self) -> torch.Tensor:
        """[L] int32: where the rows of each local expert end, without its padding.

        Expert l starts at psum[l - 1] rounded up to expert_alignment; the first at 0. (Flat layout: as if expanded.)
        """
        return _prefix_sums.ends_of_experts(self.num_recv_tokens_per_expert, self.expert_alignment)

    @cached_property
    def psum_num_recv_tokens_per_scaleup_rank(self) -> torch.Tensor:
        """[R] int32: tokens received from all ranks up to each; in the flat layout, where its rows end.

        CUDA, expanded layout: made by an exchange between the ranks, which waits on the host: all ranks read it, or
        none.
        """
        ends = _prefix_sums.ends_of_ranks(self.core, self._counts, self.do_expand)
        if ends is None:
            ends = self._exchanged_ends_of_ranks()
        return ends.to(self.topk_idx.device)

    def _exchanged_ends_of_ranks(self) -> torch.Tensor:
        communicator = self.buffer.communicator
        sent, _, _ = layout_of(self.topk_idx, self.num_experts, communicator.size)
        return _prefix_sums.exchanged_ends(sent, communicator)[:, communicator.rank].contiguous()

    def __repr__(self) -> str:
        layout = "expanded" if self.do_expand else "flat"
        return f"EPHandle({layout}, num_tokens={self.core.num_tokens}, num_experts={self.num_experts})"
