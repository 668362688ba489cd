"""Calls that this rank refuses before they reach the engine.

The peers are in their calls by then and would wait for this rank until their deadlines. So this rank makes the engine's
call without x, which every rank refuses: the call then fails on all ranks at once.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from . import _core

if TYPE_CHECKING:
    from ._buffer import Buffer

_Made = TypeVar("_Made")


def _on_current_stream(core: _core.Buffer) -> _core.CallOptions:
    """Options with PyTorch's current stream: while it is captured, the engine refuses calls that wait on the host."""
    options = _core.CallOptions()
    torch = sys.modules.get("torch")
    if core.engine == "cuda" and torch is not None:
        options.cuda_stream = torch.cuda.current_stream().cuda_stream
    return options


def refuse_dispatch(buffer: Buffer) -> None:
    """Makes a dispatch fail with InvalidArgument on all peers; returns normally on this rank.

    Call it when this rank cannot make a dispatch that its peers are making, and raise your own error afterwards.
    """
    core = buffer._core
    with suppress(Exception):  # this rank gets the error of its peers, too
        core.dispatch(None, None, None, None, None, None, _on_current_stream(core))


def refuse_combine(buffer: Buffer) -> None:
    """Does for a combine what refuse_dispatch does for a dispatch."""
    core = buffer._core
    with suppress(Exception):
        core.combine(None, None, None, None, None, _on_current_stream(core))


def or_refuse(refuse: Callable[[Buffer], None], buffer: Buffer, make: Callable[..., _Made], *arguments: Any) -> _Made:
    """Returns make(*arguments). If that raises, calls refuse(buffer) and raises the same.

    Args:
        refuse: refuse_dispatch or refuse_combine.
    """
    try:
        return make(*arguments)
    except Exception:
        refuse(buffer)
        raise
