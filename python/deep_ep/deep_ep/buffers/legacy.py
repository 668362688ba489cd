"""V1."""

from ..buffer import Buffer
from ..config import Config
from ..utils.event import EventHandle, EventOverlap

__all__ = ["Buffer", "Config", "EventHandle", "EventOverlap"]
