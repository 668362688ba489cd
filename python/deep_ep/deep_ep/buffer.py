"""DeepEP's Buffer (V1): the throughput mode, and what both modes share."""

from __future__ import annotations

from operator import index
from typing import Any, ClassVar, Sequence

import switchyard
import torch
from switchyard import InvalidArgument, interop
from switchyard.interop import opaque_calls

from ._agreement import check_agreement
from ._calls import (
    LatestOptions,
    Received,
    biases_of,
    combine,
    dispatch,
    dispatch_as_before,
    dispatch_options,
    is_queued,
    made_or_refused,
    routes_anew,
)
from ._calls import Routing as AnyRouting
from ._engines import Engines, LowLatencyBuffers, Sizes
from ._errors import number, tensor, wrong_type
from ._events import event_before, finished
from ._layout import any_layout, exchanged_counts, integers, layout_as_before
from ._local_memory import LocalMemory
from ._nodes import Nodes, remember_nodes
from ._runtime import Runtime
from ._source import Fp8Pair, source_of
from .config import Config
from .handle import DispatchHandle, flat_dispatch_of
from .internode import handle_of
from .low_latency import LowLatencyCalls
from .utils.event import AnyEvent, EventHandle, EventOverlap

Asked = tuple["Config | None", int, int]
"""config, expert_alignment, num_worst_tokens of a dispatch."""

When = tuple["AnyEvent | None", bool, bool]
"""previous_event, async_finish, allocate_on_comm_stream of a call."""


