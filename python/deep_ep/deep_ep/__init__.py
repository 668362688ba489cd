"""Switchyard with the interface of DeepEP (V1 and V2), for CPU and CUDA tensors.

This is not DeepEP: `deep_ep.engine` is "switchyard". Its distribution is `deep_ep`, version 2.1.0+switchyard...
docs/python.md of Switchyard lists the differences.
"""

from importlib.metadata import PackageNotFoundError, version

import torch
from switchyard.interop import require_torch

from ._installed import warn_of_others
from .buffer import Buffer
from .config import Config
from .elastic import ElasticBuffer
from .ep_handle import EPHandle
from .utils.envs import get_logical_domain_size, get_physical_domain_size
from .utils.event import EventHandle, EventOverlap

topk_idx_t = torch.int64
engine = "switchyard"
try:
    __version__ = version("deep_ep")
except PackageNotFoundError:  # run from the sources
    __version__ = "unknown"

require_torch(torch)
warn_of_others()

__all__ = [
    "Buffer",
    "Config",
    "EPHandle",
    "ElasticBuffer",
    "EventHandle",
    "EventOverlap",
    "get_logical_domain_size",
    "get_physical_domain_size",
    "topk_idx_t",
]
