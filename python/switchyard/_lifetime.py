"""Buffers and communicators, which are destroyed before the interpreter ends: queued calls use threads and tensors."""

from __future__ import annotations

import atexit
import itertools
import weakref
from typing import Protocol

from ._errors import Unusable


class Destroyable(Protocol):
    def destroy(self) -> None: ...


_buffers: weakref.WeakSet[Destroyable] = weakref.WeakSet()
_communicators: weakref.WeakSet[Destroyable] = weakref.WeakSet()
_keys = itertools.count(1)
_by_key: weakref.WeakValueDictionary[int, Destroyable] = weakref.WeakValueDictionary()


def track_buffer(buffer: Destroyable) -> int:
    """Has the buffer destroyed at exit. Returns the key by which operators of torch.library name it."""
    key = next(_keys)
    _buffers.add(buffer)
    _by_key[key] = buffer
    return key


def buffer_of_key(key: int) -> Destroyable:
    found = _by_key.get(key)
    if found is None:
        raise Unusable("Buffer: it is gone; keep it until the backward pass of all its results is done")
    return found


def track_communicator(communicator: Destroyable) -> None:
    _communicators.add(communicator)


@atexit.register
def _destroy_all() -> None:
    for living in (_buffers, _communicators):  # buffers use their communicators
        for each in list(living):
            each.destroy()
