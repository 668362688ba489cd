"""CUDA streams as integers; 0 where there are only CPU tensors."""

from __future__ import annotations

import torch
from switchyard._core import current_cuda_stream


def stream_of(tensor: torch.Tensor) -> int:
    """The current stream where the tensor lies."""
    return current_cuda_stream(tensor) or 0
