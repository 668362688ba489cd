"""Switchyard: expert-parallel dispatch and combine of MoE tokens, on CPUs and GPUs.

A `Communicator` is a rank's membership in a job; a `Buffer` sends tokens to the ranks that hold their experts
(`dispatch`) and sums up what comes back (`combine`); a `LowLatencyBuffer` does so for decoding, with few tokens.
Tensors of PyTorch, NumPy (with ml_dtypes), JAX, CuPy, or anything with `__dlpack__`, are taken as they are; results
are tensors of the same framework, in memory that no copy was made of.
`switchyard.torch` has autograd, torch.compile and an nn.Module on top.
"""

from ._buffer import Buffer, Combined, Dispatched, Layout, PendingCombined, PendingDispatched
from ._communicator import Communicator
from ._core import Event, Handle, LowLatencyHandle, Store
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
from ._low_latency import LowLatencyBuffer, LowLatencyReceived, ReceiveHook

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
    "LowLatencyBuffer",
    "LowLatencyHandle",
    "LowLatencyReceived",
    "OutOfMemory",
    "PeerLost",
    "PendingCombined",
    "PendingDispatched",
    "ReceiveHook",
    "Store",
    "SystemCallError",
    "Timeout",
    "Unsupported",
    "Unusable",
]
