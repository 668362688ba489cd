"""The low-latency mode of DeepEP's Buffer (V1)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Callable

import switchyard
import torch
from switchyard import InvalidArgument, interop
from switchyard.interop import opaque_calls

from ._engines import LowLatencyBuffers, max_results
from ._errors import in_our_words, number, tensor, with_text
from ._events import finished
from .handle import (
    LowLatencyDispatch,
    LowLatencyHandle,
    ReceiveLate,
    low_latency_dispatch_of,
    low_latency_handle_of,
)
from .utils.event import EventOverlap

Hook = Callable[[], None]

_like = torch.empty(0, device="cpu")  # tensors of the engine are shown as tensors of its framework

@opaque_calls
class LowLatencyCalls:
    """The low-latency calls of `Buffer`.

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
        """Returns bytes for `Buffer(num_rdma_bytes=...)`: about the bytes that the slots of a rank take.

        The engine makes its slots in the first call, with any num_rdma_bytes.

        Args:
            num_max_dispatch_tokens_per_rank: M.
            hidden: H.
            num_ranks, num_experts: R and E.
        """
        rows = -(-num_experts // num_ranks) * num_ranks * num_max_dispatch_tokens_per_rank
        row = 2 * hidden * 2 + -(-hidden // 128) * 4 + 64  # received, outputs, scales, metadata
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
            use_fp8: sends float8_e4m3fn, with a scale for each 128 channels.
            round_scale: rounds scales up to powers of two.
            use_ue8m0: returns scales as exponents, four to an int32; needs round_scale.
            async_finish: the event says when the call is done. On the CPU it is done on return.
            return_recv_hook: the call only sends, and hook() receives. Excludes async_finish.

        Returns:
            recv_x [L, M*R, H] bfloat16, or (float8_e4m3fn, scales [L, M*R, ceil(H/128)] float32 or
            [L, M*R, ceil(H/512)] int32, column-major in the last two dimensions); recv_count [L] int32; the handle;
            the event; the hook, or None. A result that is held is not overwritten. recv_x and its scales hold it, and
            so does the handle until it is combined; recv_count and what is read from the handle have memory of their
            own. There is memory for 4 results, and the engine takes more when more are held.

        An id that repeats within a token of topk_idx is a row each. A rank may send M rows to an expert: on the CPU
        more raise InvalidArgument; on CUDA they are left out, and a later call raises.

        Raises:
            InvalidArgument: on this rank, before anything is sent; the peers wait for the corrected call.

        Also raises the same as switchyard.LowLatencyBuffer.dispatch.
        """
        buffers, sizes = self._low_latency, (num_max_dispatch_tokens_per_rank, num_experts)
        buffer, made = buffers.latest_for(*sizes), None
        if buffer is None:  # a buffer that was destroyed has none
            self._require_low_latency()
        if async_finish and return_recv_hook:
            raise _both()
        options = _options(_cast(use_fp8, round_scale, use_ue8m0), "none", bool(return_recv_hook))
        stats = cumulative_local_expert_recv_stats, dispatch_wait_recv_cost_stats
        counts = torch.empty_like(buffers.counts)
        try:
            if buffer is not None:
                made = interop.low_latency_dispatch_if_it_fits(buffer, x, topk_idx, *stats, counts, options)
            if made is None:
                buffer = self._buffer_for(x, topk_idx, *sizes)
                counts = torch.empty_like(buffers.counts)
                made = interop.low_latency_dispatch_tensors(buffer, x, topk_idx, *stats, counts, options)
        except (InvalidArgument, TypeError) as error:
            raise _dispatch_error(error) from error
        assert buffer is not None
        recv_x, scales, received, receive = made
        dispatched = LowLatencyDispatch(received, buffer, topk_idx, (sizes[0], buffer.hidden, sizes[1]))
        hook = None if receive is None else ReceiveLate(receive, dispatched)
        handle = low_latency_handle_of(dispatched)
        return (recv_x, scales) if use_fp8 else recv_x, counts, handle, finished(async_finish), hook

    def _buffer_for(
        self, x: Any, topk_idx: Any, max_tokens: int, num_experts: int
    ) -> switchyard.LowLatencyBuffer:
        _check_shapes(x, topk_idx)
        return self._low_latency.of((max_tokens, x.shape[1], num_experts, topk_idx.shape[1], x.device))

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
        """Sends the outputs of the experts back; each token gets the weighted sum of its experts' rows.

        Args:
            x: [L, M*R, H] bfloat16, in the slots of the dispatch.
            topk_idx: [N, K] int64, as in the dispatch.
            topk_weights: [N, K] float32.
            handle: the handle of the dispatch, or a tuple of its items. It must be one of the latest 4 dispatches. It
                may be combined again, on all ranks alike, as long as recv_x or another tensor in its slots lives: its
                first combine releases the slots, since programs keep handles of many layers.
            use_logfmt: values take 10 bits on the way; x must not lie in get_next_low_latency_combine_buffer(handle).
            zero_copy: the rows are in get_next_low_latency_combine_buffer(handle); x is not read. Excludes use_logfmt.
                If that was not called since the last combine, its rows are sent again.
            async_finish, return_recv_hook: as in the dispatch.
            out: [N, H] bfloat16: receives the sums.
            combine_wait_recv_cost_stats: [R] int64: nanoseconds waited for each rank are added to it.

        Returns:
            combined_x [N, H] bfloat16; the event; the hook, or None.

        Raises the same as low_latency_dispatch.
        """
        if not self._low_latency.used:
            self._require_low_latency()
        if async_finish and return_recv_hook:
            raise _both()
        if zero_copy and use_logfmt:
            raise InvalidArgument("zero_copy: expected False with use_logfmt, whose codes go where rows would lie")
        of = low_latency_dispatch_of(handle)
        _check_routing(topk_idx, of.topk_idx)
        source = _outputs(of) if zero_copy else tensor("x", x)
        options = _options("none", "logfmt10" if use_logfmt else "none", bool(return_recv_hook))
        rows = source, of.received, topk_weights, out, combine_wait_recv_cost_stats
        try:
            sums, hook = interop.low_latency_combine_tensors(of.buffer, *rows, options)
        except (InvalidArgument, TypeError) as error:
            of.core()  # which says why there is nothing to combine
            raise in_our_words(error, ("wait_ns_per_source", "combine_wait_recv_cost_stats")) from error
        of.forget_inputs()
        return sums, finished(async_finish), hook

    def get_next_low_latency_combine_buffer(self, handle: LowLatencyHandle) -> torch.Tensor:
        """Returns memory for the outputs of experts, [L, M*R, H] bfloat16, which the next combine with zero_copy sends.

        For the first combine of a dispatch it lies in the slots, and holds them. Peers may still read that when the
        next is prepared, so for each further one it is other memory, which that combine copies: call this before each.

        Raises:
            TypeError: the handle is not one of low_latency_dispatch.
            InvalidArgument: the dispatch was combined and its result is freed; the buffer was made without
                low_latency_mode; a tuple of other items.
            Unusable: after destroy().
        """
        self._require_low_latency()
        of = low_latency_dispatch_of(handle)
        rows = _outputs(of)
        if of.combined and of.outputs is None:
            rows = of.outputs = torch.empty_like(rows)
        return rows

    def clean_low_latency_buffer(self, num_max_dispatch_tokens_per_rank: int, hidden: int, num_experts: int) -> None:
        """Takes M, H and E. Slots of the engine need no cleaning, since their flags count calls.

        With enable_shrink it is a call of all ranks, which then know who is lost or late; without, it does nothing.
        """
        self._require_low_latency()
        if self.enable_shrink:
            try:
                self._low_latency.meet()
            except InvalidArgument as error:
                raise _dispatch_error(error) from error

    # ---- masks ----

    def low_latency_update_mask_buffer(self, rank_to_mask: int, mask: bool = False) -> None:
        """From now on this rank sends nothing to a peer and waits for nothing from it; mask=False ends that.

        Raises InvalidArgument if the buffer was made without enable_shrink, or `rank_to_mask` is not a peer.
        """
        self._require_shrink()
        rank = number("rank_to_mask", rank_to_mask)
        if not 0 <= rank < self.group_size or rank == self.rank:
            peers = f"0..{self.group_size - 1} but not {self.rank}"
            raise InvalidArgument(f"rank_to_mask: expected a peer's, {peers}, seen {rank}")
        self._low_latency.mask(rank, mask)

    def low_latency_query_mask_buffer(self, mask_status: torch.Tensor) -> None:
        """Writes 1 for each masked rank, and 0 for others, to mask_status [R] int32. Late peers are masked, too."""
        self._require_shrink()
        if tensor("mask_status", mask_status).shape != (self.group_size,) or mask_status.dtype != torch.int32:
            seen = f"{mask_status.dtype} {list(mask_status.shape)}"
            raise InvalidArgument(f"mask_status: expected int32 [{self.group_size}], seen {seen}")
        masked = self._low_latency.masked()
        mask_status.copy_(torch.tensor([rank in masked for rank in range(self.group_size)], dtype=torch.int32))

    def low_latency_clean_mask_buffer(self) -> None:
        """Removes all masks. Both sides call it, between the same calls."""
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


# ---- calls of the engine ----


@lru_cache(maxsize=None)
def _options(cast: str, coding: str, with_hook: bool) -> interop.LowLatencyCallOptions:
    """Callers pass the same options in every step, so options are made once."""
    return interop.low_latency_call_options(current_stream=True, with_hook=with_hook, cast=cast, coding=coding)


def _outputs(of: LowLatencyDispatch) -> torch.Tensor:
    """Returns the rows that a combine with zero_copy sends."""
    rows = of.outputs
    return of.buffer.outputs(of.core(), torch.bfloat16, like=_like) if rows is None else rows


# ---- checks ----


def _both() -> InvalidArgument:
    return InvalidArgument("async_finish: expected False with return_recv_hook, seen True")


def _check_shapes(x: Any, topk_idx: Any) -> None:
    if tensor("x", x).ndim != 2:
        raise InvalidArgument(f"x: expected 2 dimensions, seen {x.ndim}")
    if tensor("topk_idx", topk_idx).ndim != 2:
        raise InvalidArgument(f"topk_idx: expected 2 dimensions, seen {topk_idx.ndim}")
    if x.dtype != torch.bfloat16:
        raise InvalidArgument(f"x: expected bfloat16, seen {x.dtype}")


def _check_routing(topk_idx: torch.Tensor, of_dispatch: torch.Tensor | None) -> None:
    """The engine combines along the routes of the dispatch. The host does not read ids on a GPU, as it would wait."""
    if topk_idx is of_dispatch or of_dispatch is None:
        return
    same = tensor("topk_idx", topk_idx).shape == of_dispatch.shape
    if not same or not (topk_idx.is_cuda or torch.equal(topk_idx, of_dispatch)):
        raise InvalidArgument("topk_idx: expected those of the dispatch, seen others")


def _dispatch_error(error: Exception) -> Exception:
    if not str(error).startswith("max_results:"):
        return in_our_words(error, ("wait_ns_per_source", "dispatch_wait_recv_cost_stats"))
    seen = str(error).partition(";")[0].replace("max_results:", "low_latency_dispatch:")
    text = (
        f"{seen}: call hooks that were not called, and free earlier results: recv_x, its scales, tensors of "
        "get_next_low_latency_combine_buffer, and handles that were not combined, with what was read from them"
    )
    return with_text(error, text)


def _cast(use_fp8: bool, round_scale: bool, use_ue8m0: bool) -> str:
    if not use_fp8:
        return "none"  # the other two arguments then have no effect
    if use_ue8m0:
        if not round_scale:
            raise InvalidArgument("use_ue8m0: expected round_scale with it, seen False")
        return "fp8_ue8m0"
    return "fp8_pow2" if round_scale else "fp8"
