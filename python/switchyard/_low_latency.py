"""Dispatch and combine in low-latency mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _core
from ._communicator import Communicator
from ._frameworks import empty, named_dtype, native
from ._lifetime import track_buffer
from ._low_latency_options import (
    LowLatencyCombineOptions,
    LowLatencyDispatchOptions,
    combine_arguments,
    dispatch_arguments,
)
from ._low_latency_results import LowLatencyReceived, ReceiveHook
from ._options import buffer_options
from ._owner import Owner

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["LowLatencyBuffer", "LowLatencyReceived", "ReceiveHook"]


class LowLatencyBuffer(Owner):
    """For decoding, with few tokens a rank: no round for counts; rows go into fixed slots of the receiver.

    N tokens of this rank, M max_tokens, H hidden, K top_k, E experts, R ranks, L experts of this rank. Experts are
    split over ranks as in `Buffer`.

    Calls are collective, in the same order on all ranks that are not masked, with equal options but any number of
    tokens; one thread at a time. A call that raises InvalidArgument for its own arguments sent nothing: the peers
    wait for the corrected one. When ranks differ in what they ask for, the receivers raise InvalidArgument and the
    buffer has failed. It has failed on all ranks after PeerLost, Timeout (unless late peers are masked) and, on the
    CPU engine, KeyboardInterrupt, too, until `reset()`.

    Args:
        communicator: the ranks.
        max_tokens: M: most tokens that any rank dispatches in one call.
        hidden: H: elements of a token.
        num_experts: E: of all ranks together.
        top_k: K: 1 to 64.
        max_results: results that a rank may hold at once, 1 to 16; memory grows with it.
        max_row_bytes, max_scale_bytes: most bytes of a token's row and scales on their way; 0: those of bfloat16
            (2 * H), and of float32 scales. Rows of a float32 x that is not cast need 4 * H; opaque payloads what they
            have.
        mask_late_peers: what a peer that ends or misses a deadline does. False: the call raises. True: the peer is
            masked, and only its tokens are lost.
        engine, device, num_workers, num_sms, timeout: as in `Buffer`.

    Raises:
        InvalidArgument: on every rank, for options that make no sense or differ between ranks.
        Unsupported: the engine is not in this build or on this machine.
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

    def dispatch(self, x: Any, topk_idx: Any, **options: Unpack[LowLatencyDispatchOptions]) -> LowLatencyReceived:
        """Sends each token to its experts, and returns what this rank received: both halves.

        Args:
            x: [N, H] bfloat16, float16 or float32 (without a cast: if the buffer was made with max_row_bytes of 4 * H
                or more); or float8_e4m3fn with scales; or [N, B] uint8: an opaque payload of B bytes a token. Rows
                may be strided.
            topk_idx: [N, K] int64 or int32 expert ids; -1: slot not used. An id out of range raises on the CPU
                engine, and counts as not used on the CUDA engine, where a later call raises.

        Keyword arguments:
            scales: float8_e4m3fn: [N, ceil(H/128)] float32, any strides; uint8: [N, S] uint8, or none.
            topk_weights: [N, K] float32: travel along; layout "rank_major" only.
            cast: of a bfloat16, float16 or float32 x on its way, with a scale for each 128 channels of a token.
                "fp8": float8_e4m3fn, float32 scale amax / 448; "fp8_pow2": scales rounded up to powers of two;
                "fp8_ue8m0": these as exponents (8 bits, bias 127), four to an int32, the first in its low byte.
            layout: "expert_major": a row per (token, local expert), grouped by expert; "rank_major": a row per
                (token, rank), grouped by source.
            received_per_expert: [L] int32: rows received are added to it.
            wait_ns_per_source: [R] int64: nanoseconds until the source was there are added to it.
            num_workers, num_sms: of this call; 0: as the buffer was made.
            cuda_stream: CUDA engine: the stream of the call, as an integer; None: the framework's current one.

        Raises InvalidArgument when max_results results are still held; else see the class.
        """
        return LowLatencyReceived(self._core.dispatch(*dispatch_arguments(x, topk_idx, options)), type(x))

    def send_dispatch(
        self, x: Any, topk_idx: Any, **options: Unpack[LowLatencyDispatchOptions]
    ) -> tuple[LowLatencyReceived, ReceiveHook]:
        """The send half of `dispatch`; the hook is the receive half. Contents are valid after it.

        Between the halves nothing runs. Other calls may be made meanwhile, as far as max_results lets them; hooks are
        called in the order of the sends. Inputs must stay unchanged until then, and are kept.
        """
        core, hook = self._core.send_dispatch(*dispatch_arguments(x, topk_idx, options))
        return LowLatencyReceived(core, type(x)), ReceiveHook(hook, x)

    def combine(
        self, x: Any, handle: _core.LowLatencyHandle, **options: Unpack[LowLatencyCombineOptions]
    ) -> Any:
        """Sends what the experts made back, and returns the sums of this rank's tokens: [N, H], dtype of x.

        Args:
            x: bfloat16 or float16, contiguous, in the slots of the dispatch: expert_major [L, R*M, H]; rank_major
                [R, M, H], what this rank's experts make of a token in all. Read in place if `outputs` gave it, else
                copied first.
            handle: of the dispatch, which is combined once.

        Keyword arguments:
            topk_weights: expert_major: [N, K] float32: slot k of a token counts with weight k; None: 1.
            coding: "logfmt10": 10 bits a value on the way; x must then lie elsewhere than in `outputs`.
            out: [N, H], dtype of x: where to write; None: a new tensor.
            wait_ns_per_source, num_workers, num_sms, cuda_stream: as in dispatch.

        Sums are in float32, in slot order (expert_major) or by rank. A slot whose rank is masked adds nothing.
        """
        out, memory = self._out(x, handle, options)
        self._core.combine(*combine_arguments(x, handle, memory, options))
        return out

    def send_combine(
        self, x: Any, handle: _core.LowLatencyHandle, **options: Unpack[LowLatencyCombineOptions]
    ) -> tuple[Any, ReceiveHook]:
        """The send half of `combine`; the hook is the receive half, which writes the sums."""
        out, memory = self._out(x, handle, options)
        return out, ReceiveHook(self._core.send_combine(*combine_arguments(x, handle, memory, options)), x)

    def _out(self, x: Any, handle: _core.LowLatencyHandle, options: LowLatencyCombineOptions) -> tuple[Any, Any]:
        """What is returned, and what the engine writes to: the same memory."""
        out = options.get("out")
        if out is not None or not isinstance(handle, _core.LowLatencyHandle):
            return out, out
        return empty((handle.num_tokens, self.hidden), x)

    def outputs(self, handle: _core.LowLatencyHandle, dtype: Any, *, like: object = None) -> Any:
        """Where experts may write what a combine then reads without a copy. After the dispatch's receive half.

        Args:
            handle: of the dispatch.
            dtype: bfloat16 or float16, of PyTorch or NumPy, or the name.
            like: a tensor of the framework that the result is to be of; None: PyTorch for its dtypes, else NumPy.

        Returns [L, R*M, H] (expert_major) or [R, M, H] (rank_major).
        """
        name, like = named_dtype(dtype, like)
        return native(self._core.outputs(handle, name, like), type(like))

    def mask(self, rank: int, masked: bool = True) -> None:
        """From now on nothing is sent to that rank, nor awaited from it; False ends that.

        A rank that is masked by a peer masks that peer. Raises InvalidArgument unless it is a peer's.
        """
        self._core.mask(rank, masked)

    def masked(self) -> list[bool]:
        """Which ranks are masked: by `mask`, by a peer, or since they were late. CUDA engine: waits for all calls."""
        return self._core.masked()

    def reset(self) -> None:
        """Collective, with all ranks alive and no call under way: nobody is masked, and no failure remembered.

        Results from before are void. Raises PeerLost or Timeout when a rank is gone or does not come.
        """
        self._core.reset()

    def synchronize(self) -> None:
        """CUDA engine: waits for all calls so far, and raises what they found."""
        self._core.synchronize()

    @property
    def num_local_experts(self) -> int:
        """L: the experts of this rank."""
        return self._core.num_local_experts

    @property
    def num_bytes(self) -> int:
        """Bytes of this rank's slots."""
        return self._core.num_bytes
