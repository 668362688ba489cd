"""Switchyard: expert-parallel dispatch and combine of MoE tokens, on CPUs and GPUs.

A `Communicator` is a rank's membership in a job; a `Buffer` sends tokens to the ranks that hold their experts
(`dispatch`) and sums up what comes back (`combine`). Tensors of PyTorch, NumPy (with ml_dtypes), JAX, CuPy, or
anything with `__dlpack__`, are taken as they are; results are tensors of the same framework, in memory that no copy
was made of. `switchyard.torch` has autograd, torch.compile and an nn.Module on top.
"""

from ._buffer import Buffer, Combined, Dispatched, Layout, PendingCombined, PendingDispatched
from ._communicator import Communicator
from ._core import Event, Handle, Store
from ._errors import (
    Error,
    InvalidArgument,
    OutOfMemory,
    PeerLost,
    SystemCallError,
    Timeout,
    Unsupported,
    Unusable,
)

__version__ = "0.1.0"

__all__ = [
    "Buffer",
    "Combined",
    "Communicator",
    "Dispatched",
    "Error",
    "Event",
    "Handle",
    "InvalidArgument",
    "Layout",
    "OutOfMemory",
    "PeerLost",
    "PendingCombined",
    "PendingDispatched",
    "Store",
    "SystemCallError",
    "Timeout",
    "Unsupported",
    "Unusable",
]
