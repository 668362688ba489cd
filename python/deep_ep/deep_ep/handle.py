"""Handles of V1: tuples whose items are made when they are first read."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Callable, ClassVar, Iterable, Iterator, NamedTuple, TypeVar

import switchyard
import torch
from switchyard import Handle, InvalidArgument, Unusable, interop
from switchyard.interop import opaque_calls

from ._errors import wrong_type
from ._layout import exchanged_ends, layout_of
from ._nodes import Nodes

if TYPE_CHECKING:
    from typing_extensions import Self


_Record = TypeVar("_Record")

new_tuple = tuple.__new__
_record = "_deep_ep_record"  # PyTorch keeps the attributes of a storage's Python object as long as the storage


def remember(item: torch.Tensor, record: Any) -> torch.Tensor:
    """Returns the item of a handle, whose memory keeps `record` from now on, as long as any tensor of it lives.

    So a handle can be found by its items (see remembered), and items hold what their handle holds. The memory must be
    of the handle alone, not a caller's, and the record must not refer to the item, for nobody finds such a cycle.
    """
    setattr(item.untyped_storage(), _record, record)
    return item


def remembered(items: Iterable[Any], kind: type[_Record]) -> _Record | None:
    """Returns the record that the memory of one of these items keeps, also if it is a view of what was given out.

    Returns None if none of them has a record of this kind.
    """
    for item in items:
        record = getattr(item.untyped_storage(), _record, None) if isinstance(item, torch.Tensor) else None
        if isinstance(record, kind):
            return record
    return None


@opaque_calls
class LazyTuple(tuple):  # type: ignore[type-arg]
    """Reads as a tuple of `_size` items, each made when it is first read. It is equal to itself alone.

    `lazy()` makes one. What is rebuilt of the items, by type(handle)(items) as frameworks do that map over a tuple, by
    copying or by pickling, is a plain tuple.

    Underneath it is an empty tuple, which is what C code sees that reads it directly (`"%s" % handle`).
    """

    _size: ClassVar[int]
    _made: dict[int, Any] | None = None

    def __new__(cls, items: Iterable[Any] = ()) -> Any:
        return tuple(items)

    @classmethod
    def lazy(cls) -> Self:
        return tuple.__new__(cls)

    def __reduce__(self) -> Any:
        return tuple, (list(self),)

    def _make(self, at: int) -> Any:
        raise NotImplementedError

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(self._size)))
        at = range(self._size)[index]
        made = self._made
        if made is None:
            made = self._made = {}
        if at not in made:
            made[at] = self._make(at)
        return made[at]

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
    nodes: Nodes


class FlatDispatch(NamedTuple):
    """A dispatch, as its handle and the items of its handle know it."""

    core: Handle
    buffer: switchyard.Buffer
    routing: Routing


@opaque_calls
class DispatchHandle(LazyTuple):
    """The handle that combine and cached dispatches take. Callers may keep it and pass it on.

    It reads as the tuple (rank_prefix_matrix, channel_prefix_matrix, recv_channel_prefix_matrix, recv_src_idx,
    is_token_in_rank, send_head). The items are made when they are first read. A plain tuple of the items is as good as
    the handle.

    Attributes:
        core: the switchyard.Handle.
        buffer: the switchyard.Buffer of the dispatch.
        routing: arguments of the dispatch.
    """

    _size = 6
    core: Handle
    buffer: switchyard.Buffer
    routing: Routing

    @property
    def is_token_in_rank(self) -> torch.Tensor:
        """[N, R] bool: whether a rank receives a token."""
        routing = self.routing
        if routing.is_token_in_rank is not None:
            return routing.is_token_in_rank
        return layout_of(routing.topk_idx, self.buffer.num_experts, routing.communicator.size)[2]

    _fields: ClassVar[tuple[Callable[[Any], torch.Tensor], ...]] = (
        lambda self: exchanged_ends(self.is_token_in_rank.sum(0), self.routing.communicator),
        lambda self: sent_rows(self),
        lambda self: torch.zeros_like(sent_rows(self)),
        lambda self: source_tokens(self.core),
        lambda self: self.is_token_in_rank,
        lambda self: send_head(self.is_token_in_rank),
    )
    _in_rank: ClassVar[int] = 4  # the item

    def _make(self, at: int) -> Any:
        made = self._fields[at](self)
        # The other items are tensors of our own; is_token_in_rank may be the caller's, or be in the record.
        return made if at == self._in_rank else remember(made, FlatDispatch(self.core, self.buffer, self.routing))

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"{kind}(num_tokens={self.core.num_tokens}, num_recv_rows={self.core.num_recv_rows})"


def flat_dispatch_of(handle: Any) -> FlatDispatch | DispatchHandle:
    """Returns what knows the dispatch of a DispatchHandle (that itself), or of a tuple or list of its items.

    Raises TypeError if it is neither, and InvalidArgument for other items.
    """
    if isinstance(handle, DispatchHandle):
        return handle
    return _dispatch_of_items(handle, FlatDispatch, "what dispatch returned")


def _dispatch_of_items(items: Any, kind: type[_Record], expected: str) -> _Record:
    if not isinstance(items, (tuple, list)) or isinstance(items, LazyTuple):
        raise wrong_type("handle", expected, items)
    found = remembered(items, kind)
    if found is None:
        text = f"handle: expected {expected}, or a tuple of its items, seen a tuple of {len(items)} others"
        raise InvalidArgument(f"{text} (copies of the items do not tell which dispatch it was)")
    return found


def source_tokens(handle: Handle) -> torch.Tensor:
    """Returns [n] int32: indices of the received rows' tokens on their source ranks."""
    kept = handle.source_tokens
    if kept is None:
        raise Unusable("recv_src_idx: it shared memory with the received rows, which are freed: read it before that")
    tokens = torch.utils.dlpack.from_dlpack(kept)
    return tokens.clone() if tokens.is_cuda else tokens  # on a GPU `tokens` would keep the received rows


