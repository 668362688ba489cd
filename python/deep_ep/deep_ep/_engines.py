"""The buffers of the engine behind a buffer of deep_ep. They are made when the shapes of calls become known."""

from __future__ import annotations

from typing import Any, Callable, Iterable, NamedTuple

import switchyard
import torch
from switchyard import InvalidArgument, interop

from ._agreement import check_same_call, meet_in
from ._errors import in_our_words, made_by_all
from .handle import FlatDispatch, remembered

# ---- throughput mode ----


class Shape(NamedTuple):
    """The sizes that a buffer of the engine is made for. A call of another shape goes to another buffer."""

    hidden: int
    num_experts: int
    top_k: int
    device: torch.device
    max_tokens: int = 0
    """Tokens of a rank; 0: as many as the engine can take, since nobody knows the number beforehand."""

    def call(self) -> str:
        """Returns what ranks compare: GPUs have different numbers on different ranks."""
        most = f", num_max_tokens_per_rank {self.max_tokens}" if self.max_tokens else ""
        return f"a dispatch of {_sizes_of(self)}{most}"


def _sizes_of(shape: Shape | LowLatencyShape) -> str:
    return f"hidden {shape.hidden}, num_experts {shape.num_experts}, top-k {shape.top_k}, on {shape.device.type}"


_most_rows = 2**31 - 1
_most_tokens_on_gpus = 1 << 20  # on a GPU each token takes memory beforehand: 8 bytes for each rank, or each of top_k


def most_tokens(num_ranks: int, on_gpu: bool) -> int:
    """Returns the most tokens of a rank that an engine can take."""
    most = _most_rows // num_ranks // 64
    return min(most, _most_tokens_on_gpus) if on_gpu else most


Sizes = tuple[int, int, int, torch.device, int]
"""The items of a Shape, which is equal to them and takes longer to make."""


