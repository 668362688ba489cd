"""CUDA streams as integers; 0 where there are only CPU tensors."""

from __future__ import annotations

import torch


def stream_of(tensor: torch.Tensor) -> int:
    """The current stream where the tensor lies."""
    return int(torch.cuda.current_stream(tensor.device).cuda_stream) if tensor.is_cuda else 0
