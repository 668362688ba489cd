"""DeepEP's ElasticBuffer (V2)."""

from __future__ import annotations

from typing import Any

import switchyard
import torch
from switchyard import Event, InvalidArgument, interop
from switchyard.interop import opaque_calls

from ._agreement import check_agreement
from ._calls import Call, Repeated, Rows, Sending, biases_of, combine, dispatch, dispatch_again
from ._elastic_plan import (
    Asked,
    check_tokens,
    engine_tokens,
    explained_rows,
    heap_bytes,
    num_expanded_tokens,
    own,
    plan_of,
)
from ._engines import Engines, Shape, most_tokens
from ._errors import number, tensor
from ._events import event_of_both, finished
from ._layout import add_rows, check_stats
from ._source import Fp8Pair, received_x, source_of
from .ep_handle import EPHandle, Plan, theoretical_num_sms
from .utils.event import AnyEvent, EventHandle, EventOverlap


@opaque_calls
class ElasticBuffer:
    """Dispatch and combine between the ranks of a group. The constructor is collective, as are dispatch, combine and
    barrier.

    N tokens of this rank, M num_max_tokens_per_rank, H hidden, K top-k, E experts, R ranks, L local experts. E need not
    be a multiple of R: the first E % R ranks hold one expert more.

    Args:
        group: a torch.distributed process group of any back end.
        num_bytes: CUDA: bytes of GPU memory for results, which take it as long as their tensors live. None: what
            get_buffer_size_hint returns if M and hidden are given, otherwise switchyard.Buffer chooses. CPU: no effect,
            since the heap grows as needed.
        num_max_tokens_per_rank: M for dispatches that do not give it; 0: any number, and dispatches without CPU sync
            must give it.
        hidden, num_topk, use_fp8_dispatch: used for num_bytes alone; calls may have others.
        num_cpu_timeout_secs, num_gpu_timeout_secs: seconds that a wait for a peer may take, for CPU and for CUDA
            tensors.
        explicitly_destroy: True: the caller will call `destroy()`. False: the last reference destroys the buffer.
        deterministic, allow_multiple_reduction: without effect: sums are always made in float32, in the same order, and
            rounded once.
        allow_hybrid_mode, sl_idx, num_allocated_qps: without effect on one machine.
        prefer_overlap_with_compute: without effect; use num_sms of a call.
        num_cpu_bytes: must be 0.

    Attributes:
        group, num_max_tokens_per_rank, deterministic, allow_hybrid_mode, allow_multiple_reduction,
        prefer_overlap_with_compute, num_allocated_qps, explicitly_destroy: as given.
        num_bytes: as given, or computed.
        rank_idx, num_ranks: this rank and R; also as rank and group_size.
        num_scaleout_ranks, num_scaleup_ranks, scaleout_rank_idx, scaleup_rank_idx: see get_logical_domain_size.
        num_rdma_ranks, num_nvlink_ranks: see get_physical_domain_size.

    Raises:
        InvalidArgument: ranks pass different arguments.
        NotImplementedError: num_cpu_bytes is not 0, or the ranks run on several machines (switchyard.Unsupported).
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
                "num_cpu_bytes: expected 0: it is memory for calls on tables in host memory, which Switchyard lacks"
            )
        if num_bytes is None:
            num_bytes = self.get_buffer_size_hint(group, num_max_tokens_per_rank, hidden, num_topk, use_fp8_dispatch)
        self._communicator = switchyard.Communicator.from_torch(group)
        self.group = group
        self.rank = self.rank_idx = self._communicator.rank
        self.group_size = self.num_ranks = self._communicator.size
        self.num_bytes = num_bytes
        self.num_max_tokens_per_rank = num_max_tokens_per_rank
        self.deterministic = deterministic
        self.allow_hybrid_mode = allow_hybrid_mode
        self.allow_multiple_reduction = allow_multiple_reduction
        self.prefer_overlap_with_compute = prefer_overlap_with_compute
        self.num_allocated_qps = num_allocated_qps
        self.explicitly_destroy = explicitly_destroy
        self.num_scaleout_ranks, self.num_scaleup_ranks = self.get_logical_domain_size()
        self.scaleout_rank_idx, self.scaleup_rank_idx = divmod(self.rank_idx, self.num_scaleup_ranks)
        self.num_rdma_ranks, self.num_nvlink_ranks = self.get_physical_domain_size()
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
        """Returns bytes for `ElasticBuffer(num_bytes=...)`; 0 unless M and H are given.

        They are enough for a dispatch and its combine if all tokens go to all ranks; with num_topk also if all go to
        that many experts of one rank, with counts padded to 128 for up to 512 experts. When results do not fit,
        dispatches with CPU sync run in rounds, and those without raise OutOfMemory.

        Args:
            group: the process group.
            num_max_tokens_per_rank, hidden, num_topk: M, H, K; K 0: flat layout only.
            use_fp8_dispatch: whether dispatches send FP8.
            allow_hybrid_mode, allow_multiple_reduction: without effect.
        """
        if num_max_tokens_per_rank <= 0 or hidden <= 0:
            return 0
        size = torch.distributed.get_world_size(group)
        return heap_bytes(size, num_max_tokens_per_rank, hidden, num_topk, use_fp8_dispatch)

    @staticmethod
    def capture() -> EventHandle:
        """Returns an event for the work that is queued on the current stream so far."""
        return EventHandle()

    def get_physical_domain_size(self) -> tuple[int, int]:
        """Returns the number of nodes, and of ranks on each: 1 and R, since all ranks are on one machine."""
        return 1, self.num_ranks

    def get_logical_domain_size(self) -> tuple[int, int]:
        """Returns the number of scale-out ranks and of scale-up ranks: 1 and R, since all ranks are on one machine."""
        return 1, self.num_ranks

    def barrier(self, use_comm_stream: bool = True, with_cpu_sync: bool = False, sequential: bool = True) -> None:
        """Returns when all ranks have called it and the work that each had queued before is done.

        The host waits, whatever the arguments are.

        Raises:
            Unusable: after destroy().
            Timeout, PeerLost: a rank did not come, or is gone; errors of queued calls are raised, too.
        """
        self._engines.check_usable()
        self._engines.synchronize()
        if torch.cuda.is_initialized():
            torch.cuda.current_stream().synchronize()
        self._communicator.barrier()

    def get_comm_stream(self) -> Any:
        """Returns the stream that calls run on (CUDA), or the current stream before the first dispatch.

        On the CPU it is torch.cpu.current_stream(), which does nothing.
        """
        self._engines.check_usable()
        return self._engines.comm_stream()

    def get_theoretical_num_sms(self, num_experts: int, num_topk: int, *more: Any, **named: Any) -> int:
        """Returns a number of SMs for callers that need one. It is even, and the same for all arguments.

        Calls with num_sms=0 take the number that the engine's model gives. No call takes more than this rank's part of
        the GPU.
        """
        return theoretical_num_sms

    def get_theoretical_num_qps(self, num_sms: int) -> int:
        """Returns 0, since there are no queue pairs on one machine."""
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
        previous_event: AnyEvent | None = None,
        previous_event_before_epilogue: AnyEvent | None = None,
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
            topk_weights: [N, K] float32.
            cumulative_local_expert_recv_stats: [L] integers: rows received, without padding, are added to it.
            num_experts: E; needed with topk_idx.
            num_max_tokens_per_rank: M, the same on all ranks; None: the constructor's.
            expert_alignment: rows of an expert start at multiples of it (expanded), and counts are rounded up to it;
                None: 1.
            num_sms: CUDA: SMs of this call, at most this rank's part of the GPU; 0: the engine chooses.
            previous_event, previous_event_before_epilogue: the call starts after both.
            async_with_compute_stream: True: the event says when the call is done. On the CPU a call is queued only
                without CPU sync; other calls have waited for their rows. With stats, column-major or int32 scales the
                current stream waits for the rows.
            handle: the handle of an earlier dispatch, which this cached dispatch repeats. Other arguments that are
                given must be as there.
            do_cpu_sync: False: the host does not wait for counts. Results then have R*M rows, or in the expanded layout
                R*M*min(K, most local experts) and room for padding; rows past the real ones have topk_idx -1. None:
                True. It has no effect with a handle: there are as many rows as in its dispatch.
            do_expand: True: a row for each (token, local expert), grouped by expert. False: a row for each token, by
                source rank, then token.
            do_zero_padding: True: padding rows are zeros. False: they are undefined.
            use_tma_aligned_col_major_sf: True: received scales are copied to column-major order, and columns start at
                multiples of 16 bytes.
            do_handle_copy: True: the handle keeps a copy of topk_idx. False: it keeps topk_idx, which must then not
                change as long as the handle is used.
            num_qps, allocate_on_comm_stream: without effect.

        Returns:
            recv_x in the form of x; recv_topk_idx [n, K], local ids, -1 for experts of other ranks (None if expanded);
            recv_topk_weights [n, K] or (expanded) [n] float32, None unless given; the handle (of a cached dispatch the
            given one); the event.

        Raises the same as switchyard.Buffer.dispatch.
        """
        stats = cumulative_local_expert_recv_stats
        with self._engines.or_refuse(interop.refuse_dispatch, handle):
            source = source_of(x)
            asked = Asked(num_experts, num_max_tokens_per_rank, expert_alignment, num_sms, do_cpu_sync, do_expand)
            plan = plan_of(handle, topk_idx, asked, (self.group_size, self.num_max_tokens_per_rank))
            if stats is not None:
                check_stats(stats, interop.local_experts(plan.num_experts, self.rank, self.group_size))
            after = event_of_both(previous_event, previous_event_before_epilogue, source.x)
        reads = stats is not None or source.columns > 0 or (use_tma_aligned_col_major_sf and source.scales is not None)
        rows = Rows(plan.expert_alignment, 0, plan.do_expand, do_zero_padding)
        call = Call(source, after, plan.num_sms, rows, async_with_compute_stream and not reads)
        if handle is None:
            kept_ids = topk_idx.clone() if topk_idx is not None and do_handle_copy else topk_idx
            received, event, made = self._dispatch_anew((topk_idx, topk_weights, kept_ids), call, plan)
        else:
            worst = plan.num_worst_tokens
            earlier = Repeated(handle.buffer, handle.core, handle.topk_idx, worst, True, topk_weights)
            received, event = dispatch_again(self._engines, call, earlier)
            made = handle
        if stats is not None:
            add_rows(stats, made.num_recv_tokens_per_expert)
        recv_x = received_x(source, received, use_tma_aligned_col_major_sf)
        overlap = finished(async_with_compute_stream, event, source.x.is_cuda)
        return recv_x, received.topk_idx, received.topk_weights, made, overlap

    def _dispatch_anew(
        self, routing: tuple[Any, torch.Tensor | None, Any], call: Call, plan: Plan
    ) -> tuple[Any, Event | None, EPHandle]:
        """Args:
        routing: topk_idx, topk_weights, and the ids that the handle keeps.
        """
        topk_idx, topk_weights, kept_ids = routing
        x, top_k = call.source.x, topk_idx.shape[1]
        most = most_tokens(self.group_size, x.is_cuda)
        most = engine_tokens(plan.num_max_tokens_per_rank, self.num_max_tokens_per_rank, most)
        engine = self._engines.of(Shape(x.shape[1], plan.num_experts, top_k, x.device, most))
        interop.or_refuse(interop.refuse_dispatch, engine, check_tokens, x, plan)
        call = call._replace(rows=call.rows._replace(num_worst_tokens=plan.num_worst_tokens))
        try:
            received, event = dispatch(self._engines, engine, call, (topk_idx, topk_weights, None))
        except InvalidArgument as error:
            raise explained_rows(error) from error
        expanded = num_expanded_tokens(plan, self.group_size, top_k, received.tokens_per_expert)
        return received, event, EPHandle(plan, kept_ids, engine, received, expanded)

    # ---- combine ----

    def combine(
        self,
        x: torch.Tensor,
        handle: EPHandle,
        topk_weights: torch.Tensor | None = None,
        bias: torch.Tensor | tuple[torch.Tensor, ...] | None = None,
        num_sms: int = 0,
        num_qps: int = 0,
        previous_event: AnyEvent | None = None,
        previous_event_before_epilogue: AnyEvent | None = None,
        async_with_compute_stream: bool = False,
        allocate_on_comm_stream: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None, EventOverlap]:
        """Sends the rows of a dispatch back; each token gets the unweighted sum of its rows.

        The sum is unweighted in the expanded layout, too: for a weighted one, experts multiply their rows by
        recv_topk_weights. Padding rows are not read.

        Args:
            x: [n, H] bfloat16 (or float16, float32), in the rows of the dispatch.
            handle: the handle of the dispatch.
            topk_weights: [n, K] or (expanded) [n] float32. They travel back separately, as the gradient of a dispatch's
                topk_weights does.
            bias: 0, 1 or 2 tensors [N, H]: added to the sums.
            num_sms: CUDA: SMs of this call; 0: as in the dispatch.
            previous_event, previous_event_before_epilogue: the call starts after both.
            async_with_compute_stream: True: the event says when the call is done. On the CPU a call with topk_weights
                is done when it returns.
            num_qps, allocate_on_comm_stream: without effect.

        Returns:
            combined_x [N, H]; combined_topk_weights [N, K] float32, or None; the event.

        Raises the same as switchyard.Buffer.combine.
        """
        with self._engines.or_refuse(interop.refuse_combine, handle):
            mine = own(handle)
            after = event_of_both(previous_event, previous_event_before_epilogue, tensor("x", x))
            both, sms = biases_of(bias), number("num_sms", num_sms) or mine.plan.num_sms
        call = Sending(x, topk_weights, both, after, sms, async_with_compute_stream)
        return combine(self._engines, mine.buffer, mine.core, call)
