"""The handle of a dispatch."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import torch
from switchyard import Handle, Unusable

from ._lazy import LazyTuple

Field = Callable[[], Any]


class WorstCase(NamedTuple):
    """What a dispatch with num_worst_tokens was asked, to be asked again."""

    topk_idx: torch.Tensor
    num_worst_tokens: int


class DispatchHandle(LazyTuple):
    """What combine and a cached dispatch take; callers may keep it and pass it on.

    Reads as the tuple (rank_prefix_matrix, channel_prefix_matrix, recv_channel_prefix_matrix, recv_src_idx,
    is_token_in_rank, send_head). The fields are made when they are first read.

    Attributes:
        core: the switchyard.Handle.
        buffer: the buffer of the dispatch.
        worst_case: None unless the dispatch had num_worst_tokens.
    """

    _size = 6
    core: Handle
    buffer: Any
    worst_case: WorstCase | None
    _fields_: tuple[Field, ...]

    def __init__(
        self, core: Handle, buffer: Any, fields: tuple[Field, ...], worst_case: WorstCase | None = None
    ) -> None:
        self.core = core
        self.buffer = buffer
        self.worst_case = worst_case
        self._fields_ = fields

    def _make(self, at: int) -> Any:
        return self._fields_[at]()

    def __repr__(self) -> str:
        return f"DispatchHandle(num_tokens={self.core.num_tokens}, num_recv_rows={self.core.num_recv_rows})"


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