def sent_rows(handle: DispatchHandle) -> torch.Tensor:
    """Returns [R, 1] int32: rows that this rank sends to each."""
    return handle.is_token_in_rank.sum(0, dtype=torch.int32).unsqueeze(1)


def send_head(is_token_in_rank: torch.Tensor) -> torch.Tensor:
    """Returns [N, R] int32: the number of a token among this rank's rows for a rank; -1 if it does not go there."""
    rows = is_token_in_rank.int().cumsum(0, dtype=torch.int32) - 1
    return rows.masked_fill(~is_token_in_rank, -1)


# ---- low-latency mode ----


class LowLatencyDispatch:
    """A dispatch, as its handle and the items of its handle know it.

    Until the dispatch is combined this holds its slots. Afterwards the tensors of the result alone hold them (recv_x,
    its scales, the buffer for outputs), since programs keep handles of many layers. As long as one of them lives, the
    dispatch can be combined again.

    Attributes:
        received: finds the result, and is the handle for the engine.
        buffer: the switchyard.LowLatencyBuffer of the dispatch.
        topk_idx: as given to the dispatch; None once it was combined.
        sizes: of the call, the last three items of a handle: the most tokens, hidden, the number of experts.
        hook: the hook that receives, if that is to be called yet.
        outputs: memory for the outputs of the next combine, if that is not the first one.
    """

    def __init__(
        self,
        received: interop.WeakLowLatencyResult,
        buffer: switchyard.LowLatencyBuffer,
        topk_idx: torch.Tensor,
        sizes: tuple[int, int, int],
    ) -> None:
        self.received = received
        self.buffer = buffer
        self.topk_idx: torch.Tensor | None = topk_idx
        self.sizes = sizes

    hook: weakref.ref[ReceiveLate] | None = None
    outputs: torch.Tensor | None = None

    @property
    def combined(self) -> bool:
        return not self.received.holds

    def core(self) -> interop.WeakLowLatencyResult:
        """Returns the handle for the engine. Raises InvalidArgument if the slots may have other rows now."""
        if not self.received.alive:
            raise InvalidArgument(
                "handle: expected one of a dispatch whose slots are held, seen one that was combined and whose result "
                "is freed: keep recv_x to combine it again"
            )
        return self.received

    def result(self) -> interop.LowLatencyResult | None:
        """Returns the result; None if nobody holds it any more."""
        found: Any = self.received()
        return found

    def forget_inputs(self) -> None:
        """Releases what a combine has needed, once it is queued, and has released the slots.

        The combine may still run, and nobody needs to wait for it: a later kernel in stream order gives the frame back,
        and a receive half that is still to come holds the frame by itself (docs/low-latency.md, "Giving a frame back").
        """
        self.topk_idx = self.outputs = None

    def item(self, at: int) -> Any:
        """Returns a copy of src_info (0) or layout_range (1), which the hook writes if it is to be called yet."""
        received = self.result()
        if received is None:
            raise Unusable("handle: src_info and layout_range are read while recv_x lives, or before the combine")
        item: Any = received.ranges if at else received.source_token
        hook = None if self.hook is None else self.hook()
        late = None if hook is None else hook.late
        made = item.clone() if late is None else torch.empty_like(item)
        if late is not None:
            late.append((made, item))
        return remember(made, self)


@opaque_calls
class ReceiveLate:
    """The hook of a dispatch: receives the rows, and writes the items of the handle that were read before."""

    def __init__(self, receive: Callable[[], None], dispatch: LowLatencyDispatch) -> None:
        self._receive = receive
        self.late: list[tuple[torch.Tensor, torch.Tensor]] | None = []
        """Copies, and what they are of; None once they are written. They know the dispatch: it must not know them."""
        dispatch.hook = weakref.ref(self)

    def __call__(self) -> None:
        self._receive()
        late, self.late = self.late, None
        for copy, item in late or ():
            copy.copy_(item)


@opaque_calls
class LowLatencyHandle(LazyTuple):
    """(src_info [L, M*R] int32, layout_range [L, R] int64: begin << 32 | count, M, H, E).

    The first two are made when they are first read, and are copies. They can be read before the combine, and afterwards
    as long as a tensor of the result lives. A plain tuple of the items is as good as the handle.

    Attributes:
        dispatch: what is known of the dispatch.
    """

    _size = 5
    dispatch: LowLatencyDispatch

    def _make(self, at: int) -> Any:
        return self.dispatch.sizes[at - 2] if at >= 2 else self.dispatch.item(at)

    def __repr__(self) -> str:
        sizes = ", ".join(map(str, self.dispatch.sizes))
        return f"LowLatencyHandle(max_tokens, hidden, num_experts = ({sizes}), combined = {self.dispatch.combined})"


def low_latency_handle_of(dispatch: LowLatencyDispatch) -> LowLatencyHandle:
    made = new_tuple(LowLatencyHandle)
    made.dispatch = dispatch
    return made


def low_latency_dispatch_of(handle: Any) -> LowLatencyDispatch:
    """Returns what is known of the dispatch of a LowLatencyHandle, or of a tuple or list of its items.

    Raises TypeError if it is neither, and InvalidArgument for other items.
    """
    if isinstance(handle, LowLatencyHandle):
        return handle.dispatch
    return _dispatch_of_items(handle, LowLatencyDispatch, "what low_latency_dispatch returned")