@opaque_calls
class Buffer(LowLatencyCalls):
    """Dispatch and combine between the ranks of a group. The constructor is collective, as are dispatch and combine.

    N tokens of this rank, H hidden, K top-k, E experts, R ranks, L = E/R local experts.

    Args:
        group: a torch.distributed process group of any back end.
        num_nvl_bytes: CUDA: bytes of GPU memory for results. CPU: no effect, since the heap grows as needed, up to
            SWITCHYARD_HEAP_BYTES bytes if that variable is set.
        num_rdma_bytes: bytes of get_local_buffer_tensor(use_rdma_buffer=True), allocated when it is called; no other
            effect: what calls need between nodes is there with any number, so that none is too small.
        num_qps_per_rank, allow_nvlink_for_low_latency_mode, allow_mnnvl, use_fabric: accepted, without effect: ranks
            that can share memory form a node, and the way between nodes is what the machine offers.
        low_latency_mode: whether the low-latency calls will be made, too.
        explicitly_destroy: True: the caller will call `destroy()`. False: the last reference destroys the buffer.
        enable_shrink: low-latency mode: a peer that ends or is late is masked, and callers may mask peers.
        comm: an mpi4py communicator, instead of group.

    Raises:
        InvalidArgument: both or neither of group and comm are given, num_nvl_bytes or num_rdma_bytes is below 0, or
            ranks pass different arguments.
        TypeError: one of these is no whole number.
        Timeout: a rank did not come.
    """

    num_sms: ClassVar[int] = 20
    _sms_were_set: ClassVar[bool] = False

    def __init__(
        self,
        group: Any = None,
        num_nvl_bytes: int = 0,
        num_rdma_bytes: int = 0,
        low_latency_mode: bool = False,
        num_qps_per_rank: int = 24,
        allow_nvlink_for_low_latency_mode: bool = True,
        allow_mnnvl: bool = False,
        use_fabric: bool = False,
        explicitly_destroy: bool = False,
        enable_shrink: bool = False,
        comm: Any = None,
    ) -> None:
        if (group is None) == (comm is None):
            raise InvalidArgument("group: expected exactly one of group (torch) and comm (mpi4py)")
        make = switchyard.Communicator.from_torch if comm is None else switchyard.Communicator.from_mpi
        self._communicator = make(group if comm is None else comm)
        self.group = group
        self.comm = comm
        self.rank = self._communicator.rank
        self.group_size = self._communicator.size
        self.num_nvl_bytes = num_nvl_bytes
        self.num_rdma_bytes = num_rdma_bytes
        self.low_latency_mode = low_latency_mode
        self.explicitly_destroy = explicitly_destroy
        self.enable_shrink = enable_shrink
        self._options = LatestOptions()
        self._engines = Engines(self._communicator, num_nvl_bytes)
        self._nodes = Nodes(self._communicator)
        remember_nodes(group, self._nodes)
        self._low_latency = LowLatencyBuffers(self._communicator, self._engines, enable_shrink)
        names = ("num_nvl_bytes", "num_rdma_bytes", "low_latency_mode", "enable_shrink")
        check_agreement(self._communicator, names, (num_nvl_bytes, num_rdma_bytes, low_latency_mode, enable_shrink))
        # Behind the agreement: what these refuse, all ranks refuse.
        self._nvl_memory = LocalMemory("num_nvl_bytes", num_nvl_bytes)
        self._rdma_memory = LocalMemory("num_rdma_bytes", num_rdma_bytes)

    def destroy(self) -> None:
        """Waits for queued work and leaves the group. Needs explicitly_destroy=True."""
        if not self.explicitly_destroy:
            raise InvalidArgument("destroy: expected Buffer(..., explicitly_destroy=True), seen False")
        self._low_latency.destroy()
        self._engines.destroy()
        self._communicator.destroy()

    def _check_usable(self) -> None:
        self._engines.check_usable()

    @property
    def runtime(self) -> Runtime | None:
        """Where this rank is; None after destroy()."""
        return None if self._engines.destroyed else Runtime(self.get_comm_stream, self._nodes)

    # ---- calls of this rank alone ----

    @staticmethod
    def is_sm90_compiled() -> bool:
        """Whether this build has the CUDA engine."""
        return interop.has_cuda

    @classmethod
    def set_num_sms(cls, new_num_sms: int) -> None:
        """Sets the SMs that later calls without a config take (CUDA), at most this rank's part of the GPU.

        Until it is called the engine chooses. Raises InvalidArgument unless the number is even and positive.
        """
        new_num_sms = number("num_sms", new_num_sms)
        if new_num_sms <= 0 or new_num_sms % 2:
            raise InvalidArgument(f"num_sms: expected an even number above 0, seen {new_num_sms}")
        Buffer.num_sms = new_num_sms
        Buffer._sms_were_set = True

    @staticmethod
    def capture() -> EventOverlap:
        """Returns an event for the work that is queued on the current stream so far."""
        return EventOverlap(EventHandle())

    @staticmethod
    def get_dispatch_config(num_ranks: int) -> Config:
        """Returns a config for a group of that size."""
        return Config(Buffer.num_sms)

    @staticmethod
    def get_combine_config(num_ranks: int) -> Config:
        """Returns a config for a group of that size."""
        return Config(Buffer.num_sms)

    def get_comm_stream(self) -> Any:
        """Returns the stream that calls run on (CUDA), or the current stream before the first dispatch.

        On the CPU it is torch.cpu.current_stream(), which does nothing.
        """
        self._check_usable()
        return self._engines.comm_stream()

    def get_local_buffer_tensor(
        self,
        dtype: torch.dtype,
        size: int | Sequence[int] | None = None,
        offset: int = 0,
        use_rdma_buffer: bool = False,
    ) -> torch.Tensor:
        """Returns a view of memory that no call reads or overwrites: num_nvl_bytes, and apart from it num_rdma_bytes.

        Args:
            dtype: the dtype of the view.
            size: the shape of the view; None: all of the memory, flat.
            offset: bytes to leave out at the start, a multiple of the dtype's size.
            use_rdma_buffer: True: a view of the num_rdma_bytes.

        Returns:
            The same memory in each call; it is zeros at first.

        Raises:
            InvalidArgument: the offset is beyond the memory or between elements, or the size is too large.
            TypeError: an argument is not a dtype, a shape, or a number.
            Unusable: after destroy().
        """
        self._check_usable()
        memory = self._rdma_memory if use_rdma_buffer else self._nvl_memory
        return memory.view(dtype, size, offset)

    def get_dispatch_layout(
        self,
        topk_idx: torch.Tensor,
        num_experts: int,
        previous_event: AnyEvent | None = None,
        async_finish: bool = False,
        allocate_on_comm_stream: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor, EventOverlap]:
        """Returns what a dispatch by topk_idx ([N, K] int64, -1: not selected) sends to whom. Not collective.

        Returns:
            num_tokens_per_rank [R] int32; num_tokens_per_rdma_rank [nodes] int32, where a token counts once for each
            node that it goes to, or None if all ranks are on one; num_tokens_per_expert [E] int32; is_token_in_rank
            [N, R] bool; the event.

        Raises:
            InvalidArgument: a wrong shape or dtype of topk_idx; allocate_on_comm_stream without previous_event and
                async_finish; on the CPU an id out of range, which on CUDA counts as not selected.
            TypeError: an argument is not a tensor, a number, or an event.
            Unusable: after destroy().
        """
        engines, made = self._engines, None
        if engines.on_gpu and engines.latest is not None and previous_event is None and not allocate_on_comm_stream:
            made = layout_as_before(engines.latest, topk_idx, num_experts, bool(async_finish))
        if made is None:
            when = previous_event, async_finish, allocate_on_comm_stream
            layout, event = self._layout_anew(topk_idx, num_experts, when)
            (per_rank, per_expert, in_rank), per_node = layout, layout.num_tokens_per_node
        else:
            (per_rank, per_expert, in_rank, per_node), event = made
        if per_node is None and self._nodes.count > 1:
            per_node = self._nodes.tokens_per_node(in_rank)
        return per_rank, per_node, per_expert, in_rank, finished(async_finish, event, event is not None)

    def _layout_anew(self, topk_idx: Any, num_experts: Any, when: When) -> tuple[switchyard.Layout, Any]:
        """Returns a layout, and its event or None. Checks all."""
        self._check_usable()
        tensor("topk_idx", topk_idx)
        num_experts = number("num_experts", num_experts)
        before = event_before(*when, topk_idx)
        if before is not None:
            EventHandle(before, topk_idx.is_cuda).current_stream_wait()
        buffer = self._engines.for_layout(topk_idx, num_experts)
        return any_layout(buffer, topk_idx, (num_experts, self.group_size), when[1])

    # ---- dispatch ----

    def dispatch(
        self,
        x: torch.Tensor | Fp8Pair,
        handle: DispatchHandle | None = None,
        num_tokens_per_rank: torch.Tensor | None = None,
        num_tokens_per_rdma_rank: torch.Tensor | None = None,
        is_token_in_rank: torch.Tensor | None = None,
        num_tokens_per_expert: torch.Tensor | None = None,
        topk_idx: torch.Tensor | None = None,
        topk_weights: torch.Tensor | None = None,
        expert_alignment: int = 1,
        num_worst_tokens: int = 0,
        config: Config | None = None,
        previous_event: AnyEvent | None = None,
        async_finish: bool = False,
        allocate_on_comm_stream: bool = False,
    ) -> tuple[Any, Any, Any, Any, Any, EventOverlap]:
        """Sends each token to the ranks that hold one of its experts.

        Args:
            x: [N, H] bfloat16; or (float8_e4m3fn [N, H], scales [N, H/128] float32 of any strides, or int32).
            handle: the handle of an earlier dispatch, whose routes this cached dispatch repeats. H must be as there;
                topk_idx and topk_weights must be None.
            num_tokens_per_rank, num_tokens_per_rdma_rank, is_token_in_rank, num_tokens_per_expert: the results of
                get_dispatch_layout. Routes follow topk_idx if it is given, else is_token_in_rank; the list of counts is
                then made from num_tokens_per_expert.
            topk_idx: [N, K] int64; -1: not selected.
            topk_weights: [N, K] float32.
            expert_alignment: counts are rounded up to it.
            num_worst_tokens: rows of the results; the call then does not wait for counts. Needs topk_idx.
            config: CUDA: its num_sms is the number of SMs that the call takes.
            previous_event: the call starts after it.
            async_finish: True: the call returns before it is done, and its event says when it is. On the CPU the call
                still waits for its rows unless num_worst_tokens is given, since their number is known only then.
            allocate_on_comm_stream: needs previous_event and async_finish.

        Returns:
            recv_x in the form of x, rows by source rank, then token; recv_topk_idx, local ids, -1 for experts of other
            ranks; recv_topk_weights; num_recv_tokens_per_expert_list (empty with num_worst_tokens); the handle; the
            event. With a handle, items 2 to 5 are None.

        Raises the same as switchyard.Buffer.dispatch.
        """
        if handle is not None:
            asked = config, expert_alignment, num_worst_tokens
            after = previous_event, async_finish, allocate_on_comm_stream
            return self._dispatch_again(x, handle, (topk_idx, topk_weights), asked, after)
        engine, received = self._engines.latest, None
        if engine is not None and topk_idx is not None and previous_event is None and not allocate_on_comm_stream:
            options = self._options_as_before(config, async_finish, expert_alignment, num_worst_tokens)
            experts: Any = num_tokens_per_expert
            if options is not None and type(experts) is not int:  # V2 alone takes a number
                received = dispatch_as_before(engine, x, topk_idx, topk_weights, experts, options)
        if received is None:
            asked = config, expert_alignment, num_worst_tokens
            after = previous_event, async_finish, allocate_on_comm_stream
            routing = topk_idx, topk_weights, is_token_in_rank if topk_idx is None else None
            engine, received = self._dispatch_anew(x, num_tokens_per_expert, routing, asked, after)
        assert engine is not None
        recv_x, recv_scales, recv_idx, recv_weights, counts, core, event = received
        on_gpu = async_finish and recv_x.is_cuda
        if recv_scales is not None:
            recv_x = recv_x, recv_scales
        worst = index(num_worst_tokens)
        # The caller may overwrite its ids before they are used again.
        uses_ids = topk_idx is not None and (is_token_in_rank is None or worst > 0)
        kept_ids = topk_idx.clone() if topk_idx is not None and uses_ids else None
        made = handle_of(core, engine, (kept_ids, is_token_in_rank, worst, self._communicator, self._nodes))
        if topk_idx is None and num_tokens_per_expert is not None:
            counts = exchanged_counts(num_tokens_per_expert, index(expert_alignment), self._communicator)
        return recv_x, recv_idx, recv_weights, counts, made, finished(async_finish, event, on_gpu)

    def _options_as_before(
        self, config: Config | None, asynchronous: bool, alignment: int, worst: int
    ) -> interop.CallOptions | None:
        """Returns options for a call like the latest; None: an argument is wrong."""
        engines = self._engines
        on_gpu, engine = engines.on_gpu, engines.latest
        try:
            key = bool(asynchronous), index(alignment), index(worst), _wanted_sms(config)
            found = self._options.find(engine, None, key)
            if found is not None:
                return found
            queued = on_gpu or key[2] > 0 if key[0] else False
            rows, sms = (key[1], False, False), engines.num_sms_as_before(key[3])
            return self._options.keep(engine, None, key, dispatch_options(sms, queued, rows, key[2], not on_gpu))
        except Exception:
            return None  # and the call says which

    def _dispatch_anew(
        self, x: Any, per_expert: torch.Tensor | None, routing: AnyRouting, asked: Asked, when: When
    ) -> tuple[switchyard.Buffer, Received]:
        """Dispatches by ids, or by token_in_rank: checks all that the engine does not, and may make an engine."""
        engines = self._engines
        try:
            rows, scales, after, sms, alignment, worst = _checked(x, asked, when)
            sizes = _sizes_of(rows, routing[0], per_expert)
        except Exception:
            engines.refuse(interop.refuse_dispatch, None)
            raise
        engine = engines.of(sizes)
        queued = is_queued(when[1], rows, worst)
        key = engines.num_sms(sms, rows), queued, (alignment, False, False), worst, not rows.is_cuda
        options = made_or_refused(interop.refuse_dispatch, engine, after, dispatch_options, *key)
        return engine, dispatch(engine, rows, scales, routing, options)

    def _dispatch_again(
        self, x: Any, handle: Any, given: tuple[Any, Any], asked: Asked, when: When
    ) -> tuple[Any, None, None, None, None, EventOverlap]:
        engines = self._engines
        try:
            rows, scales, after, sms, alignment, worst = _checked(x, asked, when)
            earlier = flat_dispatch_of(handle)
            if given[0] is not None or given[1] is not None:
                raise InvalidArgument("handle: expected no topk_idx and no topk_weights with it, seen some")
        except Exception:
            engines.refuse(interop.refuse_dispatch, handle)
            raise
        engine, routing = earlier.buffer, earlier.routing
        along: AnyRouting = (None, None, earlier.core)
        if routes_anew(routing.num_worst_tokens, rows):
            along, worst = (routing.topk_idx, None, None), routing.num_worst_tokens
        queued = is_queued(when[1], rows, worst)
        key = engines.num_sms(sms, rows), queued, (alignment, False, False), worst, False
        options = made_or_refused(interop.refuse_dispatch, engine, after, dispatch_options, *key)
        received = dispatch(engine, rows, scales, along, options)
        recv_x = received[0] if scales is None else received[:2]
        return recv_x, None, None, None, None, finished(when[1], received[6], rows.is_cuda)

    # ---- combine ----

    def combine(
        self,
        x: torch.Tensor,
        handle: DispatchHandle,
        topk_weights: torch.Tensor | None = None,
        bias: torch.Tensor | tuple[torch.Tensor, ...] | None = None,
        config: Config | None = None,
        previous_event: AnyEvent | None = None,
        async_finish: bool = False,
        allocate_on_comm_stream: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None, EventOverlap]:
        """Sends the rows of a dispatch back; each token gets the unweighted sum of its rows.

        Args:
            x: [n, H] bfloat16 (or float16, float32), in the rows of the dispatch.
            handle: the handle of the dispatch.
            topk_weights: [n, K] float32: summed up like the rows, separately: all K slots of all ranks that have the
                token, whichever rank owns a slot's expert.
            bias: 0, 1 or 2 tensors [N, H]: added to the sums.
            config, previous_event, async_finish, allocate_on_comm_stream: as in dispatch. On the CPU an asynchronous
                call with topk_weights still waits for its results.

        Returns:
            combined_x [N, H]; combined_topk_weights [N, K] float32, or None; the event.

        Raises the same as switchyard.Buffer.combine.
        """
        engines = self._engines
        try:
            own = flat_dispatch_of(handle)
            after = event_before(previous_event, async_finish, allocate_on_comm_stream, tensor("x", x))
            rows, sms = (x, topk_weights, biases_of(bias)), engines.num_sms(_wanted_sms(config), x)
        except Exception:
            engines.refuse(interop.refuse_combine, handle)
            raise
        return combine(own.buffer, own.core, rows, after, sms, async_finish, True)

    # For callers that choose by the number of nodes themselves.
    internode_dispatch, internode_combine = dispatch, combine


