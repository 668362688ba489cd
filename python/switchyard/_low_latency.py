"""Dispatch and combine in low-latency mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Union

from . import _core
from ._communicator import Communicator
from ._compiled import opaque_calls
from ._frameworks import empty, named_dtype, native
from ._gpu_memory import share_memory_with_torch
from ._lifetime import track_buffer
from ._options import (
    LowLatencyCombineOptions,
    LowLatencyDispatchOptions,
    buffer_options,
    low_latency_combine_arguments,
    low_latency_dispatch_arguments,
)
from ._owner import Owner
from ._results import LowLatencyReceived, ReceiveHook

if TYPE_CHECKING:
    from typing_extensions import Unpack

LowLatencyHandle = Union[_core.LowLatencyHandle, _core.WeakLowLatencyResult]

__all__ = ["LowLatencyBuffer", "LowLatencyReceived", "ReceiveHook"]


@opaque_calls
class LowLatencyBuffer(Owner):
    """Dispatch and combine for decoding, where each rank has few tokens.

    Ranks exchange no counts beforehand: rows go into fixed slots of the receiver.

    N tokens of this rank, M max_tokens, H hidden, K top_k, E experts, R ranks, L experts of this rank. Experts are
    split over the ranks as in `Buffer`.

    Calls are collective: all ranks that are not masked make the same calls in the same order, with equal options and
    any number of tokens, one thread at a time. A call that raises InvalidArgument for its own arguments has sent
    nothing, and the peers wait for the corrected call. If ranks make calls with different options, the receivers raise
    InvalidArgument and the buffer has failed until `reset()`. It has also failed, on all ranks, after PeerLost, after
    Timeout (unless late peers are masked) and, on the CPU engine, after KeyboardInterrupt.

    Args:
        communicator: the ranks.
        max_tokens: M, the most tokens that any rank dispatches in one call.
        hidden: H, elements of a token.
        num_experts: E, experts of all ranks together.
        top_k: K, 1 to 64.
        max_results: F, 1 to 16: results that there is memory for from the beginning, and dispatches that can be
            combined at a time. When more results are held, the buffer takes more memory.
        max_row_bytes, max_scale_bytes: the most bytes that a token's row and its scales take on their way; 0: 2 * H as
            in bfloat16, and float32 scales. Rows of a float32 x need 4 * H unless they are cast; opaque payloads need
            their own size.
        mask_late_peers: False: a call raises when a peer ends or misses a deadline. True: the peer is masked instead,
            and only its tokens are lost. So it is in this constructor; other collectives of the communicator then raise
            PeerLost.
        engine, device, num_workers, num_sms, timeout: as in `Buffer`.

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
        max_results: int = 2,
        max_row_bytes: int = 0,
        max_scale_bytes: int = 0,
        mask_late_peers: bool = False,
        engine: str = "auto",
        device: int = -1,
        num_workers: int = 0,
        num_sms: int = 0,
        timeout: float = 0.0,
    ) -> None:
        super().__init__(communicator, max_tokens, hidden, num_experts, top_k)
        options = buffer_options(
            _core.LowLatencyOptions(),
            engine,
            max_tokens=max_tokens,
            hidden=hidden,
            num_experts=num_experts,
            top_k=top_k,
            max_results=max_results,
            max_row_bytes=max_row_bytes,
            max_scale_bytes=max_scale_bytes,
            mask_late_peers=mask_late_peers,
            device=device,
            num_workers=num_workers,
            num_sms=num_sms,
            timeout=timeout,
        )
        self._core = _core.LowLatencyBuffer.make(communicator._core, options)
        track_buffer(self)
        share_memory_with_torch(self, on_gpu=self.engine == "cuda")

    def dispatch(self, x: Any, topk_idx: Any, **options: Unpack[LowLatencyDispatchOptions]) -> LowLatencyReceived:
        """Sends each token to its experts and returns what this rank received. Runs both halves of the call.

        Args:
            x: [N, H] bfloat16, float16 or float32 (float32 without a cast needs a buffer with max_row_bytes of 4 * H or
                more); or float8_e4m3fn with scales; or [N, B] uint8: an opaque payload of B bytes a token. Rows may be
                strided.
            topk_idx: [N, K] int64 or int32 expert ids; -1: slot not used. An id out of range raises on the CPU
                engine. On the CUDA engine it counts as not used, and a later call raises. So do rows beyond the M that
                a rank may send to an expert in layout "expert_major", where an id that repeats within a token is a row
                each.

        Keyword arguments:
            scales: for float8_e4m3fn: [N, ceil(H/128)] float32, any strides; for uint8: [N, S] uint8, or none.
            topk_weights: [N, K] float32: they travel along; layout "rank_major" only.
            cast: how a bfloat16, float16 or float32 x is cast on its way, with a scale for each 128 channels of a
                token. "fp8": float8_e4m3fn, float32 scale amax / 448; "fp8_pow2": scales rounded up to powers of two;
                "fp8_ue8m0": exponents of such scales (8 bits, bias 127), four to an int32, the first in its low byte.
            layout: "expert_major": a row per (token, slot), grouped by expert; "rank_major": a row per
                (token, rank), grouped by source.
            received_per_expert: [L] int32: rows received are added to it.
            wait_ns_per_source: [R] int64: nanoseconds waited for each source are added to it.
            counts: [L] (expert_major) or [R] (rank_major) int32: receives the counts of the result, for a caller who
                keeps them longer than the slots.
            num_workers, num_sms: for this call; 0: as the buffer was made.
            cuda_stream: CUDA engine: the stream of the call, as an integer; None: the framework's current one.

        Raises:
            InvalidArgument: the result of max_results dispatches ago is held, and there is no memory for one more, or a
                hook of it was not called, or its memory is part of a CUDA graph; further reasons are in the class's
                description.
        """
        arguments = low_latency_dispatch_arguments(x, topk_idx, options)
        return LowLatencyReceived(self._core.dispatch(*arguments), type(x))

    def send_dispatch(
        self, x: Any, topk_idx: Any, **options: Unpack[LowLatencyDispatchOptions]
    ) -> tuple[LowLatencyReceived, ReceiveHook]:
        """Runs the send half of `dispatch`. The hook that it returns runs the receive half.

        Contents of the result are valid after the hook. Nothing runs between the halves. Other calls may be made
        meanwhile, up to max_results dispatches. Call hooks in the order of the sends. Inputs must stay unchanged until
        then; the hook keeps them.
        """
        core, hook = self._core.send_dispatch(*low_latency_dispatch_arguments(x, topk_idx, options))
        return LowLatencyReceived(core, type(x)), ReceiveHook(hook)

    def combine(
        self, x: Any, handle: _core.LowLatencyHandle, **options: Unpack[LowLatencyCombineOptions]
    ) -> Any:
        """Sends the outputs of the experts back and returns the sums of this rank's tokens: [N, H], dtype of x.

        Sums are made in float32, in slot order (expert_major) or in the order of ranks (rank_major). A slot whose rank
        is masked adds nothing.

        Args:
            x: bfloat16 or float16, contiguous, in the slots of the dispatch. expert_major: [L, R*M, H]. rank_major:
                [R, M, H]: for each token the sum of the outputs of this rank's experts. It is read in place if
                `outputs` gave it, and copied first otherwise.
            handle: the handle of the dispatch. A dispatch may be combined again while its result or handle lives, on
                all ranks alike.

        Keyword arguments:
            topk_weights: expert_major: [N, K] float32: slot k of a token counts with weight k; None: 1.
            coding: "logfmt10": values take 10 bits on the way; x must then lie elsewhere than in `outputs`.
            out: [N, H], dtype of x: receives the sums; None: a new tensor.
            wait_ns_per_source, num_workers, num_sms, cuda_stream: as in dispatch.
        """
        out, memory = self._out(x, handle, options)
        self._core.combine(*low_latency_combine_arguments(x, handle, memory, options))
        return out

    def send_combine(
        self, x: Any, handle: _core.LowLatencyHandle, **options: Unpack[LowLatencyCombineOptions]
    ) -> tuple[Any, ReceiveHook]:
        """Runs the send half of `combine`. The hook runs the receive half, which writes the sums."""
        out, memory = self._out(x, handle, options)
        core = self._core.send_combine(*low_latency_combine_arguments(x, handle, memory, options))
        return out, ReceiveHook(core)

    def _out(self, x: Any, handle: _core.LowLatencyHandle, options: LowLatencyCombineOptions) -> tuple[Any, Any]:
        """Returns the tensor for the caller and an object for the engine to write to. Both are the same memory."""
        out = options.get("out")
        if out is not None or not isinstance(handle, _core.LowLatencyHandle):
            return out, out
        return empty((handle.num_tokens, self.hidden), x)

    def outputs(self, handle: LowLatencyHandle, dtype: Any, *, like: object = None) -> Any:
        """Returns memory for the outputs of experts, which a combine then reads without a copy.

        Call it after the receive half of the dispatch. Write to it for the first combine only: afterwards peers may
        read it.

        Args:
            handle: the handle of the dispatch.
            dtype: bfloat16 or float16, as a dtype of PyTorch or NumPy, or by name.
            like: a tensor of the framework that the result belongs to; None: PyTorch for its dtypes, else NumPy.

        Returns:
            [L, R*M, H] (expert_major) or [R, M, H] (rank_major).
        """
        name, like = named_dtype(dtype, like)
        return native(self._core.outputs(handle, name, like), type(like))

    def mask(self, rank: int, masked: bool = True) -> None:
        """From now on this rank sends nothing to a peer and waits for nothing from it; masked=False ends that.

        A rank that is masked by a peer masks that peer, too. Raises InvalidArgument unless `rank` is a peer.
        """
        self._core.mask(rank, masked)

    def masked(self) -> list[bool]:
        """Returns which ranks are masked: by `mask`, by a peer, or because they were late.

        On the CUDA engine this waits for all calls.
        """
        return self._core.masked()

    def reset(self) -> None:
        """Removes all masks and clears the failure. Collective: all ranks are alive, and no call is under way.

        Earlier results become void. Raises PeerLost or Timeout if a rank is gone or does not come.
        """
        self._core.reset()

    def synchronize(self) -> None:
        """Waits on the CUDA engine for all calls so far, and raises the errors that they found."""
        self._core.synchronize()

    @property
    def num_local_experts(self) -> int:
        """L, the number of experts of this rank."""
        return self._core.num_local_experts

    @property
    def num_bytes(self) -> int:
        """The bytes that the slots of this rank take."""
        return self._core.num_bytes
