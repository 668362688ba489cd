"""Dispatch and combine of the low-latency mode by the engine: what a decoding step calls for each layer, so the way
through the package switchyard, microseconds long, is left out.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import switchyard
import torch
from switchyard import ReceiveHook, _core

from ._streams import stream_of

Stats = tuple[Any, Any]
"""received_per_expert, wait_ns_per_source; each may be None."""


@lru_cache(maxsize=None)
def _options(stream: int, cast: str, coding: str) -> _core.LowLatencyCallOptions:
    """Given alike in every step: made once."""
    made = _core.LowLatencyCallOptions()
    made.cuda_stream = stream
    made.cast = _core.SendCast[cast]
    made.coding = _core.CombineCoding[coding]
    return made


def run_dispatch(
    buffer: switchyard.LowLatencyBuffer, x: torch.Tensor, topk_idx: Any, cast: str, stats: Stats, with_hook: bool
) -> tuple[Any, ReceiveHook | None]:
    """The LowLatencyResult of both halves; with a hook of the send half, and the hook."""
    arguments = (x, None, topk_idx, None, *stats, _options(stream_of(x), cast, "none"))
    if not with_hook:
        return buffer._core.dispatch(*arguments), None
    received, hook = buffer._core.send_dispatch(*arguments)
    return received, ReceiveHook(hook, x)


def run_combine(
    buffer: switchyard.LowLatencyBuffer,
    rows: tuple[torch.Tensor, _core.LowLatencyHandle, Any],
    coding: str,
    out: tuple[torch.Tensor, Any],
    with_hook: bool,
) -> ReceiveHook | None:
    """As run_dispatch.

    Args:
        rows: x, the handle, topk_weights.
        out: where the sums go; wait_ns_per_source.
    """
    arguments = (*rows, *out, _options(stream_of(rows[0]), "none", coding))
    if not with_hook:
        buffer._core.combine(*arguments)
        return None
    return ReceiveHook(buffer._core.send_combine(*arguments), rows[0])
