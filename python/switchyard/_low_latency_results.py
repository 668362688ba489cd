"""What calls of the low-latency mode return. Tensors are made when they are first read, and then kept."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from . import _core
from ._frameworks import current_cuda_stream, native


class LowLatencyReceived:
    """What a rank received. Contents are valid after the receive half.

    Tensors lie in the slots of the dispatch, which no rank overwrites as long as one of them, or the handle, lives.
    Rows that no range (expert_major) or count (rank_major) covers are undefined.
    """

    def __init__(self, core: _core.LowLatencyResult, kind: type) -> None:
        self._core = core
        self._kind = kind

    @cached_property
    def x(self) -> Any:
        """expert_major [L, R*M, H or B], rank_major [R, M, H or B]; dtype of the input, float8_e4m3fn after a cast."""
        return native(self._core.x, self._kind)

    @cached_property
    def scales(self) -> Any:
        """[.., ceil(H/128)] float32; after "fp8_ue8m0" [.., ceil(H/512)] int32; uint8: [.., S]; else None.

        expert_major: the last two dimensions of float32 and int32 scales are column-major.
        """
        return native(self._core.scales, self._kind)

    @cached_property
    def counts(self) -> Any:
        """expert_major [L] int32: the first counts[l] rows of an expert are taken; rank_major [R]: of each source."""
        return native(self._core.counts, self._kind)

    @cached_property
    def ranges(self) -> Any:
        """expert_major [L, R] int64: begin << 32 | count: the rows of a source, in the order of its tokens."""
        return native(self._core.ranges, self._kind)

    @cached_property
    def source_token(self) -> Any:
        """[L, R*M] or [R, M] int32: index of the token on its source rank."""
        return native(self._core.source_token, self._kind)

    @cached_property
    def topk_idx(self) -> Any:
        """rank_major [R, M, K] int32: local expert ids, -1 where not ours; else None."""
        return native(self._core.topk_idx, self._kind)

    @cached_property
    def topk_weights(self) -> Any:
        """rank_major [R, M, K] float32: as given, 0 where not ours; None when no weights were given."""
        return native(self._core.topk_weights, self._kind)

    @cached_property
    def handle(self) -> _core.LowLatencyHandle:
        """For combine and outputs."""
        return self._core.handle


class ReceiveHook:
    """The receive half of a call: `hook()`. To be called once; later calls do nothing.

    Raises what the call raises, and Unusable after destroy().
    """

    def __init__(self, core: _core.ReceiveHook, like: object) -> None:
        self._core = core
        self._like = like

    def __call__(self, cuda_stream: int | None = None) -> None:
        """CUDA engine: cuda_stream: the stream that it runs on; None: the framework's current one."""
        like, self._like = self._like, None
        self._core(current_cuda_stream(like) if cuda_stream is None else cuda_stream)