def _wanted_sms(config: Config | None) -> int:
    """Returns the SMs that a call asks for; 0: the engine chooses."""
    if config is None:
        return Buffer.num_sms if Buffer._sms_were_set else 0
    if not isinstance(config, Config):
        raise wrong_type("config", "a Config", config)
    return number("config.num_sms", config.num_sms)


def _checked(x: Any, asked: Asked, when: When) -> tuple[torch.Tensor, Any, Any, int, int, int]:
    """Returns x, its scales, what the call starts after, its SMs, its alignment and its worst case, all checked."""
    config, expert_alignment, num_worst_tokens = asked
    rows, scales = source_of(x)
    after = event_before(*when, rows)
    sms, alignment = _wanted_sms(config), number("expert_alignment", expert_alignment)
    return rows, scales, after, sms, alignment, number("num_worst_tokens", num_worst_tokens)


def _sizes_of(x: torch.Tensor, topk_idx: torch.Tensor | None, per_expert: torch.Tensor | None) -> Sizes:
    if per_expert is None:
        raise InvalidArgument("num_tokens_per_expert: expected the result of get_dispatch_layout, seen None")
    counts = tensor("num_tokens_per_expert", per_expert).shape
    if per_expert.dtype not in integers:
        raise InvalidArgument(f"num_tokens_per_expert: expected integers, seen {per_expert.dtype}")
    if len(counts) != 1:
        raise InvalidArgument(f"num_tokens_per_expert: expected a tensor [experts], seen shape {list(counts)}")
    if topk_idx is not None and tensor("topk_idx", topk_idx).ndim != 2:
        raise InvalidArgument(f"topk_idx: expected a tensor [tokens, top-k], seen shape {list(topk_idx.shape)}")
    return x.shape[1], counts[0], 1 if topk_idx is None else topk_idx.shape[1], x.device, 0
