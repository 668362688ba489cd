"""What calls return. Tensors are made when they are first read, and then kept."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

from ._compiled import opaque_calls
from ._core import (
    CombineResult,
    DispatchResult,
    Event,
    Handle,
    LowLatencyHandle,
    LowLatencyResult,
    PendingCombine,
    PendingDispatch,
)
from ._core import ReceiveHook as CoreHook
from ._frameworks import native


class _LayoutOfRanks(NamedTuple):
    num_tokens_per_rank: Any
    """[R] int32: rows that this rank sends to each rank."""
    num_tokens_per_expert: Any
    """[E] int32: tokens of this rank that chose each expert."""
    is_token_in_rank: Any
    """[N, R] bool: whether a rank receives a token."""


class Layout(_LayoutOfRanks):
    """What a dispatch would send to whom. R ranks, E experts, N tokens of this rank.

    It is a tuple of three tensors; what several nodes have in addition is an attribute.
    """

    num_tokens_per_node: Any = None
    """[nodes] int32: tokens with an expert on a node, which cross to it once each; the own node counts as any other.
    None where all ranks are on one node, and in a layout that was made without a buffer.
    """

    @classmethod
    def of(cls, tensors: tuple[Any, Any, Any, Any]) -> Layout:
        """Takes the tensors of the extension's functions."""
        made = cls(*tensors[:3])
        if tensors[3] is not None:
            made.num_tokens_per_node = tensors[3]
        return made


class _Result:
    """A result of the extension, whose tensors are shown as tensors of the caller's framework."""

    def __init__(self, core: Any, kind: type) -> None:
        self._core = core
        self._kind = kind

    def _tensor(self, name: str) -> Any:
        return native(getattr(self._core, name), self._kind)


@opaque_calls
class Dispatched(_Result):
    """What a rank received: n rows.

    Tensors are of the framework of the dispatched x. They share one block of the heap, which is freed with the last of
    them.
    """

    _core: DispatchResult

    @cached_property
    def x(self) -> Any:
        """[n, H], dtype of the input, or float8_e4m3fn after a cast.

        Flat layout: by source rank, then token. Expanded layout: by local expert, then source rank, then token.
        """
        return self._tensor("x")

    @cached_property
    def scales(self) -> Any:
        """[n, ceil(H/128)] float32 if x is float8_e4m3fn (or int32, as given), else None."""
        return self._tensor("scales")

    @cached_property
    def topk_idx(self) -> Any:
        """[n, K], dtype as given: local expert ids, -1 for experts of other ranks. None in the expanded layout."""
        return self._tensor("topk_idx")

    @cached_property
    def topk_weights(self) -> Any:
        """Flat: [n, K] float32, 0 for experts of other ranks; expanded: [n] float32. None if no weights were given."""
        return self._tensor("topk_weights")

    @cached_property
    def source_token(self) -> Any:
        """[n] int32: index of the token on its source rank; -1 in padding rows."""
        return self._tensor("source_token")

    @cached_property
    def tokens_per_expert(self) -> list[int]:
        """Rows of each local expert, rounded up to expert_alignment. Empty without topk_idx and in worst-case mode."""
        return self._core.tokens_per_expert

    @cached_property
    def handle(self) -> Handle:
        """The handle that combine and cached dispatches take."""
        return self._core.handle


@opaque_calls
class Combined(_Result):
    """The sums that a rank gets back."""

    _core: CombineResult

    def __init__(self, core: CombineResult, kind: type, out: Any) -> None:
        super().__init__(core, kind)
        self._out = out

    @cached_property
    def x(self) -> Any:
        """[N, H], dtype of the input; `out` if that was given."""
        return self._out if self._out is not None else self._tensor("x")

    @cached_property
    def topk_weights(self) -> Any:
        """[N, K] float32; None unless weights were passed."""
        return self._tensor("topk_weights")


class _Pending(_Result):
    """A call that is under way."""

    @property
    def event(self) -> Event:
        """An event that completes with the call."""
        return self._core.event


@opaque_calls
class PendingDispatched(_Pending):
    """A dispatch that is under way."""

    _core: PendingDispatch

    @property
    def handle(self) -> Handle:
        """The handle, without waiting: for a combine that is queued behind this dispatch."""
        return self._core.handle

    def early(self) -> Dispatched:
        """Returns a result without waiting for the call.

        In worst-case mode, and on a GPU in any mode, it has tensors, whose contents are valid after `event`. Otherwise
        it has only the handle until the event is done.
        """
        return Dispatched(self._core.early(), self._kind)

    def get(self) -> Dispatched:
        """Waits for the result, and raises what the call raised."""
        return Dispatched(self._core.get(), self._kind)


@opaque_calls
class PendingCombined(_Pending):
    """A combine that is under way."""

    _core: PendingCombine

    def __init__(self, core: PendingCombine, kind: type, out: Any) -> None:
        super().__init__(core, kind)
        self._out = out

    def early(self) -> Combined:
        """Returns a result without waiting for the call. Contents of its tensors are valid after `event`.

        On the CPU engine tensors other than `out` are None until the event is done.
        """
        return Combined(self._core.early(), self._kind, self._out)

    def get(self) -> Combined:
        """Waits for the result, and raises what the call raised."""
        return Combined(self._core.get(), self._kind, self._out)


@opaque_calls
class LowLatencyReceived(_Result):
    """What a rank received in low-latency mode. Contents are valid after the receive half.

    Tensors lie in the slots of the dispatch. No rank overwrites these as long as one of the tensors, or the handle,
    lives. Rows outside all ranges (expert_major) or counts (rank_major) are undefined.
    """

    _core: LowLatencyResult

    @cached_property
    def x(self) -> Any:
        """expert_major [L, R*M, H or B], rank_major [R, M, H or B]; dtype of the input, float8_e4m3fn after a cast."""
        return self._tensor("x")

    @cached_property
    def scales(self) -> Any:
        """[.., ceil(H/128)] float32; after "fp8_ue8m0" [.., ceil(H/512)] int32; uint8: [.., S]; else None.

        expert_major: the last two dimensions of float32 and int32 scales are column-major.
        """
        return self._tensor("scales")

    @cached_property
    def counts(self) -> Any:
        """int32. expert_major [L]: expert l has the first counts[l] of its rows; rank_major [R]: so has source r."""
        return self._tensor("counts")

    @cached_property
    def ranges(self) -> Any:
        """expert_major [L, R] int64: begin << 32 | count: the rows of a source, in the order of its tokens."""
        return self._tensor("ranges")

    @cached_property
    def source_token(self) -> Any:
        """[L, R*M] or [R, M] int32: index of the token on its source rank."""
        return self._tensor("source_token")

    @cached_property
    def topk_idx(self) -> Any:
        """rank_major [R, M, K] int32: local expert ids, -1 for experts of other ranks; else None."""
        return self._tensor("topk_idx")

    @cached_property
    def topk_weights(self) -> Any:
        """rank_major [R, M, K] float32: 0 for experts of other ranks; None if no weights were given."""
        return self._tensor("topk_weights")

    @cached_property
    def handle(self) -> LowLatencyHandle:
        """The handle that combine and outputs take."""
        return self._core.handle


@opaque_calls
class ReceiveHook:
    """The receive half of a call: `hook()`. Only the first call has an effect.

    Raises what the call raises, and Unusable after destroy().
    """

    __slots__ = ("_core",)

    def __init__(self, core: CoreHook) -> None:
        self._core = core

    def __call__(self, cuda_stream: int | None = None) -> None:
        """Receives on cuda_stream (CUDA engine, an integer); None: the framework's current one."""
        self._core(cuda_stream)
