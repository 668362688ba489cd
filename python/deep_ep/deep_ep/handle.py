"""The handle of a dispatch."""

from __future__ import annotations

from typing import Any, Callable, Iterator

import torch
from switchyard import Handle, Unusable

Field = Callable[[], Any]


class DispatchHandle(tuple):  # type: ignore[type-arg]
    """What combine and a cached dispatch take; callers may keep it and pass it on.

    Reads as the tuple (rank_prefix_matrix, channel_prefix_matrix, recv_channel_prefix_matrix, recv_src_idx,
    is_token_in_rank, send_head). The fields are made when they are first read.

    Attributes:
        core: the switchyard.Handle.
        buffer: the buffer of the dispatch.
    """

    core: Handle
    buffer: Any
    _fields_: tuple[Field, ...]
    _made: dict[int, Any]

    def __new__(cls, core: Handle, buffer: Any, fields: tuple[Field, ...]) -> DispatchHandle:
        self = tuple.__new__(cls)
        self.core = core
        self.buffer = buffer
        self._fields_ = fields
        self._made = {}
        return self

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(6)))
        at = range(6)[index]
        if at not in self._made:
            self._made[at] = self._fields_[at]()
        return self._made[at]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(6))

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
