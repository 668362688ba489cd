"""The handle of a dispatch."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import switchyard
import torch
from switchyard import Handle, Unusable

from ._layout import layout_of
from ._lazy import LazyTuple
from ._prefix_sums import exchanged_ends


class Routing(NamedTuple):
    """What a dispatch was asked, as far as the fields of its handle tell of it, or it may be asked again."""

    topk_idx: torch.Tensor | None
    is_token_in_rank: torch.Tensor | None
    """As the caller gave it; None: topk_idx says it."""
    num_worst_tokens: int
    communicator: switchyard.Communicator


class DispatchHandle(LazyTuple):
    """What combine and a cached dispatch take; callers may keep it and pass it on.

    Reads as the tuple (rank_prefix_matrix, channel_prefix_matrix, recv_channel_prefix_matrix, recv_src_idx,
    is_token_in_rank, send_head). The fields are made when they are first read.

    Attributes:
        core: the switchyard.Handle.
        buffer: the buffer of the dispatch.
        routing: of the dispatch.
    """

    _size = 6
    core: Handle
    buffer: switchyard.Buffer
    routing: Routing

    def __init__(self, core: Handle, buffer: switchyard.Buffer, routing: Routing) -> None:
        self.core = core
        self.buffer = buffer
        self.routing = routing

    @property
    def is_token_in_rank(self) -> torch.Tensor:
        """[N, R] bool."""
        routing = self.routing
        if routing.is_token_in_rank is not None:
            return routing.is_token_in_rank
        return layout_of(routing.topk_idx, self.buffer.num_experts, routing.communicator.size)[2]

    def _make(self, at: int) -> Any:
        return _fields[at](self)

    def __repr__(self) -> str:
        return f"DispatchHandle(num_tokens={self.core.num_tokens}, num_recv_rows={self.core.num_recv_rows})"


def _recv_channel_prefix_matrix(handle: DispatchHandle) -> torch.Tensor:
    in_rank = handle.is_token_in_rank
    return torch.zeros(in_rank.shape[1], 1, dtype=torch.int32, device=in_rank.device)


_fields: tuple[Callable[[DispatchHandle], torch.Tensor], ...] = (
    lambda handle: exchanged_ends(handle.is_token_in_rank.sum(0), handle.routing.communicator),
    lambda handle: handle.is_token_in_rank.sum(0, dtype=torch.int32).unsqueeze(1),
    _recv_channel_prefix_matrix,
    lambda handle: source_tokens(handle.core),
    lambda handle: handle.is_token_in_rank,
    lambda handle: send_head(handle.is_token_in_rank),
)


def source_tokens(handle: Handle) -> torch.Tensor:
    """[n] int32: indices of the received rows' tokens on their source ranks."""
    kept = handle.source_tokens
    if kept is None:
        raise Unusable("recv_src_idx: it lay beside the received rows, which are gone: read it before they go")
    tokens = torch.utils.dlpack.from_dlpack(kept)
    return tokens.clone() if tokens.is_cuda else tokens  # which does not keep the rows


def send_head(is_token_in_rank: torch.Tensor) -> torch.Tensor:
    """[N, R] int32: which of this rank's rows for a rank a token is; -1 where it does not go."""
    rows = is_token_in_rank.int().cumsum(0, dtype=torch.int32) - 1
    return rows.masked_fill(~is_token_in_rank, -1)
