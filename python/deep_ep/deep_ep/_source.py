"""The x of a dispatch, of two kinds, and what is received of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from switchyard import InvalidArgument

from ._checks import wrong_type
from ._scales import column_major, packed_scales, unpacked_scales

Fp8Pair = tuple[torch.Tensor, torch.Tensor]


class Source(NamedTuple):
    """As the engine takes it."""

    x: torch.Tensor
    scales: Any
    """[N, ceil(H/128)] float32; None unless x is of FP8."""
    columns: int
    """That int32 scales had; else 0. Received ones are then copied, on the current stream, so the call is not queued.
    """


def source_of(x: torch.Tensor | Fp8Pair) -> Source:
    """Raises TypeError and InvalidArgument for what the engine cannot be asked about."""
    rows, scales = x if isinstance(x, tuple) and len(x) == 2 else (x, None)
    if not isinstance(rows, torch.Tensor):
        raise wrong_type("x", "a torch.Tensor, or one and its scales", rows)
    if rows.ndim != 2:
        raise InvalidArgument(f"x: expected a tensor [tokens, hidden], seen shape {list(rows.shape)}")
    return Source(rows, None, 0) if scales is None else Source(rows, *packed_scales(rows, scales))


def received_x(source: Source, received: Any, column_major_scales: bool) -> torch.Tensor | Fp8Pair:
    """What was received, as it was given."""
    if source.scales is None:
        return received.x
    scales = unpacked_scales(received.scales, source.columns)
    return received.x, column_major(scales) if column_major_scales else scales.contiguous()
