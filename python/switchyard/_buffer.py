"""Dispatch and combine in throughput mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Sequence

from . import _core
from ._communicator import Communicator
from ._compiled import opaque_calls
from ._frameworks import current_cuda_stream, named_dtype, native
from ._gpu_memory import share_memory_with_torch
from ._lifetime import track_buffer
from ._options import CombineOptions, DispatchOptions, buffer_options, combine_options, dispatch_options
from ._owner import Owner
from ._refusal import or_refuse, refuse_combine, refuse_dispatch
from ._results import Combined, Dispatched, Layout, PendingCombined, PendingDispatched

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Buffer", "Combined", "Dispatched", "Layout", "PendingCombined", "PendingDispatched"]


def local_experts(num_experts: int, rank: int, num_ranks: int) -> int:
    """Returns how many experts a rank holds: the first num_experts % num_ranks ranks hold one more than the others."""
    each, more = divmod(num_experts, num_ranks)
    return each + (1 if rank < more else 0)


@opaque_calls
class Buffer(Owner):
    """Sends tokens to their experts and back. All ranks make the same calls in the same order.

    N tokens of this rank, H hidden, K top_k, E experts, R ranks, L experts of this rank, n rows received. Experts are
    split over the ranks in contiguous ranges; the first E % R ranks hold one more.

    Tensors lie on the CPU for the CPU engine and on the buffer's GPU for the CUDA engine. Inputs must stay unchanged
    until the call, or its event, completes. Gradients do not pass through these calls; use `switchyard.torch` for that.

    Args:
        communicator: the ranks.
        max_tokens: the most tokens that any rank dispatches in one call.
        hidden: elements of a token.
        num_experts: experts of all ranks together.
        top_k: experts that a token chooses, 1 to 64.
        heap_bytes: limit of each rank's symmetric heap in bytes; 0: SWITCHYARD_HEAP_BYTES, and without that none but
            the memory that there is: on the CUDA engine the heap grows when results need it, and on the CPU engine
            it is address space, of which only what is written takes memory. Ranks may pass different values of this
            argument and of those below except engine.
        initial_heap_bytes: CUDA engine: bytes of a heap without a limit at first; 0: room for two worst-case results,
            and half of this rank's share of the free memory at most.
        engine: "cpu", "cuda", or "auto". "auto" takes SWITCHYARD_ENGINE if that is set; otherwise cuda if there is a
            usable GPU.
        device: CUDA engine: index of the GPU; -1: the current one.
        num_workers: CPU engine: threads that move data; 0: cores / ranks.
        num_sms: CUDA engine: SMs that a call takes; 0: the engine's model chooses.
        timeout: seconds that a wait for a peer may take; 0: SWITCHYARD_TIMEOUT_MS.
        errors_at_once: CUDA engine: whether combine, and dispatch along a handle, wait on the host until all ranks have
            agreed on the call. Then the call itself raises when they do not, on every rank, and the buffer goes on.
            Without it these calls return as soon as they are queued, whatever the GPU still has to do before; only a
            rank that refuses raises at once, the others raise from a later call or when they wait for an event, and the
            buffer has failed until reset(). All ranks must pass the same.
        f32_partials: jobs of several nodes: whether what combine sends from one node to another, the sum of a token's
            rows there, stays f32, so that every output is rounded once, at the end. Without it the sum is rounded to
            the dtype of the outputs, which is half of the bytes or fewer. All ranks must pass the same.

    Raises:
        InvalidArgument: on every rank, if options are out of range or differ between ranks.
        Unsupported: this build or this machine does not have the engine.
    """

    def __init__(
        self,
        communicator: Communicator,
        *,
        max_tokens: int,
        hidden: int,
        num_experts: int,
        top_k: int,
        heap_bytes: int = 0,
        initial_heap_bytes: int = 0,
        engine: str = "auto",
        device: int = -1,
        num_workers: int = 0,
        num_sms: int = 0,
        timeout: float = 0.0,
        errors_at_once: bool = True,
        f32_partials: bool = False,
    ) -> None:
        super().__init__(communicator, max_tokens, hidden, num_experts, top_k)
        options = buffer_options(
            _core.BufferOptions(),
            engine,
            max_tokens=max_tokens,
            hidden=hidden,
            num_experts=num_experts,
            top_k=top_k,
            heap_bytes=heap_bytes,
            initial_heap_bytes=initial_heap_bytes,
            device=device,
            num_workers=num_workers,
            num_sms=num_sms,
            timeout=timeout,
            errors_at_once=errors_at_once,
            f32_partials=f32_partials,
        )
        self._core = _core.Buffer.make(communicator._core, options)
        self.key = track_buffer(self)
        share_memory_with_torch(self, on_gpu=self.engine == "cuda", gives_back=True)

    def get_layout(self, topk_idx: Any, *, cuda_stream: int | None = None) -> Layout:
        """Returns what a dispatch by topk_idx would send to whom. Not collective.

        Args:
            topk_idx: [N, K] int64 or int32 expert ids; -1: slot not used.
            cuda_stream: as in dispatch.

        Raises:
            InvalidArgument: on this rank, for a wrong shape or dtype, or an id out of range.
        """
        stream = current_cuda_stream(topk_idx) if cuda_stream is None else cuda_stream
        return Layout.of(tuple(native(each, type(topk_idx)) for each in self._core.get_layout(topk_idx, stream)))

    def dispatch(
        self, x: Any, topk_idx: Any = None, topk_weights: Any = None, **options: Unpack[DispatchOptions]
    ) -> Dispatched:
        """Sends each token to every rank that holds one of its experts, and returns what this rank received.

        Args:
            x: [N, H] bfloat16, float16, float32 or float8_e4m3fn; rows may be strided.
            topk_idx: [N, K] int64 or int32 expert ids; -1: slot not used.
            topk_weights: [N, K] float32; they travel along.

        Keyword arguments:
            scales: for a float8_e4m3fn x, any strides: [N, ceil(H/128)] float32, or int32 of 1 to as many columns,
                which arrive as they are.
            token_in_rank: [N, R] uint8 or bool, instead of topk_idx.
            handle: the handle of an earlier dispatch, whose routing and layout this cached dispatch repeats. A topk_idx
                must then be that of the earlier dispatch; it and topk_weights travel again.
            cast_to_fp8: casts x to float8_e4m3fn, with a scale per token and 128 channels: max(1e-4, amax) / 448.
            layout: "flat": one row per (token, rank); "expanded": one per (token, local expert), grouped by expert.
            expert_alignment: expanded: rows of each expert start at a multiple of it; flat: counts are rounded up.
            zero_padding: expanded: fills padding rows with zeros.
            num_worst_tokens: rows of the output, allocated before the counts are known; rows past the real count
                have topk_idx -1. Needs topk_idx.
            num_workers, num_sms: for this call; 0: as the buffer was made.
            after: an Event; the dispatch starts after it.
            cuda_stream: CUDA engine: the stream, as an integer, on which inputs are written and results are read;
                None: the framework's current one.

        Raises:
            InvalidArgument: on every rank, before anything moves; the text names the rank and the argument.
            OutOfMemory: on every rank, before anything moves: the heap cannot hold the result.
            PeerLost: the buffer refuses further work.
            Timeout: the buffer refuses further work until `reset()`.
            KeyboardInterrupt: CPU engine, during a wait for a peer: the buffer has then failed on all ranks, as after a
                Timeout. docs/python.md says more.
        """
        scales, routing, call = or_refuse(refuse_dispatch, self, dispatch_options, x, options)
        return Dispatched(self._core.dispatch(x, scales, topk_idx, topk_weights, routing, None, call), type(x))

    def dispatch_async(
        self, x: Any, topk_idx: Any = None, topk_weights: Any = None, **options: Unpack[DispatchOptions]
    ) -> PendingDispatched:
        """Queues a dispatch and returns at once. The call keeps its inputs until it is done.

        On the CUDA engine the host waits for the counts, as in dispatch, unless num_worst_tokens is given.
        """
        scales, routing, call = or_refuse(refuse_dispatch, self, dispatch_options, x, options)
        core = self._core.dispatch_async(x, scales, topk_idx, topk_weights, routing, None, call)
        return PendingDispatched(core, type(x))

    def combine(self, x: Any, handle: _core.Handle, **options: Unpack[CombineOptions]) -> Combined:
        """Sends the rows of a dispatch back and sums up the rows of each token.

        Sums are made in float32 and rounded once: biases first, then the token's rows in the order of slots, where a
        row that stands for several slots comes at the last of them. They are bitwise the same from run to run.

        Args:
            x: [n, H] bfloat16, float16 or float32, in the rows of the dispatch. It is read in place if `allocate` or a
                dispatch made it, and copied first otherwise.
            handle: the handle of the dispatch.

        Keyword arguments:
            row_weights: [n] float32: each row is multiplied by its weight before the sum.
            topk_weights: flat [n, K], expanded [n] float32: returned as Combined.topk_weights [N, K], where a slot's
                value comes from the rank that owns its expert. It is the gradient of the dispatch's topk_weights.
            weights_of_all_ranks: flat: Combined.topk_weights are sums over all ranks that have the token, whoever owns
                the slot's expert. K may be any number up to 64 then, and the dispatch needs no topk_idx.
            bias0, bias1: [N, H], dtype of x: added to the sums.
            out: [N, H], dtype of x: receives the sums.
            num_workers, num_sms, after, cuda_stream: as in dispatch.

        Raises the same as dispatch.
        """
        weights, row_weights, rest, call = or_refuse(refuse_combine, self, combine_options, x, options)
        core = self._core.combine(x, handle, weights, row_weights, rest, call)
        return Combined(core, type(x), rest[2] if rest else None)

    def combine_async(self, x: Any, handle: _core.Handle, **options: Unpack[CombineOptions]) -> PendingCombined:
        """Queues a combine and returns at once. The call keeps its inputs until it is done.

        On the CUDA engine the host waits until all ranks have accepted the call, unless the dispatch had
        num_worst_tokens.
        """
        weights, row_weights, rest, call = or_refuse(refuse_combine, self, combine_options, x, options)
        core = self._core.combine_async(x, handle, weights, row_weights, rest, call)
        return PendingCombined(core, type(x), rest[2] if rest else None)

    def allocate(self, dtype: Any, shape: Sequence[int], *, like: object = None) -> Any:
        """Returns a tensor of the heap, which combine reads without a copy. Not collective.

        Args:
            dtype: a dtype of PyTorch or NumPy, or a name: bfloat16, float16, float32, float8_e4m3fn, int32, int64,
                uint8.
            shape: 1 to 3 extents.
            like: a tensor of the framework that the result belongs to; None: PyTorch for its dtypes, else NumPy.

        Raises:
            OutOfMemory: on this rank only.
        """
        name, like = named_dtype(dtype, like)
        return native(self._core.allocate(name, list(shape), like), type(like))

    def synchronize(self) -> None:
        """Waits until all calls so far are done. On the CUDA engine it raises errors found after calls had returned."""
        self._core.synchronize()

    def reset(self) -> None:
        """Brings the buffer back into use after a Timeout, once all ranks are alive again. Collective.

        Raises PeerLost or Timeout if a rank is gone or does not come; the buffer then stays unusable.
        """
        self._core.reset()

    def phases(self) -> dict[str, float]:
        """Returns where the time of the latest call went, in microseconds, by phase. Empty on the CPU engine."""
        return dict(self._core.phases())

    @property
    def num_local_experts(self) -> int:
        """L, the number of experts of this rank."""
        return local_experts(self.num_experts, self.communicator.rank, self.communicator.size)

    @property
    def cuda_stream(self) -> int:
        """The stream that calls run on, as an integer; 0 on the CPU engine."""
        return self._core.cuda_stream

    @property
    def heap_bytes_used(self) -> int:
        """Bytes of the heap that are in use."""
        return self._core.heap_bytes_used

    @property
    def heap_bytes_peak(self) -> int:
        """The largest number of bytes that have been in use at once."""
        return self._core.heap_bytes_peak

    @property
    def heap_bytes_now(self) -> int:
        """Bytes that the heap has: on the CUDA engine of GPU memory, on the CPU engine of addresses."""
        return self._core.heap_bytes_now

    def trim(self) -> int:
        """Gives memory of this rank's heap that nothing lies in back to the machine. Not collective.

        On the CUDA engine it is what the heap grew by, from its end on. A call that needs the memory takes it again.

        Returns:
            By how many bytes the heap became smaller.
        """
        return self._core.trim()
