"""The engine's errors, in words of deep_ep's users."""

from __future__ import annotations

from typing import Callable, TypeVar

import switchyard

_Made = TypeVar("_Made")
_Error = TypeVar("_Error", bound=switchyard.Error)

_words = (
    ("free results earlier or raise", "let go of earlier results, or raise"),
    ("write into a tensor of Buffer::allocate or raise", "let go of earlier results, or raise"),
    ("BufferOptions::heap_bytes", "num_nvl_bytes (ElasticBuffer: num_bytes)"),
    ("max_tokens = ", "num_max_dispatch_tokens_per_rank = "),  # only low-latency buffers are given one that matters
)


def with_text(error: _Error, text: str) -> _Error:
    return type(error)(text, error.rank, error.peer, error.phase)


def in_our_words(error: _Error) -> _Error:
    """To be raised instead."""
    text = str(error)
    for theirs, ours in _words:
        text = text.replace(theirs, ours)
    return with_text(error, text)


def made_by_all(what: str, make: Callable[[], _Made]) -> _Made:
    """make(), whose Timeout then says what was to be made."""
    try:
        return make()
    except switchyard.Timeout as error:
        raise with_text(error, f"{error}; {what} was to be made: do all ranks call with these?") from error
