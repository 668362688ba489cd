"""DeepEP's ElasticBuffer (V2)."""

from __future__ import annotations

from typing import Any

import switchyard
import torch
from switchyard import InvalidArgument, interop
from switchyard.interop import opaque_calls

from ._agreement import check_agreement
from ._calls import (
    LatestOptions,
    Received,
    Routing,
    biases_of,
    combine,
    dispatch,
    dispatch_as_before,
    dispatch_options,
    is_queued,
    made_or_refused,
    routes_anew,
)
from ._elastic_plan import check_tokens, explained_rows, own, plan_of
from ._elastic_sizes import engine_tokens, heap_bytes
from ._engines import Engines, most_tokens
from ._errors import in_our_words, number, tensor
from ._events import event_of_both, finished
from ._layout import add_rows, check_stats
from ._nodes import Nodes, remember_nodes
from ._source import Fp8Pair, column_major, source_of
from .ep_handle import EPHandle, Plan, theoretical_num_sms
from .utils.event import AnyEvent, EventHandle, EventOverlap


def _in_torch(plan: Plan, like: torch.Tensor) -> bool:
    """Whether copies are made in PyTorch's memory: in a graph they live as long as that, and those in a heap do not.

    A dispatch whose host waits for counts cannot be captured.
    """
    return plan.num_worst_tokens > 0 and like.is_cuda


def _add_received(stats: torch.Tensor, handle: EPHandle) -> None:
    try:
        added = interop.add_received(handle.buffer, handle.core, stats)
    except InvalidArgument as error:
        raise in_our_words(error) from error
    if not added:
        add_rows(stats, handle.num_recv_tokens_per_expert)


def _by_column(scales: torch.Tensor, handle: EPHandle) -> torch.Tensor:
    if handle.core.scales_by_column:
        return scales
    columns = None if _in_torch(handle.plan, scales) else interop.by_column(handle.buffer, scales)
    return column_major(scales) if columns is None else columns


