"""The engine's errors, in words of deep_ep's users."""

from __future__ import annotations

from typing import Callable, TypeVar

import switchyard

_Made = TypeVar("_Made")
_Error = TypeVar("_Error", bound=Exception)

_words = (
    ("free results earlier or raise", "let go of earlier results, or raise"),
    ("write into a tensor of Buffer::allocate or raise", "let go of earlier results, or raise"),
    ("BufferOptions::heap_bytes (SWITCHYARD_HEAP_BYTES)", "SWITCHYARD_HEAP_BYTES"),
    ("BufferOptions::heap_bytes", "num_nvl_bytes (ElasticBuffer: num_bytes; on the CPU SWITCHYARD_HEAP_BYTES)"),
    ("LowLatencyOptions::max_tokens or max_results", "num_max_dispatch_tokens_per_rank"),
    ("LowLatencyOptions::", ""),
    ("max_tokens = ", "num_max_dispatch_tokens_per_rank = "),  # only low-latency buffers are given one that matters
    ("max_tokens: ", "num_max_dispatch_tokens_per_rank: "),
    ("received_per_expert", "cumulative_local_expert_recv_stats"),
    ("exactly one of topk_idx, token_in_rank and handle", "topk_idx, token_in_rank or handle"),
    ("token_in_rank: expected dtype u8", "token_in_rank: expected dtype bool"),
    ("token_in_rank", "is_token_in_rank"),
    ("outputs() with coding logfmt10", "get_next_low_latency_combine_buffer with use_logfmt"),
    ("bias0", "bias"),
    ("bias1", "bias[1]"),
)


def with_text(error: _Error, text: str) -> _Error:
    made = type(error)(text)
    made.__dict__.update(error.__dict__)  # rank, peer, phase
    return made


def in_our_words(error: _Error, *more: tuple[str, str]) -> _Error:
    """To be raised instead.

    Args:
        more: what an argument of the engine is called here, where calls differ.
    """
    text = str(error)
    for theirs, ours in (*_words, *more):
        text = text.replace(theirs, ours)
    return with_text(error, text)


def made_by_all(what: str, make: Callable[[], _Made]) -> _Made:
    """make(), whose Timeout then says what was to be made. What it says of memory, it says in our words."""
    try:
        return make()
    except switchyard.OutOfMemory as error:
        raise in_our_words(error) from error
    except switchyard.Timeout as error:
        raise with_text(error, f"{error}; {what} was to be made: do all ranks call with these?") from error
