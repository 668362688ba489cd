"""The handle of a dispatch of ElasticBuffer."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import switchyard
import torch
from switchyard.interop import opaque_calls

from . import _layout
from ._elastic_sizes import Routing, most_rows


class Plan(NamedTuple):
    """Arguments of a dispatch. A cached dispatch repeats them."""

    do_expand: bool
    num_experts: int
    expert_alignment: int
    num_max_tokens_per_rank: int
    """0: not given."""
    num_worst_tokens: int
    """Rows of the result; 0: as many as are received, for which the host waits."""
    num_sms: int
    """CUDA; 0: the engine chooses."""


_like = torch.empty(0, device="cpu")  # tensors of the engine are shown as tensors of its framework

# The number that callers see when the engine chooses.
theoretical_num_sms = 16


def _of_plan(name: str) -> Any:
    """Returns a property with the plan's value."""

    def value(self: EPHandle) -> Any:
        return getattr(self.plan, name)

    return cached_property(value)


@opaque_calls
class EPHandle:
    """The handle that combine and cached dispatches take. Callers may keep it and pass it on.

    N tokens of this rank, K top-k, R ranks, L local experts. Tensors lie on the device of the dispatched ones. After an
    asynchronous dispatch read them when its event is done: on the CPU a read waits for it, on the GPU the tensors are
    computed on the current stream.

    Attributes:
        do_expand: True: the expanded layout, a row per (token, local expert); False: the flat one, a row per token.
        num_experts, expert_alignment, num_max_tokens_per_rank: as given to the dispatch.
        num_sms: as given to the dispatch, or get_theoretical_num_sms.
        num_recv_tokens_per_expert_list: for each local expert its rows, rounded up to expert_alignment; empty without
            CPU sync.
        token_metadata_at_forward, channel_linked_list: None: the engine keeps what it forwards by itself.
        core, buffer: the switchyard.Handle and the switchyard.Buffer of the dispatch.
    """

    token_metadata_at_forward = None
    channel_linked_list = None

    def __init__(
        self,
        plan: Plan,
        buffer: switchyard.Buffer,
        core: switchyard.Handle,
        tokens_per_expert: list[int],
        num_scaleup_ranks: int,
    ) -> None:
        self.plan = plan
        self._num_scaleup_ranks = num_scaleup_ranks
        self.core = core
        self.buffer = buffer
        self.num_recv_tokens_per_expert_list = tokens_per_expert

    # Not attributes from the beginning: setting them takes longer than most handles are asked for them.
    do_expand = _of_plan("do_expand")
    num_experts = _of_plan("num_experts")
    expert_alignment = _of_plan("expert_alignment")
    num_max_tokens_per_rank = _of_plan("num_max_tokens_per_rank")

    @cached_property
    def topk_idx(self) -> torch.Tensor:
        """[N, K], a copy of what was given to the dispatch, or (do_handle_copy=False) that itself.

        The dispatch makes the copy, so after an asynchronous one it is valid behind its event.
        """
        ids: Any = self.core.kept_ids(_like)
        return ids

    @cached_property
    def num_sms(self) -> int:
        return self.plan.num_sms or theoretical_num_sms

    @cached_property
    def num_expanded_tokens(self) -> int:
        """Rows of the expanded layout, whichever layout the dispatch has, padding included; without CPU sync the most
        there may be.
        """
        if self.plan.num_worst_tokens == 0:
            return sum(self.num_recv_tokens_per_expert_list)
        num_ranks, top_k = self.buffer.communicator.size, self.topk_idx.shape[1]
        routing = Routing(num_ranks, self.num_experts, top_k, self.num_max_tokens_per_rank)
        return most_rows(routing, True, self.expert_alignment)

    def _counts(self) -> torch.Tensor | None:
        """Returns the counts that the engine keeps in GPU memory; None: the host knows them."""
        counts: Any = self.core.recv_counts(_like)
        return counts

    @cached_property
    def num_recv_tokens_per_expert(self) -> torch.Tensor:
        """[L] int32: rows of each local expert, without padding."""
        counts = self._counts()
        if counts is not None:
            return _layout.rows_of_experts(counts, self.buffer.num_local_experts)
        rows: Any = self.core.real_tokens(self.topk_idx)
        return rows.to(self.topk_idx.device) if self.topk_idx.is_cuda else rows

    @property
    def num_unaligned_recv_tokens_per_expert(self) -> torch.Tensor:
        """The same under DeepEP's name."""
        return self.num_recv_tokens_per_expert

    @cached_property
    def psum_num_recv_tokens_per_expert(self) -> torch.Tensor:
        """[L] int32: inclusive sums of the rows of local experts, each rounded up to expert_alignment.

        In the expanded layout the end of each expert's real rows instead: the rows of expert l start at psum[l - 1]
        rounded up to expert_alignment, and those of expert 0 start at 0.
        """
        return _layout.ends_of_experts(self.num_recv_tokens_per_expert, self.expert_alignment, not self.do_expand)

    @cached_property
    def num_recv_tokens(self) -> int:
        """Tokens received, each counted once; without CPU sync the most there may be.

        For CUDA tensors in the expanded layout reading it is collective, as is psum_num_recv_tokens_per_scaleup_rank.
        """
        if self.plan.num_worst_tokens > 0:
            return self.buffer.communicator.size * self.num_max_tokens_per_rank
        if not self.do_expand:
            return self.core.num_recv_rows
        return int(self.psum_num_recv_tokens_per_scaleup_rank[-1])

    @cached_property
    def recv_src_metadata(self) -> torch.Tensor:
        """[num_recv_tokens, 2 + K] int32: where each token received came from, by source rank, then token.

        Column 0 is source rank * num_max_tokens_per_rank (if that was not given: the most tokens of a rank) + the
        token's index there. Column 1 is source rank * K + the last slot that chose an expert of this rank. Column 2 + k
        is the row of slot k in the expanded layout, -1 where it chose another rank's expert; in the flat layout all are
        -1. Without CPU sync rows past those of real tokens are -1.

        The ranks exchange their ids, and the host waits: all ranks must read this, or none.
        """
        communicator = self.buffer.communicator
        ids = _layout.exchanged_ids(self.topk_idx, self.num_experts, communicator)
        own = _layout.local_range(self.num_experts, communicator.rank, communicator.size)
        most = self.num_max_tokens_per_rank or max(map(len, ids))
        rows = _layout.sources_of_rows(ids, own, most, self.expert_alignment)
        if not self.do_expand:
            rows[:, 2:] = -1
        if self.plan.num_worst_tokens > 0:
            rows = torch.nn.functional.pad(rows, (0, 0, 0, self.num_recv_tokens - len(rows)), value=-1)
        return rows.to(self.topk_idx.device)

    @cached_property
    def dst_buffer_slot_idx(self) -> torch.Tensor:
        """[N, K] int32: the number of a slot's token among this rank's tokens for the rank of its expert; -1: not used.

        Upstream's are slots of its receive buffers, which do not exist here.
        """
        num_ranks = self.buffer.communicator.size
        in_rank = _layout.layout_of(self.topk_idx, self.num_experts, num_ranks)[2]
        number = in_rank.int().cumsum(0, dtype=torch.int32) - 1
        used = (self.topk_idx >= 0) & (self.topk_idx < self.num_experts)
        rank = _layout.ranks_of(self.topk_idx.long().where(used, 0), self.num_experts, num_ranks)
        return number.gather(1, rank).where(used, -1)

    def deterministic_sort(self, *_: Any, **__: Any) -> None:
        """Does nothing, since rows always come in the same order."""

    @cached_property
    def psum_num_recv_tokens_per_scaleup_rank(self) -> torch.Tensor:
        """[R] int32: tokens received from all ranks up to each; in the flat layout, where the rows of each end.

        Over nodes [scale-up ranks] int32: tokens received from all ranks with scale-up indexes up to each.

        For CUDA tensors in the expanded layout the ranks exchange counts, and the host waits: all ranks must read this,
        or none.
        """
        ends = _layout.ends_of_ranks(self.core, self._counts(), self.do_expand)
        if ends is None:
            ends = self._exchanged_ends_of_ranks()
        if len(ends) > self._num_scaleup_ranks:
            received = ends.diff(prepend=ends.new_zeros(1)).view(-1, self._num_scaleup_ranks)
            ends = received.sum(0).cumsum(0, dtype=torch.int32)
        return ends.to(self.topk_idx.device)

    def _exchanged_ends_of_ranks(self) -> torch.Tensor:
        communicator = self.buffer.communicator
        sent, _, _ = _layout.layout_of(self.topk_idx, self.num_experts, communicator.size)
        return _layout.exchanged_ends(sent, communicator)[:, communicator.rank].contiguous()

    def __repr__(self) -> str:
        layout = "expanded" if self.do_expand else "flat"
        return f"EPHandle({layout}, num_tokens={self.core.num_tokens}, num_experts={self.num_experts})"
