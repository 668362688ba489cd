"""What must be destroyed before the interpreter goes: work under way uses threads and tensors."""

from __future__ import annotations

import atexit
import weakref
from typing import Protocol


class Destroyable(Protocol):
    def destroy(self) -> None: ...


# Buffers before communicators.
_buffers: weakref.WeakSet[Destroyable] = weakref.WeakSet()
_communicators: weakref.WeakSet[Destroyable] = weakref.WeakSet()


def track_buffer(buffer: Destroyable) -> None:
    _buffers.add(buffer)


def track_communicator(communicator: Destroyable) -> None:
    _communicators.add(communicator)


@atexit.register
def _destroy_all() -> None:
    for living in (_buffers, _communicators):
        for each in list(living):
            each.destroy()
