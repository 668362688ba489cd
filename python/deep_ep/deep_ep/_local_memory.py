"""Memory of a rank that callers may use freely."""

from __future__ import annotations

from math import prod
from typing import Any, Iterable

import torch
from switchyard import InvalidArgument

from ._errors import number, wrong_type


class LocalMemory:
    """Bytes that no call reads or overwrites.

    They are allocated when a view is first asked for, on the current GPU if CUDA is in use by then.

    Args:
        name: how callers call the number of bytes.
        num_bytes: that number.
    """

    def __init__(self, name: str, num_bytes: int) -> None:
        self._num_bytes = number(name, num_bytes)
        if self._num_bytes < 0:
            raise InvalidArgument(f"{name}: expected 0 or more, seen {num_bytes}")
        self._bytes: torch.Tensor | None = None

    def view(self, dtype: torch.dtype, size: Any, offset: int) -> torch.Tensor:
        """See Buffer.get_local_buffer_tensor."""
        if not isinstance(dtype, torch.dtype):
            raise wrong_type("dtype", "a torch.dtype", dtype)
        width, at = dtype.itemsize, number("offset", offset)
        if not 0 <= at <= self._num_bytes or at % width:
            raise InvalidArgument(f"offset: expected a multiple of {width} in 0..{self._num_bytes}, seen {at}")
        most = (self._num_bytes - at) // width
        shape = [most] if size is None else _shape_of(size)
        if prod(shape) > most:
            raise InvalidArgument(f"size: expected at most {most} elements, seen {prod(shape)}")
        return self._all()[at : at + prod(shape) * width].view(dtype).view(shape)

    def _all(self) -> torch.Tensor:
        if self._bytes is None:
            where = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_initialized() else None
            self._bytes = torch.zeros(self._num_bytes, dtype=torch.uint8, device=where)
        return self._bytes


def _shape_of(size: Any) -> list[int]:
    shape = [number("size", each) for each in (size if isinstance(size, Iterable) else (size,))]
    if any(each < 0 for each in shape):
        raise InvalidArgument(f"size: expected a shape, seen {shape}")
    return shape
