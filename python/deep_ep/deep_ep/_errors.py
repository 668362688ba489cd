"""Errors in the words of DeepEP's interface: those of the engine, and those of checks made here."""

from __future__ import annotations

from operator import index
from typing import Any, Callable, TypeVar

import switchyard
import torch
from switchyard import InvalidArgument

_Made = TypeVar("_Made")
_Error = TypeVar("_Error", bound=Exception)

_words = (
    ("free results earlier or ", "free earlier results, or "),
    ("write into a tensor of Buffer::allocate or ", "free earlier results, or "),
    ("BufferOptions::heap_bytes (SWITCHYARD_HEAP_BYTES)", "SWITCHYARD_HEAP_BYTES"),
    ("BufferOptions::heap_bytes", "SWITCHYARD_HEAP_BYTES"),
    ("BufferOptions::max_tokens", "num_max_tokens_per_rank"),
    ("BufferOptions::", ""),
    (" dispatches (max_results)", " dispatches"),
    ("LowLatencyOptions::max_tokens or max_results", "num_max_dispatch_tokens_per_rank"),
    ("LowLatencyOptions::", ""),
    ("max_tokens = ", "num_max_dispatch_tokens_per_rank = "),  # callers choose it for low-latency buffers only
    ("max_tokens: ", "num_max_dispatch_tokens_per_rank: "),
    ("received_per_expert", "cumulative_local_expert_recv_stats"),
    ("exactly one of topk_idx, token_in_rank and handle", "topk_idx, token_in_rank or handle"),
    ("token_in_rank: expected dtype u8", "token_in_rank: expected dtype bool"),
    ("token_in_rank", "is_token_in_rank"),
    ("outputs() with coding logfmt10", "get_next_low_latency_combine_buffer with use_logfmt"),
    ("call reset() on all ranks, or make a new one on all ranks", "make a new one on all ranks"),
    ("bias0", "bias"),
    ("bias1", "bias[1]"),
)


def with_text(error: _Error, text: str) -> _Error:
    """Returns an error of the same class and attributes with another text."""
    made = type(error)(text)
    made.__dict__.update(error.__dict__)  # rank, peer, phase
    return made


def in_our_words(error: _Error, *more: tuple[str, str]) -> _Error:
    """Returns an error of the engine with DeepEP's names of arguments.

    Args:
        more: further (name in the engine, name here), for arguments whose names differ between calls.
    """
    text = str(error)
    for theirs, ours in (*_words, *more):
        text = text.replace(theirs, ours)
    return with_text(error, text)


def made_by_all(what: str, make: Callable[[], _Made]) -> _Made:
    """Returns make(). If that raises Timeout, the text says what was to be made; other errors name our arguments."""
    try:
        return make()
    except (switchyard.OutOfMemory, InvalidArgument) as error:
        raise in_our_words(error) from error
    except switchyard.Timeout as error:
        text = f"{error}; this rank was making {what}: check that all ranks make calls with these sizes"
        raise with_text(error, text) from error


# ---- checks of arguments ----


def wrong_type(name: str, expected: str, value: Any) -> TypeError:
    """Returns the error for an argument of the wrong type."""
    return TypeError(f"{name}: expected {expected}, seen {type(value).__name__}")


def tensor(name: str, value: Any) -> torch.Tensor:
    """Returns `value`; raises TypeError unless it is a tensor."""
    if not isinstance(value, torch.Tensor):
        raise wrong_type(name, "a torch.Tensor", value)
    return value


def number(name: str, value: Any) -> int:
    """Returns `value` as an int; raises TypeError unless it is a whole number."""
    try:
        return index(value)
    except TypeError:
        raise wrong_type(name, "a whole number", value) from None
