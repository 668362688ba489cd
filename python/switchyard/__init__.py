"""Switchyard: expert-parallel dispatch and combine of MoE tokens, on CPUs and GPUs.

A `Communicator` is a rank's membership in a job. A `Buffer` sends tokens to the ranks that hold their experts
(`dispatch`) and sums up the rows that come back (`combine`). A `LowLatencyBuffer` does the same for decoding, where
there are few tokens. Calls take tensors of PyTorch, NumPy (with ml_dtypes), JAX, CuPy, and any object with
`__dlpack__`. Results are tensors of the same framework and are not copied.

`plan_experts` says how many replicas each expert should have, and on which GPUs. A `Recorder` keeps what happens in a
run, for `switchyard report`.

`switchyard.torch` adds autograd, torch.compile and an nn.Module. `switchyard.interop` is for packages that offer
another library's interface on top of Switchyard.
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
from ._experts import ExpertPlan, plan_experts
from ._low_latency import LowLatencyBuffer, LowLatencyReceived, ReceiveHook
from ._recorder import Recorder

__version__ = "0.1.0"

__all__ = [
    "Buffer",
    "Combined",
    "Communicator",
    "Dispatched",
    "Error",
    "Event",
    "ExpertPlan",
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
    "Recorder",
    "Store",
    "SystemCallError",
    "Timeout",
    "Unsupported",
    "Unusable",
    "plan_experts",
]
