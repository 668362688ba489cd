"""Calls that this rank refuses before the engine hears of them. The peers are in theirs by then, and would wait for
this rank until their deadline: so the engine's call is made without its x, which every rank refuses.
"""

from __future__ import annotations

from contextlib import suppress

from . import _core

_nothing = _core.CallOptions()


def refuse_dispatch(core: _core.Buffer) -> None:
    """To be followed by an exception that says what was wrong."""
    with suppress(Exception):  # among them what the peers get to hear
        core.dispatch(None, None, None, None, None, _nothing)


def refuse_combine(core: _core.Buffer) -> None:
    """As refuse_dispatch."""
    with suppress(Exception):
        core.combine(None, None, None, None, None, _nothing)
