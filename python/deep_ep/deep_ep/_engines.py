"""The engine's buffers behind one of deep_ep's, made when the shapes of calls become known."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any, Callable, NamedTuple

import switchyard
import torch
from switchyard import _core

from ._agreement import meet_in
from ._errors import made_by_all
from ._group import check_agreement


class Shape(NamedTuple):
    """What the engine wants to know beforehand; a call of another shape goes to another buffer."""

    hidden: int
    num_experts: int
    top_k: int
    device: torch.device
    max_tokens: int = 0
    """Of a rank; 0: as many as the engine can take, since nobody knows beforehand."""

    def to_compare(self) -> tuple[int, int, int, str, int]:
        """With other ranks', whose GPUs have other numbers."""
        return *self[:3], self.device.type, self.max_tokens


_most_rows = 2**31 - 1
_most_tokens_on_gpus = 1 << 20  # there each takes memory beforehand: 8 bytes for each rank, or each of top_k
_most_heap_bytes = 1 << 44  # that the engine takes
_addresses = 1 << 47  # of a process


def most_tokens(num_ranks: int, on_gpu: bool) -> int:
    """Of a rank, that an engine can take."""
    most = _most_rows // num_ranks // 64
    return min(most, _most_tokens_on_gpus) if on_gpu else most


def _free_address_space() -> int:
    """Bytes that this process may still map."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return max(0, (_addresses if limit == resource.RLIM_INFINITY else limit) - pages * resource.getpagesize())


def _heap_bytes(communicator: switchyard.Communicator) -> int:
    """CPU: all of the machine's memory, since the heap takes only what is written to, as far as every rank may map the
    heaps of all: half of its address space is for that. 0: the environment says how much. Collective.
    """
    mine = _free_address_space().to_bytes(8, "little")
    least = min(int.from_bytes(each, "little") for each in communicator.all_gather(mine))
    if os.environ.get("SWITCHYARD_HEAP_BYTES", "0") != "0":
        return 0
    memory = resource.getpagesize() * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(memory, least // 2 // communicator.size, _most_heap_bytes))


class Engines:
    """Buffers by shape. Making one is collective, as is the call that needs it.

    Args:
        communicator: the ranks.
        num_bytes: CUDA: of the heap; 0: as switchyard.Buffer chooses.
        timeouts: seconds that a wait for a peer may take, by type of device; 0: as switchyard.Buffer chooses.
    """

    def __init__(
        self, communicator: switchyard.Communicator, num_bytes: int, timeouts: dict[str, float] | None = None
    ) -> None:
        self._communicator = communicator
        self._num_bytes = num_bytes
        self._timeouts = timeouts or {}
        self._buffers: dict[Shape, switchyard.Buffer] = {}
        self._on_gpus: dict[tuple[torch.device, int, int], switchyard.Buffer] = {}
        """By device, experts and top-k: the first one, since to a layout nothing else matters."""
        self._most_sms: dict[torch.device, int] = {}
        self.latest: switchyard.Buffer | None = None
        """Of the latest dispatch without a handle: where the peers are, most likely, when this rank refuses a call."""
        self.destroyed = False

    def of(self, shape: Shape) -> switchyard.Buffer:
        """Raises InvalidArgument, on all ranks, when a peer calls with another shape."""
        found = self._buffers.get(shape)
        if found is None:
            self.check_usable()
            found = self._buffers[shape] = self._make(shape)
            if shape.device.type == "cuda":
                self._on_gpus.setdefault((shape.device, shape.num_experts, shape.top_k), found)
        self.latest = found
        return found

    def check_usable(self) -> None:
        if self.destroyed:
            raise switchyard.Unusable("Buffer: it was destroyed, make a new one")

    def refuse(self, how: Callable[[_core.Buffer], None], handle: Any) -> None:
        """Tells the peers of a call along a handle, or of any. Before the first call there is nothing to tell them by.

        Args:
            how: refuse_dispatch or refuse_combine.
        """
        engine = getattr(handle, "buffer", None)
        if not isinstance(engine, switchyard.Buffer):
            engine = self.latest
        if engine is not None:
            how(engine._core)

    def _agree_on(self, shape: Shape) -> None:
        """Collective, unless there is no engine yet: its constructor compares what ranks ask for."""
        if self.latest is None:
            return
        device = next(each.device for each, buffer in self._buffers.items() if buffer is self.latest)
        meet_in(self.latest, device)
        check_agreement(self._communicator, Shape._fields, shape.to_compare())

    def for_layout(self, topk_idx: Any, num_experts: int) -> switchyard.Buffer | None:
        """One that has a kernel for it: on a GPU, once a dispatch has made it. None while a graph is captured, since
        what a graph writes must live as long as the graph.
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
            heap_bytes=self._num_bytes if on_gpu else _heap_bytes(self._communicator),
            **options,
        )

    def _share_of_sms(self, device: torch.device) -> int:
        """Ranks that share a GPU have an equal part each. Collective."""
        properties = torch.cuda.get_device_properties(device)
        mine = str(properties.uuid).encode()
        return max(1, int(properties.multi_processor_count) // self._communicator.all_gather(mine).count(mine))

    def num_sms(self, wanted: int, x: torch.Tensor) -> int:
        """What a call on x may take of what its config says; 0: the engine chooses."""
        return min(wanted, self._most_sms.get(x.device, wanted)) if x.is_cuda else 0

    def comm_stream(self) -> Any:
        """See Buffer.get_comm_stream; of the first buffer on a GPU."""
        for shape, each in self._buffers.items():
            if each.cuda_stream:
                return torch.cuda.ExternalStream(each.cuda_stream, device=shape.device)
        return torch.cuda.current_stream() if torch.cuda.is_initialized() else torch.cpu.current_stream()

    def synchronize(self) -> None:
        for buffer in self._buffers.values():
            buffer.synchronize()

    def destroy(self) -> None:
        self.destroyed = True
        self.latest = None
        for buffer in self._buffers.values():
            buffer.destroy()
        self._buffers.clear()
        self._on_gpus.clear()
