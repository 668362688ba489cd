"""V2."""

from ..elastic import ElasticBuffer
from ..ep_handle import EPHandle
from ..utils.event import EventHandle, EventOverlap

__all__ = ["EPHandle", "ElasticBuffer", "EventHandle", "EventOverlap"]
