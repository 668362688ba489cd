"""What ranks settle before they make an engine for calls of a new shape.

A rank that alone comes with a new shape, by mistake, would be in the constructor of an engine while its peers are in a
call of the last one: both would wait until their deadlines. So all meet in the last one first.
"""

from __future__ import annotations

import re

import switchyard
import torch
from switchyard import InvalidArgument, OutOfMemory
from switchyard._core import CallOptions

from ._errors import in_our_words, with_text
from ._streams import stream_of

# No caller dispatches these together, and the engine compares them before any row moves.
_dtype, _alignment = torch.float16, 65521
_sign = re.compile(
    r"x: dtype: expected (f16 |\S+ as on rank 0, seen f16)"
    r"|topk_weights: expected (none as on rank 0|a tensor as on rank 0, seen none)"
    rf"|expert_alignment: expected .*\b{_alignment}\b"
)
_differs = " as on rank 0, seen "


def meet_in(engine: switchyard.Buffer, device: torch.device) -> None:
    """Collective: a dispatch of nothing. Raises InvalidArgument, on all ranks, when one makes another call."""
    x = torch.empty(0, engine.hidden, dtype=_dtype, device=device)
    topk_idx = torch.empty(0, engine.top_k, dtype=torch.int64, device=device)
    asking = CallOptions()
    asking.expert_alignment = _alignment
    asking.cuda_stream = stream_of(x)  # it takes memory of results, which that stream may still read
    try:
        engine._core.dispatch(x, None, topk_idx, None, None, asking)
    except OutOfMemory:
        pass  # held results fill its heap: nothing can be settled
    except InvalidArgument as error:
        told = in_our_words(error)
        if _differs not in str(error):
            raise told from error  # a peer refused its call
        text = f"this rank is the first to call with such shapes or such a device, which no peer does now ({told})"
        raise with_text(error, text) from error


def explained(error: InvalidArgument) -> InvalidArgument:
    """What a call throws that a peer did not make, since it was in meet_in."""
    if not _sign.search(str(error)):
        return error
    return with_text(error, f"{error} (or shapes, or devices, that differ: one of the two ranks calls with new ones)")
