"""Handles of V1: tuples whose items are made when they are first read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, ClassVar, Iterator, NamedTuple

import switchyard
import torch
from switchyard import Handle, InvalidArgument, Unusable, interop

from ._layout import exchanged_ends, layout_of

if TYPE_CHECKING:
    from typing_extensions import Self


class LazyTuple(tuple):  # type: ignore[type-arg]
    """Reads as a tuple of `_size` items, each made when it is first read. It is equal to itself alone.

    Underneath it is an empty tuple, which is what C code sees that reads it directly (`"%s" % handle`).
    """

    _size: ClassVar[int]
    _made: dict[int, Any]

    def __new__(cls, *_: Any) -> Self:
        self = tuple.__new__(cls)
        self._made = {}
        return self

    def _make(self, at: int) -> Any:
        raise NotImplementedError

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(self._size)))
        at = range(self._size)[index]
        if at not in self._made:
            self._made[at] = self._make(at)
        return self._made[at]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(self._size))

    def __contains__(self, item: object) -> bool:
        return item in tuple(iter(self))

    def __add__(self, other: Any) -> Any:
        return tuple(iter(self)) + other

    def __radd__(self, other: Any) -> Any:
        return other + tuple(iter(self))

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def __hash__(self) -> int:
        return id(self)


# ---- throughput mode ----


class Routing(NamedTuple):
    """Arguments of a dispatch that its handle shows, or that a cached dispatch uses again."""

    topk_idx: torch.Tensor | None
    """A copy, if it is needed later."""
    is_token_in_rank: torch.Tensor | None
    """As the caller gave it; None: topk_idx says it."""
    num_worst_tokens: int
    communicator: switchyard.Communicator


class DispatchHandle(LazyTuple):
    """The handle that combine and cached dispatches take. Callers may keep it and pass it on.

    It reads as the tuple (rank_prefix_matrix, channel_prefix_matrix, recv_channel_prefix_matrix, recv_src_idx,
    is_token_in_rank, send_head). The items are made when they are first read.

    Attributes:
        core: the switchyard.Handle.
        buffer: the switchyard.Buffer of the dispatch.
        routing: arguments of the dispatch.
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
        """[N, R] bool: whether a rank receives a token."""
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
    """Returns [n] int32: indices of the received rows' tokens on their source ranks."""
    kept = handle.source_tokens
    if kept is None:
        raise Unusable("recv_src_idx: it shared memory with the received rows, which are freed: read it before that")
    tokens = torch.utils.dlpack.from_dlpack(kept)
    return tokens.clone() if tokens.is_cuda else tokens  # on a GPU `tokens` would keep the received rows


def send_head(is_token_in_rank: torch.Tensor) -> torch.Tensor:
    """Returns [N, R] int32: the number of a token among this rank's rows for a rank; -1 if it does not go there."""
    rows = is_token_in_rank.int().cumsum(0, dtype=torch.int32) - 1
    return rows.masked_fill(~is_token_in_rank, -1)


# ---- low-latency mode ----


class LowLatencyHandle(LazyTuple):
    """(src_info [L, M*R] int32, layout_range [L, R] int64: begin << 32 | count, M, H, E).

    The first two are made when they are first read. They lie in the slots of the dispatch, which the handle holds until
    it is combined, since programs keep handles of many layers. After the combine they can no longer be read; tensors
    that were read before stay valid, and hold the slots.

    Attributes:
        buffer: the switchyard.LowLatencyBuffer of the dispatch.
        topk_idx: as given to the dispatch.
    """

    _size = 5
    buffer: switchyard.LowLatencyBuffer
    topk_idx: torch.Tensor | None
    _received: interop.LowLatencyResult | None
    _sizes: tuple[int, int, int]

    def __init__(
        self,
        received: interop.LowLatencyResult,
        buffer: switchyard.LowLatencyBuffer,
        topk_idx: torch.Tensor,
        sizes: tuple[int, int, int],
    ) -> None:
        self._received = received
        self.buffer = buffer
        self.topk_idx = topk_idx
        self._sizes = sizes

    @property
    def core(self) -> switchyard.LowLatencyHandle:
        """The handle for the engine. Raises InvalidArgument if the dispatch was combined."""
        if self._received is None:
            raise InvalidArgument("handle: expected one of a dispatch that was not combined yet, seen one that was")
        return self._received.handle

    def release(self) -> None:
        """Releases the slots of the dispatch, once its combine is queued.

        The combine may still run, and nobody needs to wait for it: a later kernel in stream order gives the frame back,
        and a receive half that is still to come holds the frame by itself (docs/low-latency.md, "Giving a frame back").
        """
        self._received = self.topk_idx = None
        self._made.clear()

    def _make(self, at: int) -> Any:
        if at >= 2:
            return self._sizes[at - 2]
        if self._received is None:
            raise Unusable("handle: src_info and layout_range can be read only before its combine: keep the tensors")
        return self._received.ranges if at else self._received.source_token

    def __repr__(self) -> str:
        return f"LowLatencyHandle(max_tokens, hidden, num_experts = {self._sizes}, combined = {self._received is None})"
