"""What calls return. Tensors are made when they are first read, and then kept."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

from . import _core
from ._frameworks import native


class Layout(NamedTuple):
    """What a dispatch would send to whom. R ranks, E experts, N tokens of this rank."""

    num_tokens_per_rank: Any
    """[R] int32: rows that this rank sends to each rank."""
    num_tokens_per_expert: Any
    """[E] int32."""
    is_token_in_rank: Any
    """[N, R] bool."""


class Dispatched:
    """What a rank received: n rows.

    Tensors are of the framework of the dispatched x, and share one block of the heap, which is freed when the last
    of them goes.
    """

    def __init__(self, core: _core.DispatchResult, kind: type) -> None:
        self._core = core
        self._kind = kind

    @cached_property
    def x(self) -> Any:
        """[n, H], dtype of the input, or float8_e4m3fn after a cast.

        Flat layout: by source rank, then token. Expanded: by local expert, then source rank, then token.
        """
        return native(self._core.x, self._kind)

    @cached_property
    def scales(self) -> Any:
        """[n, ceil(H/128)] float32, for float8_e4m3fn; else None."""
        return native(self._core.scales, self._kind)

    @cached_property
    def topk_idx(self) -> Any:
        """[n, K], dtype as given: local expert ids, -1 where not ours. None in the expanded layout."""
        return native(self._core.topk_idx, self._kind)

    @cached_property
    def topk_weights(self) -> Any:
        """Flat: [n, K] float32, 0 where not ours; expanded: [n] float32. None when no weights were given."""
        return native(self._core.topk_weights, self._kind)

    @cached_property
    def source_token(self) -> Any:
        """[n] int32: index of the token on its source rank, -1 in rows that only pad."""
        return native(self._core.source_token, self._kind)

    @cached_property
    def tokens_per_expert(self) -> list[int]:
        """Rows of each local expert, rounded up to expert_alignment. Empty without topk_idx and in worst-case mode."""
        return self._core.tokens_per_expert

    @cached_property
    def handle(self) -> _core.Handle:
        """For combine, and for cached dispatches."""
        return self._core.handle


class Combined:
    """The sums that a rank gets back."""

    def __init__(self, core: _core.CombineResult, kind: type, out: Any) -> None:
        self._core = core
        self._kind = kind
        self._out = out

    @cached_property
    def x(self) -> Any:
        """[N, H], dtype of the input; `out` if that was given."""
        return self._out if self._out is not None else native(self._core.x, self._kind)

    @cached_property
    def topk_weights(self) -> Any:
        """[N, K] float32; None unless weights were passed."""
        return native(self._core.topk_weights, self._kind)


class PendingDispatched:
    """A dispatch that is under way."""

    def __init__(self, core: _core.PendingDispatch, kind: type) -> None:
        self._core = core
        self._kind = kind

    @property
    def event(self) -> _core.Event:
        """Completes with the call."""
        return self._core.event

    @property
    def handle(self) -> _core.Handle:
        """Without waiting: for a combine that is queued behind this dispatch."""
        return self._core.handle

    def early(self) -> Dispatched:
        """Without waiting: tensors whose contents are valid after `event`: in worst-case mode, on a GPU always.

        Else only the handle, until the event is done.
        """
        return Dispatched(self._core.early(), self._kind)

    def get(self) -> Dispatched:
        """Waits for the result, and raises what the call raised."""
        return Dispatched(self._core.get(), self._kind)


class PendingCombined:
    """A combine that is under way."""

    def __init__(self, core: _core.PendingCombine, kind: type, out: Any) -> None:
        self._core = core
        self._kind = kind
        self._out = out

    @property
    def event(self) -> _core.Event:
        """Completes with the call."""
        return self._core.event

    def early(self) -> Combined:
        """Without waiting: tensors whose contents are valid after `event`. CPU engine: `out`, if given.

        The CPU engine's others are None until the event is done.
        """
        return Combined(self._core.early(), self._kind, self._out)

    def get(self) -> Combined:
        """Waits for the result, and raises what the call raised."""
        return Combined(self._core.get(), self._kind, self._out)