class Engines:
    """Buffers of the engine, by shape. Making one is collective, as is the call that needs it.

    Args:
        communicator: the ranks.
        num_bytes: CUDA: bytes of each heap at first, which grows when results need it; 0: switchyard.Buffer chooses.
        timeouts: seconds that a wait for a peer may take, by type of device; 0: switchyard.Buffer chooses.
        f32_partials: whether sums that travel between nodes stay float32.
    """

    def __init__(
        self,
        communicator: switchyard.Communicator,
        num_bytes: int,
        timeouts: dict[str, float] | None = None,
        f32_partials: bool = False,
    ) -> None:
        self._communicator = communicator
        self._f32_partials = f32_partials
        self._num_bytes = num_bytes
        self._timeouts = timeouts or {}
        self._buffers: dict[Shape, switchyard.Buffer] = {}
        self._on_gpus: dict[tuple[torch.device, int, int], switchyard.Buffer] = {}
        """The first buffer for each device, number of experts and top-k, on which alone a layout depends."""
        self._most_sms: dict[torch.device, int] = {}
        self.latest: switchyard.Buffer | None = None
        """The buffer of the latest dispatch without a handle. When this rank refuses a call, its peers are most likely
        in a call of this buffer, and the next call of this rank most likely is one.
        """
        self.latest_sizes: Sizes | None = None
        self.on_gpu = False
        """Whether the latest dispatch was one on a GPU."""
        self.destroyed = False

    def of(self, sizes: Sizes) -> switchyard.Buffer:
        """Raises InvalidArgument, on all ranks, when a peer calls with another shape."""
        found = self._buffers.get(sizes)  # type: ignore[call-overload]
        if found is None:
            self.check_usable()
            shape = Shape(*sizes)
            found = self._buffers[shape] = self._make(shape)
            if shape.device.type == "cuda":
                self._on_gpus.setdefault((shape.device, shape.num_experts, shape.top_k), found)
        if found is not self.latest:
            self.latest, self.latest_sizes, self.on_gpu = found, sizes, sizes[3].type == "cuda"
        return found

    def check_usable(self) -> None:
        if self.destroyed:
            raise switchyard.Unusable("Buffer: it was destroyed, make a new one")

    def refuse(self, refuse: Refuse, handle: Any) -> None:
        """Makes the peers' call fail with InvalidArgument, since this rank cannot make it.

        The peers are in a call along the handle, if there is one, and in a call of the latest engine otherwise. Before
        the first call there is no engine to reach them by, and they wait until their deadlines.
        """
        if type(handle) in (tuple, list):  # the items of a handle
            handle = remembered(handle, FlatDispatch)
        engine = getattr(handle, "buffer", None)
        if not isinstance(engine, switchyard.Buffer):
            engine = self.latest
        if engine is not None:
            refuse(engine)

    def _agree_on(self, shape: Shape) -> None:
        """Collective."""
        self.meet(shape.call())
        check_same_call(self._communicator, shape.call())

    def meet(self, call: str) -> None:
        """Makes sure that no peer is in a call of the latest engine, if there is one. Collective. See meet_in."""
        if self.latest is None:
            return
        device = next(each.device for each, buffer in self._buffers.items() if buffer is self.latest)
        meet_in(self.latest, device, call)

    def for_layout(self, topk_idx: Any, num_experts: int) -> switchyard.Buffer | None:
        """Returns a buffer whose engine has a kernel for layouts: on a GPU, once a dispatch has made one.

        Returns None while a graph is captured: the memory that a graph writes must live as long as the graph, and a
        result in the heap does not.
        """
        if not isinstance(topk_idx, torch.Tensor) or not topk_idx.is_cuda or topk_idx.ndim != 2:
            return None
        found = self._on_gpus.get((topk_idx.device, num_experts, topk_idx.shape[1]))
        return None if found is None or torch.cuda.is_current_stream_capturing() else found

    def _make(self, shape: Shape) -> switchyard.Buffer:
        def agreed() -> switchyard.Buffer:
            self._agree_on(shape)
            return self._made(shape)

        return made_by_all(f"an engine for {shape}", agreed)

    def _made(self, shape: Shape) -> switchyard.Buffer:
        on_gpu = shape.device.type == "cuda"
        options: dict[str, Any] = {"engine": "cuda" if on_gpu else "cpu"}
        if on_gpu:
            options["device"] = shape.device.index
            self._most_sms[shape.device] = self._share_of_sms(shape.device)
        return switchyard.Buffer(
            self._communicator,
            max_tokens=shape.max_tokens or most_tokens(self._communicator.size, on_gpu),
            hidden=shape.hidden,
            num_experts=shape.num_experts,
            top_k=shape.top_k,
            timeout=self._timeouts.get(shape.device.type, 0.0),
            initial_heap_bytes=self._num_bytes if on_gpu else 0,
            errors_at_once=False,  # as in DeepEP, hosts run ahead of combines and cached dispatches
            f32_partials=self._f32_partials,
            **options,
        )

    def _share_of_sms(self, device: torch.device) -> int:
        """Returns this rank's SMs: ranks that share a GPU have an equal part of it each. Collective."""
        properties = torch.cuda.get_device_properties(device)
        mine = str(properties.uuid).encode()
        return max(1, int(properties.multi_processor_count) // self._communicator.all_gather(mine).count(mine))

    def num_sms(self, wanted: int, x: torch.Tensor) -> int:
        """Returns how many of the wanted SMs a call on x may take; 0: the engine chooses."""
        return min(wanted, self._most_sms.get(x.device, wanted)) if wanted and x.is_cuda else 0

    def num_sms_as_before(self, wanted: int) -> int:
        """Returns what num_sms returns for a call like the latest."""
        if not wanted or not self.on_gpu or self.latest_sizes is None:
            return 0
        return min(wanted, self._most_sms.get(self.latest_sizes[3], wanted))

    def comm_stream(self) -> Any:
        """Returns the stream of the first buffer on a GPU. See Buffer.get_comm_stream."""
        for shape, each in self._buffers.items():
            if each.cuda_stream:
                return torch.cuda.ExternalStream(each.cuda_stream, device=shape.device)
        return torch.cuda.current_stream() if torch.cuda.is_initialized() else torch.cpu.current_stream()

    def synchronize(self) -> None:
        for buffer in self._buffers.values():
            buffer.synchronize()

    def destroy(self) -> None:
        self.destroyed = True
        self.latest = self.latest_sizes = None
        for buffer in self._buffers.values():
            buffer.destroy()
        self._buffers.clear()
        self._on_gpus.clear()


Refuse = Callable[[switchyard.Buffer], None]
"""interop.refuse_dispatch or interop.refuse_combine."""


# ---- low-latency mode ----

# The engine never overwrites a result that is held. Programs hold the results of two micro-batches, and their variables
# still hold those of the last step when they make the next.
max_results = 4


class LowLatencyShape(NamedTuple):
    """The sizes that a buffer of the engine is made for."""

    max_tokens: int
    hidden: int
    num_experts: int
    top_k: int
    device: torch.device

    def call(self) -> str:
        """Returns what ranks compare."""
        return f"a low_latency_dispatch of {_sizes_of(self)}, num_max_dispatch_tokens_per_rank {self.max_tokens}"


LowLatencySizes = tuple[int, int, int, int, torch.device]
"""The items of a LowLatencyShape, which is equal to them and takes longer to make."""


class LowLatencyBuffers:
    """Buffers of the engine, by shape. Making one is collective, as is the call that needs it.

    Args:
        engines: the buffers of the throughput mode, in whose calls peers may be by mistake.
        mask_late_peers: whether the engine goes on without ranks that are lost or late.
    """

    def __init__(self, communicator: switchyard.Communicator, engines: Engines, mask_late_peers: bool) -> None:
        self._communicator = communicator
        self._engines = engines
        self._mask_late_peers = mask_late_peers
        self._buffers: dict[LowLatencyShape, switchyard.LowLatencyBuffer] = {}
        self._latest: LowLatencySizes | None = None
        self._latest_buffer: switchyard.LowLatencyBuffer | None = None
        self.counts = torch.empty(0, device="cpu")
        """Like a recv_count of the latest buffer."""
        self._masked: set[int] = set()

    def of(self, sizes: LowLatencySizes) -> switchyard.LowLatencyBuffer:
        """Raises InvalidArgument for another device than before: peers cannot learn of it, and would not come."""
        found = self._buffers.get(sizes)  # type: ignore[call-overload]
        if found is None:
            shape = LowLatencyShape(*sizes)
            _check_device(shape.device, (each.device for each in self._buffers))
            found = self._buffers[shape] = self._make(shape)
        if sizes != self._latest:
            self._latest, self._latest_buffer = sizes, found
            self.counts = torch.empty(found.num_local_experts, dtype=torch.int32, device=sizes[4])
        return found

    @property
    def used(self) -> bool:
        """Whether a call has made a buffer that is not destroyed."""
        return self._latest is not None

    def latest_for(self, max_tokens: int, num_experts: int) -> switchyard.LowLatencyBuffer | None:
        """Returns the buffer of the latest call, if that had these sizes. The next call is most likely one of it."""
        latest = self._latest
        return self._latest_buffer if latest and latest[0] == max_tokens and latest[2] == num_experts else None

    def meet(self) -> None:
        """Finds out which ranks are lost or late, by a dispatch of nothing in the buffer of the latest call.

        Collective. Does nothing before the first call.
        """
        if self._latest is None:
            return
        shape = LowLatencyShape(*self._latest)
        x = torch.empty(0, shape.hidden, dtype=torch.bfloat16, device=shape.device)
        topk_idx = torch.empty(0, shape.top_k, dtype=torch.int64, device=shape.device)
        options = interop.low_latency_call_options(cuda_stream=interop.current_cuda_stream(x))
        interop.low_latency_dispatch(self._buffers[shape], x, topk_idx, None, None, None, options)

    def _make(self, shape: LowLatencyShape) -> switchyard.LowLatencyBuffer:
        try:
            return made_by_all(f"a buffer for {shape}", lambda: self._made(shape))
        except (InvalidArgument, TypeError) as error:
            raise in_our_words(error) from error

    def _made(self, shape: LowLatencyShape) -> switchyard.LowLatencyBuffer:
        if not self._mask_late_peers:  # otherwise a lost rank would end these
            self._engines.meet(shape.call())
            check_same_call(self._communicator, shape.call())
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
        """Returns the ranks that the caller masked, and those that a call found late."""
        found = (buffer.masked() for buffer in self._buffers.values())
        return self._masked.union(*({rank for rank, is_so in enumerate(each) if is_so} for each in found))

    def destroy(self) -> None:
        for buffer in self._buffers.values():
            buffer.destroy()
        self._buffers.clear()
        self._latest = self._latest_buffer = None


def _check_device(device: torch.device, others: Iterable[torch.device]) -> None:
    for other in others:
        if device != other:
            raise InvalidArgument(f"x: expected it on {other} as in calls before, seen it on {device}")
