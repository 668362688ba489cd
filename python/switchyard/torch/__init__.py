"""PyTorch on top of a Buffer: autograd, torch.compile, activation checkpointing, an nn.Module.

`dispatch` and `combine` are operators of torch.library, so that compilers can trace them. The backward of each is the
other. Calls stay collective: every rank runs the same ones in the same order, also in the backward pass.
"""

import torch

from .._frameworks import require_torch
from ._functions import Routed, combine, dispatch, dispatch_cached
from ._module import MoEDispatcher

require_torch(torch)

__all__ = ["MoEDispatcher", "Routed", "combine", "dispatch", "dispatch_cached"]
