"""DeepEP's Buffer (V1), low-latency mode."""

from __future__ import annotations

from typing import Any, Callable, Iterable, NamedTuple

import switchyard
import torch
from switchyard import InvalidArgument, Unusable, _core

from ._calls import finished
from ._checks import number, tensor, wrong_type
from ._errors import in_our_words, made_by_all, with_text
from ._lazy import LazyTuple
from ._low_latency_calls import run_combine, run_dispatch
from .utils import EventOverlap

Hook = Callable[[], None]

# The engine protects results that are held; programs hold those of two micro-batches, and still have the last ones in
# their variables when they make the next.
max_results = 4


class LowLatencyShape(NamedTuple):
    """What the engine wants to know beforehand."""

    max_tokens: int
    hidden: int
    num_experts: int
    top_k: int
    device: torch.device


class LowLatencyHandle(LazyTuple):
    """(src_info [L, M*R] int32, layout_range [L, R] int64: begin << 32 | count, M, H, E).

    The first two are made when they are first read. They lie in the slots of the dispatch, which the handle holds until
    it is combined: programs keep handles of many layers. From then on the two are gone; what was read before, and is
    kept, stays, and holds the slots.

    Attributes:
        buffer: the buffer of the dispatch.
        topk_idx: of the dispatch.
    """

    _size = 5
    buffer: switchyard.LowLatencyBuffer
    topk_idx: torch.Tensor | None
    _received: _core.LowLatencyResult | None
    _sizes: tuple[int, int, int]

    def __init__(
        self,
        received: _core.LowLatencyResult,
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
        """Raises InvalidArgument once it was combined."""
        if self._received is None:
            raise InvalidArgument("handle: expected one of a dispatch that was not combined yet, seen one that was")
        return self._received.handle

    def let_go(self) -> None:
        """After a combine was queued.

        It may still run, and need not be waited for: the frame is given back by a later kernel in stream order, and a
        receive half that is still to come holds it by itself (docs/low-latency.md, "Giving a frame back").
        """
        self._received = self.topk_idx = None
        self._made.clear()

    def _make(self, at: int) -> Any:
        if at >= 2:
            return self._sizes[at - 2]
        if self._received is None:
            raise Unusable("handle: src_info and layout_range went with its combine: read them before, and keep them")
        return self._received.ranges if at else self._received.source_token

    def __repr__(self) -> str:
        return f"LowLatencyHandle(max_tokens, hidden, num_experts = {self._sizes}, combined = {self._received is None})"


class LowLatencyBuffers:
    """The engine's buffers by shape. Making one is collective, as is the call that needs it."""

    def __init__(self, communicator: switchyard.Communicator, mask_late_peers: bool) -> None:
        self._communicator = communicator
        self._mask_late_peers = mask_late_peers
        self._buffers: dict[LowLatencyShape, switchyard.LowLatencyBuffer] = {}
        self._masked: set[int] = set()

    def of(self, shape: LowLatencyShape) -> switchyard.LowLatencyBuffer:
        """Raises InvalidArgument for another device than before: peers, which cannot be told, would not come."""
        found = self._buffers.get(shape)
        if found is None:
            _check_device(shape.device, (each.device for each in self._buffers))
            found = self._buffers[shape] = self._make(shape)
        return found

    def _make(self, shape: LowLatencyShape) -> switchyard.LowLatencyBuffer:
        try:
            return made_by_all(f"a buffer for {shape}", lambda: self._made(shape))
        except (InvalidArgument, TypeError) as error:
            raise in_our_words(error) from error

    def _made(self, shape: LowLatencyShape) -> switchyard.LowLatencyBuffer:
        on_gpu = shape.device.type == "cuda"
        made = switchyard.LowLatencyBuffer(
            self._communicator,
            max_tokens=shape.max_tokens,
            hidden=shape.hidden,
            num_experts=shape.num_experts,
            top_k=shape.top_k,
            max_results=max_results,
            mask_late_peers=self._mask_late_peers,
            engine="cuda" if on_gpu else "cpu",
            device=shape.device.index if on_gpu else -1,
        )
        for rank in self._masked:
            made.mask(rank)
        return made

    def mask(self, rank: int, masked: bool) -> None:
        self._masked = self._masked | {rank} if masked else self._masked - {rank}
        for buffer in self._buffers.values():
            buffer.mask(rank, masked)

    def masked(self) -> set[int]:
        """By the caller, and by whom a call found late."""
        found = (buffer.masked() for buffer in self._buffers.values())
        return self._masked.union(*({rank for rank, is_so in enumerate(each) if is_so} for each in found))

    def destroy(self) -> None:
        for buffer in self._buffers.values():
            buffer.destroy()
        self._buffers.clear()


class LowLatencyCalls:
    """The low-latency part of `Buffer`.

    N tokens of this rank, M num_max_dispatch_tokens_per_rank, H hidden, K top-k, E experts, R ranks, L = E/R local
    experts.
    """

    rank: int
    group_size: int
    low_latency_mode: bool
    enable_shrink: bool
    _low_latency: LowLatencyBuffers

    @staticmethod
    def get_low_latency_rdma_size_hint(
        num_max_dispatch_tokens_per_rank: int, hidden: int, num_ranks: int, num_experts: int
    ) -> int:
        """Bytes for `Buffer(num_rdma_bytes=...)`: about what the slots of a rank take.

        The engine makes its slots in the first call, whatever num_rdma_bytes says.

        Args:
            num_max_dispatch_tokens_per_rank: M.
            hidden: H.
            num_ranks, num_experts: R and E.
        """
        rows = -(-num_experts // num_ranks) * num_ranks * num_max_dispatch_tokens_per_rank
        row = 2 * hidden * 2 + -(-hidden // 128) * 4 + 64  # received, outputs, scales, what tells of a row
        return max_results * (rows * row + (1 << 20))

    def low_latency_dispatch(
        self,
        x: torch.Tensor,
        topk_idx: torch.Tensor,
        num_max_dispatch_tokens_per_rank: int,
        num_experts: int,
        cumulative_local_expert_recv_stats: torch.Tensor | None = None,
        dispatch_wait_recv_cost_stats: torch.Tensor | None = None,
        use_fp8: bool = True,
        round_scale: bool = False,
        use_ue8m0: bool = False,
        async_finish: bool = False,
        return_recv_hook: bool = False,
    ) -> tuple[Any, torch.Tensor, LowLatencyHandle, EventOverlap, Hook | None]:
        """Sends each token to its experts, into slots sized by M.

        Args:
            x: [N, H] bfloat16, N at most M.
            topk_idx: [N, K] int64; -1: not selected.
            num_max_dispatch_tokens_per_rank: M, the same on all ranks.
            num_experts: E.
            cumulative_local_expert_recv_stats: [L] int32: rows received are added to it.
            dispatch_wait_recv_cost_stats: [R] int64: nanoseconds waited for each rank are added to it.
            use_fp8: float8_e4m3fn, with a scale for each 128 channels.
            round_scale: scales rounded up to powers of two.
            use_ue8m0: these as exponents, four to an int32; needs round_scale.
            async_finish: the event says when it is done. CPU: it is done on return.
            return_recv_hook: only send; hook() receives. Excludes async_finish.

        Returns:
            recv_x [L, M*R, H] bfloat16, or (float8_e4m3fn, scales [L, M*R, ceil(H/128)] float32 or
            [L, M*R, ceil(H/512)] int32, column-major in the last two dimensions); recv_count [L] int32; handle;
            event; hook, or None. A rank may hold 4 results at once: tensors of a result hold it, and so does the
            handle until it is combined.

        Raises InvalidArgument, on this rank, before anything is sent: the peers wait for the corrected call. Else
        what switchyard.LowLatencyBuffer.dispatch raises.
        """
        self._require_low_latency()
        _check_exclusive(async_finish, return_recv_hook)
        _check_shapes(x, topk_idx)
        cast = _cast(use_fp8, round_scale, use_ue8m0)
        shape = LowLatencyShape(num_max_dispatch_tokens_per_rank, x.shape[1], num_experts, topk_idx.shape[1], x.device)
        buffer = self._low_latency.of(shape)
        stats = (cumulative_local_expert_recv_stats, dispatch_wait_recv_cost_stats)
        try:
            received, hook = run_dispatch(buffer, x, topk_idx, cast, stats, return_recv_hook)
        except (InvalidArgument, TypeError) as error:
            raise _dispatch_error(error) from error
        handle = LowLatencyHandle(received, buffer, topk_idx, shape[:3])
        recv_x = (received.x, received.scales) if use_fp8 else received.x
        return recv_x, received.counts, handle, finished(async_finish), hook

    def low_latency_combine(
        self,
        x: torch.Tensor,
        topk_idx: torch.Tensor,
        topk_weights: torch.Tensor,
        handle: LowLatencyHandle,
        use_logfmt: bool = False,
        zero_copy: bool = False,
        async_finish: bool = False,
        return_recv_hook: bool = False,
        out: torch.Tensor | None = None,
        combine_wait_recv_cost_stats: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, EventOverlap, Hook | None]:
        """Sends what the experts made back; each token gets the weighted sum of its experts' rows.

        Args:
            x: [L, M*R, H] bfloat16, in the slots of the dispatch.
            topk_idx: [N, K] int64, as in the dispatch.
            topk_weights: [N, K] float32.
            handle: of the dispatch, which is combined once, and holds nothing of it afterwards.
            use_logfmt: 10 bits a value on the way; x must not be what get_next_low_latency_combine_buffer gave.
            zero_copy: the rows are in get_next_low_latency_combine_buffer(handle); x is not read. Excludes use_logfmt.
            async_finish, return_recv_hook: as in the dispatch.
            out: [N, H] bfloat16: where to write.
            combine_wait_recv_cost_stats: [R] int64: nanoseconds waited for each rank are added to it.

        Returns:
            combined_x [N, H] bfloat16; event; hook, or None.

        Raises as low_latency_dispatch does.
        """
        self._require_low_latency()
        _check_exclusive(async_finish, return_recv_hook)
        if zero_copy and use_logfmt:
            raise InvalidArgument("zero_copy: expected False with use_logfmt, whose codes go where rows would lie")
        core = _own(handle)
        _check_routing(topk_idx, handle)
        source = self.get_next_low_latency_combine_buffer(handle) if zero_copy else tensor("x", x)
        sums = source.new_empty(core.num_tokens, handle.buffer.hidden) if out is None else out
        rows, coding = (source, core, topk_weights), "logfmt10" if use_logfmt else "none"
        try:
            hook = run_combine(handle.buffer, rows, coding, (sums, combine_wait_recv_cost_stats), return_recv_hook)
        except (InvalidArgument, TypeError) as error:
            raise in_our_words(error, ("wait_ns_per_source", "combine_wait_recv_cost_stats")) from error
        handle.let_go()
        return sums, finished(async_finish), hook

    def get_next_low_latency_combine_buffer(self, handle: LowLatencyHandle) -> torch.Tensor:
        """[L, M*R, H] bfloat16: where experts may write what a combine with zero_copy then sends.

        Raises:
            TypeError: a handle that is none of low_latency_dispatch.
            InvalidArgument: one that was combined; a buffer without low_latency_mode.
            Unusable: after destroy().
        """
        self._require_low_latency()
        core = _own(handle)
        return handle.buffer.outputs(core, torch.bfloat16, like=handle.topk_idx)

    def clean_low_latency_buffer(self, num_max_dispatch_tokens_per_rank: int, hidden: int, num_experts: int) -> None:
        """Nothing to do: slots of the engine are never dirty, since their flags count on. Takes M, H and E."""
        self._require_low_latency()

    # ---- masks ----

    def low_latency_update_mask_buffer(self, rank: int, mask: bool = False) -> None:
        """From now on nothing is sent to that rank, nor awaited from it; mask=False ends that.

        Raises InvalidArgument without enable_shrink, and unless it is a peer's.
        """
        self._require_shrink()
        rank = number("rank", rank)
        if not 0 <= rank < self.group_size or rank == self.rank:
            raise InvalidArgument(f"rank: expected a peer's, 0..{self.group_size - 1} but not {self.rank}, seen {rank}")
        self._low_latency.mask(rank, mask)

    def low_latency_query_mask_buffer(self, mask_status: torch.Tensor) -> None:
        """Writes 1 for each masked rank, else 0, into mask_status [R] int32. Late peers are masked, too."""
        self._require_shrink()
        if tensor("mask_status", mask_status).shape != (self.group_size,) or mask_status.dtype != torch.int32:
            seen = f"{mask_status.dtype} {list(mask_status.shape)}"
            raise InvalidArgument(f"mask_status: expected int32 [{self.group_size}], seen {seen}")
        masked = self._low_latency.masked()
        mask_status.copy_(torch.tensor([rank in masked for rank in range(self.group_size)], dtype=torch.int32))

    def low_latency_clean_mask_buffer(self) -> None:
        """Nobody is masked any more. To be called by both sides, between the same calls."""
        self._require_shrink()
        for rank in self._low_latency.masked():
            self._low_latency.mask(rank, False)

    def _check_usable(self) -> None:
        """Raises Unusable after destroy()."""
        raise NotImplementedError

    def _require_low_latency(self) -> None:
        self._check_usable()
        if not self.low_latency_mode:
            raise InvalidArgument("low_latency_mode: expected Buffer(..., low_latency_mode=True), seen False")

    def _require_shrink(self) -> None:
        self._require_low_latency()
        if not self.enable_shrink:
            raise InvalidArgument("enable_shrink: expected Buffer(..., enable_shrink=True), seen False")


def _check_exclusive(async_finish: bool, return_recv_hook: bool) -> None:
    if async_finish and return_recv_hook:
        raise InvalidArgument("async_finish: expected False with return_recv_hook, seen True")


def _check_shapes(x: Any, topk_idx: Any) -> None:
    for name, value in (("x", x), ("topk_idx", topk_idx)):
        if tensor(name, value).ndim != 2:
            raise InvalidArgument(f"{name}: expected 2 dimensions, seen {value.ndim}")
    if x.dtype != torch.bfloat16:
        raise InvalidArgument(f"x: expected bfloat16, seen {x.dtype}")


def _own(handle: Any) -> switchyard.LowLatencyHandle:
    if not isinstance(handle, LowLatencyHandle):
        raise wrong_type("handle", "what low_latency_dispatch returned", handle)
    return handle.core


def _check_routing(topk_idx: torch.Tensor, handle: LowLatencyHandle) -> None:
    """The engine combines by what it noted in the dispatch. The host does not wait to read ids of a GPU."""
    of_dispatch = handle.topk_idx
    if topk_idx is of_dispatch or of_dispatch is None:
        return
    same = tensor("topk_idx", topk_idx).shape == of_dispatch.shape
    if not same or not (topk_idx.is_cuda or torch.equal(topk_idx, of_dispatch)):
        raise InvalidArgument("topk_idx: expected those of the dispatch, seen others")


def _check_device(device: torch.device, others: Iterable[torch.device]) -> None:
    for other in others:
        if device != other:
            raise InvalidArgument(f"x: expected it on {other} as in calls before, seen it on {device}")


def _dispatch_error(error: Exception) -> Exception:
    if not str(error).startswith("max_results:"):
        return in_our_words(error, ("wait_ns_per_source", "dispatch_wait_recv_cost_stats"))
    text = (
        f"low_latency_dispatch: expected at most {max_results} results held at once, seen one more: let go of earlier "
        "ones: recv_x, its scales, recv_count, what was read from their handles, and handles that were not combined"
    )
    return with_text(error, text)


def _cast(use_fp8: bool, round_scale: bool, use_ue8m0: bool) -> str:
    if not use_fp8:
        return "none"  # the other two say how, if at all
    if use_ue8m0:
        if not round_scale:
            raise InvalidArgument("use_ue8m0: expected round_scale beside it, seen False")
        return "fp8_ue8m0"
    return "fp8_pow2" if round_scale else "fp8"
