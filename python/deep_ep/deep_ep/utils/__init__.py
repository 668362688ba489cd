"""Events, and what benchmarks and tests use: `deep_ep.utils.envs`, `.testing`, `.math`, `.refs`, `.gate`, `.semantic`.

DeepEP's utils.comm and utils.find_pkgs handle communicators of NCCL and its libraries. There is nothing like them here.
"""

from .event import EventHandle, EventOverlap

__all__ = ["EventHandle", "EventOverlap"]
