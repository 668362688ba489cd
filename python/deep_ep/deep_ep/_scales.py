"""Scales of FP8 rows, as callers have and want them."""

from __future__ import annotations

from typing import Any

import torch
from switchyard import InvalidArgument

# Bytes that a column starts at multiples of, for the tensor memory accelerator.
_tma_alignment = 16


def packed_scales(x: torch.Tensor, scales: Any) -> tuple[Any, int]:
    """Scales as the engine moves them, float32 [N, ceil(H/128)], and the columns that int32 ones had (else 0).

    int32 scales hold four exponents each: their bits travel in the first columns.
    """
    if not isinstance(scales, torch.Tensor) or scales.dtype != torch.int32 or scales.ndim != 2:
        return scales, 0
    columns, most = scales.shape[1], -(-x.shape[1] // 128)
    if columns > most:
        raise InvalidArgument(f"scales: dimension 1: expected at most {most}, seen {columns}")
    padded = torch.constant_pad_nd(scales, (0, most - columns)) if columns < most else scales
    return padded.view(torch.float32), columns


def unpacked_scales(scales: torch.Tensor, columns: int) -> torch.Tensor:
    if columns == 0:
        return scales
    return (scales[:, :columns] if columns < scales.shape[1] else scales).view(torch.int32)


def column_major(scales: torch.Tensor) -> torch.Tensor:
    """A copy [n, columns] with strides (1, n rounded up to 16 bytes, at least that)."""
    rows, columns = scales.shape
    each = _tma_alignment // scales.element_size()
    return scales.new_empty_strided((rows, columns), (1, max(1, -(-rows // each)) * each)).copy_(scales)
