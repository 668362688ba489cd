"""Switchyard under the interface of DeepEP (V1 and V2), on CPU and CUDA tensors.

This is not DeepEP: `deep_ep.engine` names what it is. It comes with the distribution `deep_ep`, version
2.1.0+switchyard...; docs/python.md of Switchyard says what differs.
"""

from importlib.metadata import PackageNotFoundError, version

import torch
from switchyard._frameworks import require_torch

from ._installed import warn_of_others
from .buffer import Buffer
from .config import Config
from .elastic import ElasticBuffer
from .ep_handle import EPHandle
from .utils import EventHandle, EventOverlap

topk_idx_t = torch.int64
engine = "switchyard"
try:
    __version__ = version("deep_ep")
except PackageNotFoundError:  # run from the sources
    __version__ = "unknown"

require_torch(torch)
warn_of_others()

__all__ = ["Buffer", "Config", "EPHandle", "ElasticBuffer", "EventHandle", "EventOverlap", "topk_idx_t"]
