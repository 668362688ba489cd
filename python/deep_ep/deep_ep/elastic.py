"""DeepEP's ElasticBuffer (V2)."""

from __future__ import annotations

from typing import Any, NamedTuple

import switchyard
import torch
from switchyard import Event, InvalidArgument, _core
from switchyard._buffer import local_experts
from switchyard._refusal import or_refuse, refuse_combine, refuse_dispatch

from ._calls import Rows, biases, call_options, event_of_both, finished
from ._checks import number, tensor
from ._elastic_plan import Asked, check_tokens, fresh_plan, num_expanded_tokens, own, repeated_plan
from ._elastic_sizes import engine_tokens, heap_bytes
from ._engine_calls import run_combine, run_dispatch
from ._engines import Engines, Shape, most_tokens
from ._group import check_agreement
from ._prefix_sums import add_rows, check_stats
from ._source import Fp8Pair, Source, received_x, source_of
from .ep_handle import EPHandle, Plan, theoretical_num_sms
from .utils import EventHandle, EventOverlap


class ElasticBuffer:
    """Dispatch and combine between the ranks of a group. Collective, as are dispatch, combine and barrier.

    N tokens of this rank, M num_max_tokens_per_rank, H hidden, K top-k, E experts, R ranks, L local experts. E need not
    be a multiple of R: the first E % R ranks hold one expert more.

    Args:
        group: a torch.distributed process group of any back end.
        num_bytes: CUDA: bytes of GPU memory for results, which take it as long as their tensors live; None:
            get_buffer_size_hint of what follows, if that says M and H, else as switchyard.Buffer chooses. CPU: no
            meaning, the heap grows as it needs.
        num_max_tokens_per_rank: M, for dispatches that do not say; 0: any number, and then none without CPU sync.
        hidden, num_topk, use_fp8_dispatch: for num_bytes alone; calls may have others.
        num_cpu_timeout_secs, num_gpu_timeout_secs: seconds that a wait for a peer may take, for CPU and for CUDA
            tensors.
        explicitly_destroy: `destroy()` will be called; else the buffer goes with its last reference.
        deterministic, allow_multiple_reduction: without effect: sums are made once, in float32, in the same order, and
            rounded once.
        allow_hybrid_mode, sl_idx, num_allocated_qps: without effect on one machine.
        prefer_overlap_with_compute: without effect; num_sms of a call has one.
        num_cpu_bytes: 0.

    Raises:
        InvalidArgument: ranks that pass different arguments.
        NotImplementedError: num_cpu_bytes; ranks on several machines (as switchyard.Unsupported).
        Timeout: a rank did not come.
    """

    def __init__(
        self,
        group: Any,
        num_bytes: int | None = None,
        num_cpu_bytes: int = 0,
        num_max_tokens_per_rank: int = 0,
        hidden: int = 0,
        num_topk: int = 0,
        use_fp8_dispatch: bool = False,
        deterministic: bool = False,
        allow_hybrid_mode: bool = True,
        allow_multiple_reduction: bool = True,
        prefer_overlap_with_compute: bool = True,
        sl_idx: int = 3,
        num_allocated_qps: int = 0,
        num_cpu_timeout_secs: float = 300,
        num_gpu_timeout_secs: float = 100,
        explicitly_destroy: bool = False,
    ) -> None:
        if num_cpu_bytes:
            raise NotImplementedError(
                "num_cpu_bytes: expected 0: it is memory for calls on tables in host memory, which Switchyard has not"
            )
        if num_bytes is None:
            num_bytes = self.get_buffer_size_hint(group, num_max_tokens_per_rank, hidden, num_topk, use_fp8_dispatch)
        self._communicator = switchyard.Communicator.from_torch(group)
        self.group = group
        self.rank = self._communicator.rank
        self.group_size = self._communicator.size
        self.num_bytes = num_bytes
        self.num_max_tokens_per_rank = num_max_tokens_per_rank
        self.explicitly_destroy = explicitly_destroy
        timeouts = {"cpu": float(num_cpu_timeout_secs), "cuda": float(num_gpu_timeout_secs)}
        self._engines = Engines(self._communicator, num_bytes, timeouts)
        check_agreement(
            self._communicator, ("num_bytes", "num_max_tokens_per_rank"), (num_bytes, num_max_tokens_per_rank)
        )

    def destroy(self) -> None:
        """Waits for queued work and leaves the group. Needs explicitly_destroy=True."""
        if not self.explicitly_destroy:
            raise InvalidArgument("destroy: expected ElasticBuffer(..., explicitly_destroy=True), seen False")
        self._engines.destroy()
        self._communicator.destroy()

    @staticmethod
    def get_buffer_size_hint(
        group: Any,
        num_max_tokens_per_rank: int,
        hidden: int,
        num_topk: int = 0,
        use_fp8_dispatch: bool = False,
        allow_hybrid_mode: bool = True,
        allow_multiple_reduction: bool = True,
    ) -> int:
        """Bytes for `ElasticBuffer(num_bytes=...)`: one dispatch and its combine, when all tokens go to all ranks, and
        with num_topk all to that many experts of one, counts padded to 128 for up to 512 experts. 0 unless M and H are
        given.

        When results do not fit, dispatches with CPU sync run in rounds, and those without raise OutOfMemory.

        Args:
            group: the process group.
            num_max_tokens_per_rank, hidden, num_topk: M, H, K; K 0: flat layout only.
            use_fp8_dispatch: dispatches are of FP8.
            allow_hybrid_mode, allow_multiple_reduction: without effect.
        """
        if num_max_tokens_per_rank <= 0 or hidden <= 0:
            return 0
        size = torch.distributed.get_world_size(group)
        return heap_bytes(size, num_max_tokens_per_rank, hidden, num_topk, use_fp8_dispatch)

    @staticmethod
    def capture() -> EventOverlap:
        """An event of what is queued on the current stream so far."""
        return EventOverlap(EventHandle())

    def barrier(self, use_comm_stream: bool = True, with_cpu_sync: bool = False) -> None:
        """Returns when all ranks are here, and what each has queued before is done. The host waits, whatever the
        arguments say.

        Raises:
            Unusable: after destroy().
            Timeout, PeerLost: a rank did not come, or is gone; also what calls that were queued found.
        """
        self._engines.check_usable()
        self._engines.synchronize()
        if torch.cuda.is_initialized():
            torch.cuda.current_stream().synchronize()
        self._communicator.barrier()

    def get_comm_stream(self) -> Any:
        """CUDA: the stream that calls run on; before the first dispatch the current one, which calls follow. CPU:
        PyTorch's stand-in for one.
        """
        self._engines.check_usable()
        return self._engines.comm_stream()

    def get_theoretical_num_sms(self, num_experts: int, num_topk: int, *more: Any, **named: Any) -> int:
        """SMs for num_sms, when a caller wants to know a number: even, and the same for all arguments. Calls with
        num_sms=0 take what the engine's model says, and none more than this rank's part of a GPU.
        """
        return theoretical_num_sms

    def get_theoretical_num_qps(self, num_sms: int) -> int:
        """0: on one machine there are no queue pairs."""
        return 0

    # ---- dispatch ----

    def dispatch(
        self,
        x: torch.Tensor | Fp8Pair,
        topk_idx: torch.Tensor | None = None,
        topk_weights: torch.Tensor | None = None,
        cumulative_local_expert_recv_stats: torch.Tensor | None = None,
        num_experts: int | None = None,
        num_max_tokens_per_rank: int | None = None,
        expert_alignment: int | None = None,
        num_sms: int = 0,
        num_qps: int = 0,
        previous_event: EventOverlap | None = None,
        previous_event_before_epilogue: EventOverlap | None = None,
        async_with_compute_stream: bool = False,
        allocate_on_comm_stream: bool = False,
        handle: EPHandle | None = None,
        do_handle_copy: bool = True,
        do_cpu_sync: bool | None = None,
        do_expand: bool = False,
        do_zero_padding: bool = False,
        use_tma_aligned_col_major_sf: bool = False,
    ) -> tuple[Any, torch.Tensor | None, torch.Tensor | None, EPHandle, EventOverlap]:
        """Sends each token to the ranks that hold one of its experts.

        Args:
            x: [N, H] bfloat16 (or float16, float32); or (float8_e4m3fn [N, H], scales [N, ceil(H/128)] float32 of any
                strides, or int32 of fewer columns).
            topk_idx: [N, K] int64 or int32; -1: not selected.
            topk_weights: [N, K] float32. With a handle the tokens are routed anew, by handle.topk_idx.
            cumulative_local_expert_recv_stats: [L] integers: rows received, without padding, are added to it.
            num_experts: E; needed with topk_idx.
            num_max_tokens_per_rank: M, the same on all ranks; None: the constructor's.
            expert_alignment: rows of an expert start at multiples of it (expanded), and counts are rounded up to it;
                None: 1.
            num_sms: CUDA: SMs of this call, at most this rank's part of the GPU; 0: as the engine chooses.
            previous_event, previous_event_before_epilogue: the call starts after both.
            async_with_compute_stream: the event says when it is done. CPU: only without CPU sync is the call queued;
                others have waited for their rows. With stats, column-major or int32 scales the current stream waits.
            handle: cached: as in the dispatch that it is of. What else is given must be as there.
            do_cpu_sync: False: the host does not wait for counts: results have R*M rows, expanded
                R*M*min(K, most local experts) and room for padding. Rows past the real ones have topk_idx -1. None:
                True. With a handle: without effect, as many rows as there.
            do_expand: a row for each (token, local expert), grouped by expert; else one for each token, by source rank,
                then token.
            do_zero_padding: zeros in rows that only pad; else anything.
            use_tma_aligned_col_major_sf: scales are column-major, columns start at multiples of 16 bytes. A copy.
            num_qps, allocate_on_comm_stream, do_handle_copy: without effect.

        Returns:
            recv_x as x; recv_topk_idx [n, K] local ids, -1 where not ours (None if expanded); recv_topk_weights [n, K]
            or [n] (expanded) float32, None unless given; the handle; the event. Cached: ids and weights are None, and
            the handle is the one given.

        Raises what switchyard.Buffer.dispatch raises.
        """
        stats = cumulative_local_expert_recv_stats
        try:
            source = source_of(x)
            asked = Asked(num_experts, num_max_tokens_per_rank, expert_alignment, num_sms, do_cpu_sync, do_expand)
            plan = self._plan(handle, topk_idx, asked)
            if stats is not None:
                check_stats(stats, local_experts(plan.num_experts, self.rank, self.group_size))
            after = event_of_both(previous_event, previous_event_before_epilogue, source.x)
        except Exception:
            self._engines.refuse(refuse_dispatch, handle)
            raise
        reads = stats is not None or source.columns > 0 or (use_tma_aligned_col_major_sf and source.scales is not None)
        call = _Call(plan, source, after, do_zero_padding, async_with_compute_stream and not reads)
        if handle is None:
            received, event, made = self._dispatch_fresh(topk_idx, topk_weights, call)
        elif topk_weights is not None:
            received, event, made = self._dispatch_fresh(handle.topk_idx, topk_weights, call)
        else:
            received, event = self._dispatch_cached(handle, call)
            made = handle
        if stats is not None:
            add_rows(stats, made.num_recv_tokens_per_expert)
        recv_x = received_x(source, received, use_tma_aligned_col_major_sf)
        overlap = finished(async_with_compute_stream, event, source.x.is_cuda)
        if made is handle:
            return recv_x, None, None, made, overlap
        return recv_x, received.topk_idx, received.topk_weights, made, overlap

    def _plan(self, handle: EPHandle | None, topk_idx: Any, asked: Asked) -> Plan:
        if handle is not None:
            return repeated_plan(handle, topk_idx, asked)
        return fresh_plan(topk_idx, self.group_size, asked, self.num_max_tokens_per_rank)

    def _dispatch_fresh(
        self, topk_idx: Any, topk_weights: torch.Tensor | None, call: _Call
    ) -> tuple[Any, Event | None, EPHandle]:
        plan, x = call.plan, call.source.x
        top_k = topk_idx.shape[1]
        most = most_tokens(self.group_size, x.is_cuda)
        most = engine_tokens(plan.num_max_tokens_per_rank, self.num_max_tokens_per_rank, most)
        buffer = self._engines.of(Shape(x.shape[1], plan.num_experts, top_k, x.device, most))
        or_refuse(refuse_dispatch, buffer._core, check_tokens, x, plan)
        inputs = (x, call.source.scales, topk_idx, topk_weights, None)
        received, event = run_dispatch(buffer, inputs, self._options(buffer, call, plan.num_worst_tokens), call.queued)
        expanded = num_expanded_tokens(plan, self.group_size, top_k, received.tokens_per_expert)
        return received, event, EPHandle(plan, topk_idx, buffer, received, expanded)

    def _dispatch_cached(self, handle: EPHandle, call: _Call) -> tuple[Any, Event | None]:
        if _routes_anew(call):
            return self._dispatch_fresh(handle.topk_idx, None, call)[:2]
        inputs = (call.source.x, call.source.scales, None, None, handle.core)
        return run_dispatch(handle.buffer, inputs, self._options(handle.buffer, call, 0), call.queued)

    def _options(self, engine: switchyard.Buffer, call: _Call, num_worst_tokens: int) -> _core.CallOptions:
        plan, x = call.plan, call.source.x
        rows = Rows(plan.expert_alignment, num_worst_tokens, plan.do_expand, call.zero_padding)
        sms = self._engines.num_sms(plan.num_sms, x)
        return or_refuse(refuse_dispatch, engine._core, call_options, x, call.after, sms, rows)

    # ---- combine ----

    def combine(
        self,
        x: torch.Tensor,
        handle: EPHandle,
        topk_weights: torch.Tensor | None = None,
        bias: torch.Tensor | tuple[torch.Tensor, ...] | None = None,
        num_sms: int = 0,
        num_qps: int = 0,
        previous_event: EventOverlap | None = None,
        previous_event_before_epilogue: EventOverlap | None = None,
        async_with_compute_stream: bool = False,
        allocate_on_comm_stream: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None, EventOverlap]:
        """Sends the rows of a dispatch back; each token gets the unweighted sum of its rows.

        So is the expanded layout's: experts multiply their rows by recv_topk_weights if it is to be weighted. Rows that
        only pad are not read.

        Args:
            x: [n, H] bfloat16 (or float16, float32), in the rows of the dispatch.
            handle: of the dispatch.
            topk_weights: [n, K], or [n] (expanded) float32: back to where they came from, separately: what the gradient
                of a dispatch's topk_weights takes.
            bias: 0, 1 or 2 tensors [N, H]: added to the sums.
            num_sms: CUDA: SMs of this call; 0: as in the dispatch.
            previous_event, previous_event_before_epilogue: the call starts after both.
            async_with_compute_stream: the event says when it is done. CPU: with topk_weights it is done on return.
            num_qps, allocate_on_comm_stream: without effect.

        Returns:
            combined_x [N, H]; combined_topk_weights [N, K] float32, or None; the event.

        Raises what switchyard.Buffer.combine raises.
        """
        try:
            mine = own(handle)
            after = event_of_both(previous_event, previous_event_before_epilogue, tensor("x", x))
            both, sms = biases(bias), number("num_sms", num_sms) or mine.plan.num_sms
        except Exception:
            self._engines.refuse(refuse_combine, handle)
            raise
        sms = self._engines.num_sms(sms, x)
        options = or_refuse(refuse_combine, mine.buffer._core, call_options, x, after, sms)
        rows = (x, mine.core, topk_weights)
        combined, weights, event = run_combine(mine.buffer, rows, both, options, async_with_compute_stream)
        return combined, weights, finished(async_with_compute_stream, event, x.is_cuda)


class _Call(NamedTuple):
    """A dispatch, but for its routing."""

    plan: Plan
    source: Source
    after: Event | None
    zero_padding: bool
    queued: bool


def _routes_anew(call: _Call) -> bool:
    """The CUDA engine's cached dispatches wait on the host until no rank refuses; those without CPU sync must not, and
    the same ids make the same rows.
    """
    return call.plan.num_worst_tokens > 0 and call.source.x.is_cuda
