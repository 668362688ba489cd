"""The x of a dispatch, which may have scales, and what is received of it."""

from __future__ import annotations

from typing import Any

import torch
from switchyard import InvalidArgument

from ._errors import wrong_type

Fp8Pair = tuple[torch.Tensor, torch.Tensor]

_dtypes = (torch.bfloat16, torch.float16, torch.float32, torch.float8_e4m3fn)

# For the tensor memory accelerator a column of scales starts at a multiple of as many bytes.
_tma_alignment = 16


def source_of(x: torch.Tensor | Fp8Pair) -> tuple[torch.Tensor, Any]:
    """Returns the rows, and their scales or None. Raises TypeError and InvalidArgument for other arguments."""
    rows, scales = x if isinstance(x, tuple) and len(x) == 2 else (x, None)
    if not isinstance(rows, torch.Tensor):
        raise wrong_type("x", "a torch.Tensor, or one and its scales", rows)
    if rows.dtype not in _dtypes:
        names = ", ".join(str(each).removeprefix("torch.") for each in _dtypes)
        raise InvalidArgument(f"x: expected dtype {names}, seen {str(rows.dtype).removeprefix('torch.')}")
    if rows.ndim != 2:
        raise InvalidArgument(f"x: expected a tensor [tokens, hidden], seen shape {list(rows.shape)}")
    return rows, scales


def column_major(scales: torch.Tensor) -> torch.Tensor:
    """Returns a copy [n, columns] whose columns each start at a multiple of 16 bytes."""
    rows, columns = scales.shape
    each = _tma_alignment // scales.element_size()
    return scales.new_empty_strided((rows, columns), (1, max(1, -(-rows // each)) * each)).copy_(scales)
