"""What ranks agree on: the arguments of a buffer, and that all of them make an engine for calls of a new shape.

If a single rank makes a call of a new shape by mistake, it is in the constructor of an engine while its peers are in a
call of the latest engine, and all wait until their deadlines. So all ranks first meet in the latest engine.
"""

from __future__ import annotations

import re
from typing import Any

import switchyard
import torch
from switchyard import InvalidArgument, OutOfMemory, interop

from ._errors import in_our_words, with_text

# No caller dispatches with both of these, and the engine compares them before any row moves.
_dtype, _alignment = torch.float16, 65521
_sign = re.compile(
    r"x: dtype: expected (f16 |\S+ as on rank 0, seen f16)"
    r"|topk_weights: expected (none as on rank 0|a tensor as on rank 0, seen none)"
    rf"|expert_alignment: expected .*\b{_alignment}\b"
)
_same = "dtype, hidden and device of x, num_experts, top-k and num_max_tokens_per_rank"
_differs = " as on rank 0, seen "
# What hosts say of a call that they did not wait for, and that a rank did not make or refused.
_left_alone = "made another call, or refused"


def check_agreement(communicator: switchyard.Communicator, names: tuple[str, ...], mine: tuple[Any, ...]) -> None:
    """Raises InvalidArgument, on all ranks, if a rank has other values than rank 0. Collective."""
    _check_same(communicator, repr(mine), f"{names}: ")


def check_same_call(communicator: switchyard.Communicator, mine: str) -> None:
    """Raises InvalidArgument, on all ranks, if a rank makes another call than rank 0. Collective.

    Args:
        mine: what this rank calls, with which sizes.
    """
    _check_same(communicator, mine, "")


def _check_same(communicator: switchyard.Communicator, mine: str, what: str) -> None:
    everybody = communicator.all_gather(mine.encode())
    for rank, theirs in enumerate(everybody):
        if theirs != everybody[0]:
            expected, seen = (each.decode(errors="replace") for each in (everybody[0], theirs))
            raise InvalidArgument(f"rank {rank}: {what}expected {expected} as on rank 0, seen {seen}")


def meet_in(engine: switchyard.Buffer, device: torch.device, call: str) -> None:
    """Dispatches nothing. Raises InvalidArgument, on all ranks, if a rank makes another call. Collective.

    Args:
        call: what this rank calls, for the first time.
    """
    x = torch.empty(0, engine.hidden, dtype=_dtype, device=device)
    topk_idx = torch.empty(0, engine.top_k, dtype=torch.int64, device=device)
    # The dispatch takes memory of results that the current stream may still read, so it runs after that stream.
    options = interop.call_options(expert_alignment=_alignment, cuda_stream=interop.current_cuda_stream(x))
    try:
        interop.dispatch(engine, x, None, topk_idx, None, None, options)
    except OutOfMemory:
        pass  # results that callers hold fill the heap: this engine can compare nothing
    except InvalidArgument as error:
        ours = in_our_words(error)
        if _differs not in str(error) and _left_alone not in str(error):
            raise ours from error  # a peer refused its call
        text = f"this rank is the first to make {call}, and a peer makes another call: expected the same on all ranks"
        raise with_text(error, text) from error


def explained(error: InvalidArgument, dtype: torch.dtype) -> InvalidArgument:
    """Returns the error of a call, or what it means if a peer may be in meet_in, whose arguments nobody passed.

    Args:
        dtype: of this rank's x.
    """
    if dtype == _dtype or not _sign.search(str(error)):
        return error
    text = f"expected a dispatch with the same {_same} as on rank 0, seen another, or a low_latency_dispatch"
    return with_text(error, f"rank {error.rank}: {text}")