Events = tuple["AnyEvent | None", "AnyEvent | None"]
"""previous_event, previous_event_before_epilogue."""


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
        deterministic: without effect: sums are always made in the same order.
        allow_multiple_reduction: several nodes: whether the sum that a node makes of a token's rows is rounded to their
            dtype before it travels back. False: it travels as float32, and all sums are rounded once, at the end, as on
            one node.
        allow_hybrid_mode: chooses what get_logical_domain_size says; a token crosses to a node once in either mode.
        sl_idx, num_allocated_qps: without effect.
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
        NotImplementedError: num_cpu_bytes is not 0.
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
        self._nodes = Nodes(self._communicator)
        remember_nodes(group, self._nodes)
        self.num_scaleout_ranks, self.num_scaleup_ranks = self.get_logical_domain_size()
        self.scaleout_rank_idx, self.scaleup_rank_idx = divmod(self.rank_idx, self.num_scaleup_ranks)
        self.num_rdma_ranks, self.num_nvlink_ranks = self.get_physical_domain_size()
        timeouts = {"cpu": float(num_cpu_timeout_secs), "cuda": float(num_gpu_timeout_secs)}
        self._options = LatestOptions()
        self._engines = Engines(self._communicator, num_bytes, timeouts, f32_partials=not allow_multiple_reduction)
        names = ("num_bytes", "num_max_tokens_per_rank", "allow_multiple_reduction")
        given = (num_bytes, num_max_tokens_per_rank, bool(allow_multiple_reduction))
        check_agreement(self._communicator, names, given)

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
        """Returns the number of nodes, and of ranks on this rank's node, which may be more or fewer than on others."""
        return self._nodes.physical_size()

    def get_logical_domain_size(self) -> tuple[int, int]:
        """Returns the number of scale-out ranks and of scale-up ranks, whose product is R.

        They are the nodes and the ranks of each if all nodes have the same number of ranks, one after the other.
        Otherwise, and without allow_hybrid_mode, they are 1 and R.
        """
        return self._nodes.logical_size(bool(self.allow_hybrid_mode))

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
        """Returns 0: Switchyard makes the connections that it needs, and calls choose none."""
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
                strides, or int32 of 1 to as many columns).
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
                without CPU sync; other calls have waited for their rows. With stats, column-major scales the current
                stream waits for the rows.
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
        stats, engines = cumulative_local_expert_recv_stats, self._engines
        try:
            asked = (num_experts, num_max_tokens_per_rank, expert_alignment, num_sms, do_cpu_sync, do_expand)
            plan = plan_of(handle, topk_idx, asked, (self.group_size, self.num_max_tokens_per_rank))
            if stats is not None:
                check_stats(stats, interop.local_experts(plan.num_experts, self.rank, self.group_size))
            by_column = use_tma_aligned_col_major_sf and isinstance(x, tuple) and len(x) == 2 and x[1] is not None
            queued = stats is None and not by_column if async_with_compute_stream else False
        except Exception:
            engines.refuse(interop.refuse_dispatch, handle)
            raise
        engine, received, counted = engines.latest, None, False
        no_event = previous_event is None and previous_event_before_epilogue is None
        try:
            if handle is None and no_event and engine is not None:
                options = self._options_as_before(plan, queued, do_zero_padding, do_handle_copy, by_column)
                if options is not None:
                    received = dispatch_as_before(engine, x, topk_idx, topk_weights, plan.num_experts, options, stats)
                    counted = received is not None
            if received is None:
                how, events = (plan, queued, do_zero_padding), (previous_event, previous_event_before_epilogue)
                engine, received = self._dispatch_checked(x, (topk_idx, topk_weights), handle, how, events)
        except InvalidArgument as error:
            raise explained_rows(error) from error
        recv_x, recv_scales, recv_idx, recv_weights, counts, core, event = received
        on_gpu = async_with_compute_stream and recv_x.is_cuda
        made = handle
        if made is None:
            assert topk_idx is not None and engine is not None  # there is a result
            made = EPHandle(plan, engine, core, counts, self.num_scaleup_ranks)
            # On a GPU after the dispatch, which needs no copy and should not wait for one.
            if not do_handle_copy:
                made.topk_idx = topk_idx
            elif not core.keeps_ids:
                made.topk_idx = topk_idx.clone()
        if stats is not None and not counted:
            _add_received(stats, made)
        if recv_scales is not None:
            recv_x = recv_x, _by_column(recv_scales, made) if by_column else recv_scales
        return recv_x, recv_idx, recv_weights, made, finished(async_with_compute_stream, event, on_gpu)

    def _options_as_before(
        self, plan: Plan, queued: bool, zero_padding: bool, keep_ids: bool, by_column: bool
    ) -> interop.CallOptions | None:
        """Returns options for a call like the latest; None: it is not like that."""
        engines, worst = self._engines, plan.num_worst_tokens
        engine, sizes, most = engines.latest, engines.latest_sizes, plan.num_max_tokens_per_rank
        try:
            key = queued, bool(zero_padding), bool(keep_ids), bool(by_column)
            found = self._options.find(engine, plan, key)
            if found is not None:
                return found
            if sizes is None or sizes[4] != self._engine_tokens(most, engines.on_gpu):
                return None
            queued = queued and (engines.on_gpu or worst > 0)  # a bool, as options want it
            sms = engines.num_sms_as_before(plan.num_sms)
            by_column = key[3] and not (engines.on_gpu and worst > 0)  # see _in_torch
            rows, copies = (plan.expert_alignment, plan.do_expand, key[1]), (key[2], by_column)
            made = dispatch_options(sms, queued, rows, worst, False, max(most, 0), copies)
            return self._options.keep(engine, plan, key, made)
        except Exception:
            return None  # and the call says which argument is wrong

    def _dispatch_checked(
        self, x: Any, ids: tuple[Any, Any], handle: EPHandle | None, how: tuple[Plan, bool, bool], events: Events
    ) -> tuple[switchyard.Buffer, Received]:
        """Checks all that the engine does not, and may make an engine, which it returns, too.

        Args:
            ids: topk_idx, topk_weights.
            how: the plan; whether the call may be queued; do_zero_padding.
        """
        engines, (plan, queued, zero_padding) = self._engines, how
        try:
            rows, scales = source_of(x)
            after, zero_padding = event_of_both(*events, rows), bool(zero_padding)
        except Exception:
            engines.refuse(interop.refuse_dispatch, handle)
            raise
        worst = plan.num_worst_tokens
        if handle is None:
            engine = self._engine_for(rows, ids[0].shape[1], plan)
            routing: Routing = (*ids, None)
        else:
            engine, worst = handle.buffer, worst if routes_anew(worst, rows) else 0
            routing = (handle.topk_idx, ids[1], handle.core if worst == 0 else None)
        queued = is_queued(queued, rows, worst)
        sms = engines.num_sms(plan.num_sms, rows)
        key = sms, queued, (plan.expert_alignment, plan.do_expand, zero_padding), worst, False
        options = made_or_refused(interop.refuse_dispatch, engine, after, dispatch_options, *key)
        return engine, dispatch(engine, rows, scales, routing, options)

    def _engine_tokens(self, of_call: int, on_gpu: bool) -> int:
        of_buffer = self.num_max_tokens_per_rank
        if of_call == of_buffer >= 0:
            return of_buffer
        return engine_tokens(of_call, of_buffer, most_tokens(self.group_size, on_gpu))

    def _engine_for(self, x: torch.Tensor, top_k: int, plan: Plan) -> switchyard.Buffer:
        most = self._engine_tokens(plan.num_max_tokens_per_rank, x.is_cuda)
        engine = self._engines.of((x.shape[1], plan.num_experts, top_k, x.device, most))
        interop.or_refuse(interop.refuse_dispatch, engine, check_tokens, x, plan)
        return engine

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
        engines = self._engines
        try:
            mine = own(handle)
            after = event_of_both(previous_event, previous_event_before_epilogue, tensor("x", x))
            rows, sms = (x, topk_weights, biases_of(bias)), number("num_sms", num_sms) or mine.plan.num_sms
        except Exception:
            engines.refuse(interop.refuse_combine, handle)
            raise
        sms = engines.num_sms(sms, x)
        return combine(mine.buffer, mine.core, rows, after, sms, async_with_compute_stream, False)
