"""DeepEP's Buffer (V1): what both modes share, and the throughput mode."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Sequence

import switchyard
import torch
from switchyard import Event, InvalidArgument, _core
from switchyard._refusal import or_refuse, refuse_combine, refuse_dispatch

from ._calls import Rows, biases, call_options, event_before, finished
from ._checks import number, tensor, wrong_type
from ._engine_calls import run_combine, run_dispatch
from ._engines import Engines, Shape
from ._group import check_agreement
from ._layout import any_layout
from ._local_memory import LocalMemory
from ._source import Fp8Pair, Source, received_x, source_of
from .config import Config
from .handle import DispatchHandle, Routing
from .low_latency import LowLatencyBuffers, LowLatencyCalls
from .utils import EventHandle, EventOverlap


class Buffer(LowLatencyCalls):
    """Dispatch and combine between the ranks of a group. Collective, as are dispatch and combine.

    N tokens of this rank, H hidden, K top-k, E experts, R ranks, L = E/R local experts.

    Args:
        group: a torch.distributed process group of any back end.
        num_nvl_bytes: CUDA: bytes of GPU memory for results; CPU: no meaning, the heap grows as it needs
            (up to SWITCHYARD_HEAP_BYTES bytes, if that variable is set).
        num_rdma_bytes: of get_local_buffer_tensor, which takes them when it is asked; else without effect on one
            machine.
        num_qps_per_rank, allow_nvlink_for_low_latency_mode, allow_mnnvl, use_fabric: taken, and without effect on one
            machine.
        low_latency_mode: the low-latency calls will be made, too.
        explicitly_destroy: `destroy()` will be called; else the buffer goes with its last reference.
        enable_shrink: low-latency mode: a peer that ends or is late is masked, and others can be.
        comm: an mpi4py communicator, instead of group.

    Raises:
        InvalidArgument: neither or both of group and comm; ranks that pass different arguments.
        Unsupported: ranks on several machines.
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
        self._engines = Engines(self._communicator, num_nvl_bytes)
        self._low_latency = LowLatencyBuffers(self._communicator, enable_shrink)
        self._nvl_memory, self._rdma_memory = LocalMemory(num_nvl_bytes), LocalMemory(num_rdma_bytes)
        names = ("num_nvl_bytes", "num_rdma_bytes", "low_latency_mode", "enable_shrink")
        check_agreement(self._communicator, names, (num_nvl_bytes, num_rdma_bytes, low_latency_mode, enable_shrink))

    def destroy(self) -> None:
        """Waits for queued work and leaves the group. Needs explicitly_destroy=True."""
        if not self.explicitly_destroy:
            raise InvalidArgument("destroy: expected Buffer(..., explicitly_destroy=True), seen False")
        self._low_latency.destroy()
        self._engines.destroy()
        self._communicator.destroy()

    def _check_usable(self) -> None:
        self._engines.check_usable()

    # ---- what needs no ranks ----

    @staticmethod
    def is_sm90_compiled() -> bool:
        """Whether this build has the CUDA engine."""
        return bool(_core.has_cuda)

    @classmethod
    def set_num_sms(cls, new_num_sms: int) -> None:
        """SMs that later calls without a config take (CUDA), at most this rank's part of the GPU; until it is called
        the engine chooses. Raises InvalidArgument unless even and positive.
        """
        new_num_sms = number("num_sms", new_num_sms)
        if new_num_sms <= 0 or new_num_sms % 2:
            raise InvalidArgument(f"num_sms: expected an even number above 0, seen {new_num_sms}")
        Buffer.num_sms = new_num_sms
        Buffer._sms_were_set = True

    @staticmethod
    def capture() -> EventOverlap:
        """An event of what is queued on the current stream so far."""
        return EventOverlap(EventHandle())

    @staticmethod
    def get_dispatch_config(num_ranks: int) -> Config:
        """A config for a group of that size."""
        return Config(Buffer.num_sms)

    @staticmethod
    def get_combine_config(num_ranks: int) -> Config:
        """A config for a group of that size."""
        return Config(Buffer.num_sms)

    def get_comm_stream(self) -> Any:
        """CUDA: the stream that calls run on; before the first dispatch the current one, which calls follow. CPU:
        PyTorch's stand-in for one.
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
        """Memory of this rank, num_nvl_bytes of it and num_rdma_bytes apart from these, that no call reads or
        overwrites.

        Args:
            dtype: what to see it as.
            size: shape; None: all of it, flat.
            offset: bytes to leave out at the start, a multiple of the dtype's size.
            use_rdma_buffer: the num_rdma_bytes.

        Returns:
            The same memory in each call; zeros at first.

        Raises:
            InvalidArgument: an offset beyond the memory, or between elements; a size that is too large.
            TypeError: what is no dtype, no shape, or no number.
            Unusable: after destroy().
        """
        self._check_usable()
        memory = self._rdma_memory if use_rdma_buffer else self._nvl_memory
        return memory.view(dtype, size, offset)

    def get_dispatch_layout(
        self,
        topk_idx: torch.Tensor,
        num_experts: int,
        previous_event: EventOverlap | None = None,
        async_finish: bool = False,
        allocate_on_comm_stream: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor, EventOverlap]:
        """What a dispatch by topk_idx ([N, K] int64, -1: not selected) sends to whom.

        Returns:
            num_tokens_per_rank [R] int32; None (ranks are of one machine); num_tokens_per_expert [E] int32;
            is_token_in_rank [N, R] bool; the event.

        Raises, on this rank alone:
            InvalidArgument: shape or dtype of topk_idx; CPU: an id out of range (CUDA: it counts as not used);
                allocate_on_comm_stream alone.
            TypeError: what is no tensor, no number, or no EventOverlap.
            Unusable: after destroy().
        """
        self._check_usable()
        tensor("topk_idx", topk_idx)
        num_experts = number("num_experts", num_experts)
        before = event_before(previous_event, async_finish, allocate_on_comm_stream, topk_idx)
        if before is not None and previous_event is not None:
            previous_event.current_stream_wait()
        buffer = self._engines.for_layout(topk_idx, num_experts)
        layout, event = any_layout(buffer, topk_idx, (num_experts, self.group_size), async_finish)
        per_rank, per_expert, in_rank = layout
        return per_rank, None, per_expert, in_rank, finished(async_finish, event, event is not None)

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
        previous_event: EventOverlap | None = None,
        async_finish: bool = False,
        allocate_on_comm_stream: bool = False,
    ) -> tuple[Any, Any, Any, Any, Any, EventOverlap]:
        """Sends each token to the ranks that hold one of its experts.

        Args:
            x: [N, H] bfloat16; or (float8_e4m3fn [N, H], scales [N, H/128] float32 of any strides, or int32).
            handle: cached: as in the dispatch that it is of, H too; then no topk_idx and no topk_weights.
            num_tokens_per_rank, num_tokens_per_rdma_rank, is_token_in_rank, num_tokens_per_expert: of
                get_dispatch_layout. Routes follow topk_idx if it is given, else is_token_in_rank.
            topk_idx: [N, K] int64; -1: not selected.
            topk_weights: [N, K] float32.
            expert_alignment: counts are rounded up to it.
            num_worst_tokens: rows of the results; no wait for counts. Needs topk_idx.
            config: CUDA: its num_sms.
            previous_event: the call starts after it.
            async_finish: the event says when it is done. CPU: unless num_worst_tokens is given the call still waits
                for its rows, since their number is known only then.
            allocate_on_comm_stream: needs both of these.

        Returns:
            recv_x as x, rows by source rank, then token; recv_topk_idx, local ids, -1 where not ours;
            recv_topk_weights; num_recv_tokens_per_expert_list (empty with num_worst_tokens); handle; event. With a
            handle, items 2 to 5 are None.

        Raises what switchyard.Buffer.dispatch raises.
        """
        try:
            source = source_of(x)
            after = event_before(previous_event, async_finish, allocate_on_comm_stream, source.x)
            call = _Call(source, after, _wanted_sms(config), async_finish and not source.columns)
            keep = handle is None and not source.x.is_cuda
            alignment = number("expert_alignment", expert_alignment)
            rows = Rows(alignment, number("num_worst_tokens", num_worst_tokens), source_tokens=keep)
            if handle is not None:
                _check_cached(handle, topk_idx, topk_weights)
            else:
                shape = _shape_of(source.x, topk_idx, num_tokens_per_expert)
        except Exception:
            self._engines.refuse(refuse_dispatch, handle)
            raise
        if handle is not None:
            received, event = self._dispatch_cached(handle, call, rows)
            overlap = finished(async_finish, event, source.x.is_cuda)
            return received_x(source, received, False), None, None, None, None, overlap
        engine = self._engines.of(shape)
        inputs = (topk_idx, topk_weights, is_token_in_rank if topk_idx is None else None)
        received, event = self._run(engine, call, inputs, rows)
        recv_x, overlap = received_x(source, received, False), finished(async_finish, event, source.x.is_cuda)
        routing = Routing(topk_idx, is_token_in_rank, rows.num_worst_tokens, self._communicator)
        made = DispatchHandle(received.handle, engine, routing)
        return recv_x, received.topk_idx, received.topk_weights, received.tokens_per_expert, made, overlap

    def _run(
        self, engine: switchyard.Buffer, call: _Call, routing: tuple[Any, Any, Any], rows: Rows
    ) -> tuple[Any, Event | None]:
        x = call.source.x
        sms = self._engines.num_sms(call.num_sms, x)
        options = or_refuse(refuse_dispatch, engine._core, call_options, x, call.after, sms, rows)
        return run_dispatch(engine, (x, call.source.scales, *routing), options, call.queued)

    def _dispatch_cached(self, handle: DispatchHandle, call: _Call, rows: Rows) -> tuple[Any, Event | None]:
        if not _routes_anew(handle, call):
            return self._run(handle.buffer, call, (None, None, handle.core), rows)
        asked = handle.routing
        rows = rows._replace(num_worst_tokens=asked.num_worst_tokens)
        return self._run(handle.buffer, call, (asked.topk_idx, None, None), rows)

    # ---- combine ----

    def combine(
        self,
        x: torch.Tensor,
        handle: DispatchHandle,
        topk_weights: torch.Tensor | None = None,
        bias: torch.Tensor | tuple[torch.Tensor, ...] | None = None,
        config: Config | None = None,
        previous_event: EventOverlap | None = None,
        async_finish: bool = False,
        allocate_on_comm_stream: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None, EventOverlap]:
        """Sends the rows of a dispatch back; each token gets the unweighted sum of its rows.

        Args:
            x: [n, H] bfloat16 (or float16, float32), in the rows of the dispatch.
            handle: of the dispatch.
            topk_weights: [n, K] float32: summed up like the rows, separately.
            bias: 0, 1 or 2 tensors [N, H]: added to the sums.
            config, previous_event, async_finish, allocate_on_comm_stream: as in dispatch. CPU: with topk_weights an
                asynchronous call still waits for its results.

        Returns:
            combined_x [N, H]; combined_topk_weights [N, K] float32, or None; the event.

        Raises what switchyard.Buffer.combine raises.
        """
        try:
            core, engine = _own(handle)
            after = event_before(previous_event, async_finish, allocate_on_comm_stream, tensor("x", x))
            both, wanted_sms = biases(bias), _wanted_sms(config)
        except Exception:
            self._engines.refuse(refuse_combine, handle)
            raise
        sms = self._engines.num_sms(wanted_sms, x)
        options = or_refuse(refuse_combine, engine._core, call_options, x, after, sms)
        combined, weights, event = run_combine(engine, (x, core, topk_weights), both, options, async_finish)
        return combined, weights, finished(async_finish, event, x.is_cuda)


class _Call(NamedTuple):
    """A dispatch, but for its routing."""

    source: Source
    after: Event | None
    num_sms: int
    queued: bool


def _routes_anew(handle: DispatchHandle, call: _Call) -> bool:
    """The CUDA engine's cached dispatches wait on the host until no rank refuses; those of the worst case must not, and
    the same ids make the same rows.
    """
    return handle.routing.num_worst_tokens > 0 and call.source.x.is_cuda


def _wanted_sms(config: Config | None) -> int:
    """0: as the engine chooses."""
    if config is None:
        return Buffer.num_sms if Buffer._sms_were_set else 0
    if not isinstance(config, Config):
        raise wrong_type("config", "a Config", config)
    return number("config.num_sms", config.num_sms)


def _own(handle: Any) -> tuple[_core.Handle, switchyard.Buffer]:
    if not isinstance(handle, DispatchHandle):
        raise wrong_type("handle", "what dispatch returned", handle)
    return handle.core, handle.buffer


def _check_cached(handle: Any, topk_idx: Any, topk_weights: Any) -> None:
    """Other arguments of get_dispatch_layout may be there; the handle knows better."""
    _own(handle)
    if topk_idx is not None or topk_weights is not None:
        raise InvalidArgument("handle: expected no topk_idx and no topk_weights beside it, seen some")


def _shape_of(x: torch.Tensor, topk_idx: torch.Tensor | None, per_expert: torch.Tensor | None) -> Shape:
    if per_expert is None:
        raise InvalidArgument("num_tokens_per_expert: expected it of get_dispatch_layout, seen None")
    counts = tensor("num_tokens_per_expert", per_expert).shape
    if len(counts) != 1:
        raise InvalidArgument(f"num_tokens_per_expert: expected a tensor [experts], seen shape {list(counts)}")
    if topk_idx is not None and tensor("topk_idx", topk_idx).ndim != 2:
        raise InvalidArgument(f"topk_idx: expected a tensor [tokens, top-k], seen shape {list(topk_idx.shape)}")
    return Shape(x.shape[1], counts[0], 1 if topk_idx is None else topk_idx.shape[1], x.device)
