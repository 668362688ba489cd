"""Calls that this rank refuses before the engine hears of them. The peers are in theirs by then, and would wait for
this rank until their deadline: so the engine's call is made without its x, which every rank refuses.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any, Callable, TypeVar

from . import _core

_Made = TypeVar("_Made")


def _on_current_stream(core: _core.Buffer) -> _core.CallOptions:
    """Of PyTorch, if it is in use: while that is captured the engine refuses calls that wait on the host."""
    options = _core.CallOptions()
    torch = sys.modules.get("torch")
    if core.engine == "cuda" and torch is not None:
        options.cuda_stream = torch.cuda.current_stream().cuda_stream
    return options


def refuse_dispatch(core: _core.Buffer) -> None:
    """To be followed by an exception that says what was wrong."""
    with suppress(Exception):  # among them what the peers get to hear
        core.dispatch(None, None, None, None, None, _on_current_stream(core))


def refuse_combine(core: _core.Buffer) -> None:
    """As refuse_dispatch."""
    with suppress(Exception):
        core.combine(None, None, None, None, None, _on_current_stream(core))


def or_refuse(
    refuse: Callable[[_core.Buffer], None], core: _core.Buffer, make: Callable[..., _Made], *arguments: Any
) -> _Made:
    """make(*arguments); what it raises, the peers are told of by `refuse`."""
    try:
        return make(*arguments)
    except Exception:
        refuse(core)
        raise
