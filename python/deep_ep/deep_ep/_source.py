"""The x of a dispatch, which may have scales, and what is received of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from switchyard import InvalidArgument

from ._errors import wrong_type

Fp8Pair = tuple[torch.Tensor, torch.Tensor]

_dtypes = (torch.bfloat16, torch.float16, torch.float32, torch.float8_e4m3fn)

# For the tensor memory accelerator a column of scales starts at a multiple of as many bytes.
_tma_alignment = 16


class Source(NamedTuple):
    """An x as the engine takes it."""

    x: torch.Tensor
    scales: Any
    """[N, ceil(H/128)] float32; None unless x is float8_e4m3fn."""
    columns: int
    """Columns of int32 scales, or 0 for other scales. Received int32 scales are copied on the current stream, so such a
    call is not queued.
    """


def source_of(x: torch.Tensor | Fp8Pair) -> Source:
    """Raises TypeError and InvalidArgument for an x that cannot be passed to the engine."""
    rows, scales = x if isinstance(x, tuple) and len(x) == 2 else (x, None)
    if not isinstance(rows, torch.Tensor):
        raise wrong_type("x", "a torch.Tensor, or one and its scales", rows)
    if rows.dtype not in _dtypes:
        names = ", ".join(str(each).removeprefix("torch.") for each in _dtypes)
        raise InvalidArgument(f"x: expected dtype {names}, seen {str(rows.dtype).removeprefix('torch.')}")
    if rows.ndim != 2:
        raise InvalidArgument(f"x: expected a tensor [tokens, hidden], seen shape {list(rows.shape)}")
    return Source(rows, None, 0) if scales is None else Source(rows, *packed_scales(rows, scales))


def received_x(source: Source, received: Any, column_major_scales: bool) -> torch.Tensor | Fp8Pair:
    """Returns what was received, in the form of the x that was sent."""
    if source.scales is None:
        return received.x
    scales = unpacked_scales(received.scales, source.columns)
    return received.x, column_major(scales) if column_major_scales else scales.contiguous()


def packed_scales(x: torch.Tensor, scales: Any) -> tuple[Any, int]:
    """Returns scales as the engine moves them, float32 [N, ceil(H/128)], and the columns of int32 scales (else 0).

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
    """Undoes packed_scales."""
    if columns == 0:
        return scales
    return (scales[:, :columns] if columns < scales.shape[1] else scales).view(torch.int32)


def column_major(scales: torch.Tensor) -> torch.Tensor:
    """Returns a copy [n, columns] whose columns each start at a multiple of 16 bytes."""
    rows, columns = scales.shape
    each = _tma_alignment // scales.element_size()
    return scales.new_empty_strided((rows, columns), (1, max(1, -(-rows // each)) * each)).copy_(scales)
