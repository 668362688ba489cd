"""Low-latency calls of deep_ep that go on without a peer. Each function checks itself."""

from __future__ import annotations

import os
from typing import Any

import torch.distributed as dist
from decoder import Decoder
from low_latency_reference import Job


def masks(group: Any) -> None:
    """The other ranks mask the last one and go on without it; then it comes back."""
    go_on_without(group, frozenset({group.size() - 1}))


def go_on_without(group: Any, out: frozenset[int]) -> None:
    """Two parts of the ranks mask one another, go on, and come together again."""
    decoder = Decoder.of(group, enable_shrink=True)
    ranks = decoder.job.ranks
    decoder.step(0)
    dist.barrier(group)
    missing = frozenset(range(ranks)) - out if decoder.rank in out else out
    for peer in missing:
        decoder.buffer.low_latency_update_mask_buffer(rank_to_mask=peer, mask=True)
    assert decoder.masks() == [int(r in missing) for r in range(ranks)]
    decoder.step_without(missing)
    dist.barrier(group)
    decoder.buffer.low_latency_clean_mask_buffer()
    dist.barrier(group)  # a rank that looks sooner finds itself masked by a peer, and masks that peer again
    assert decoder.masks() == [0] * ranks
    dist.barrier(group)
    decoder.step(2, hooks=True, zero_copy=True)
    decoder.buffer.destroy()


def late_peer(group: Any) -> None:
    """With enable_shrink the others go on without a rank that does not come. Needs processes of its own."""
    os.environ["SWITCHYARD_TIMEOUT_MS"] = "5000"  # before the library reads it
    decoder = Decoder.of(group, enable_shrink=True)
    decoder.step(0)
    late = decoder.job.ranks - 1
    dist.barrier(group)
    if decoder.rank != late:
        decoder.step_without(frozenset({late}))
        assert decoder.masks() == [int(rank == late) for rank in range(decoder.job.ranks)]
    dist.barrier(group)
    decoder.buffer.destroy()


def lost_peer(group: Any) -> None:
    """With enable_shrink the others go on without ranks that leave, before the first call and before a clean. Needs
    processes of its own."""
    decoder = Decoder.of(group, enable_shrink=True)
    lost = decoder.job.ranks - 1
    if decoder.rank == lost:
        decoder.buffer.destroy()
        dist.barrier(group)
        return
    for job in (decoder.job, Job(group.size(), hidden=256)):  # a buffer of the engine for each
        others = Decoder(decoder.buffer, job)
        others.step_without(frozenset({lost}))
        assert others.masks() == [int(rank == lost) for rank in range(job.ranks)]
    # The mask of a rank that is gone cannot be taken away.
    decoder.buffer.low_latency_clean_mask_buffer()
    decoder.step_without(frozenset({lost}))
    assert decoder.masks() == [int(rank == lost) for rank in range(decoder.job.ranks)]
    if decoder.rank == 0:
        decoder.buffer.destroy()
        dist.barrier(group)
        return
    decoder.buffer.clean_low_latency_buffer(decoder.job.max_tokens, decoder.job.hidden, decoder.job.experts)
    assert decoder.masks() == [int(rank in (0, lost)) for rank in range(decoder.job.ranks)]
    decoder.step_without(frozenset({0, lost}))
    dist.barrier(group)
    decoder.buffer.destroy()


def peer_that_never_comes(group: Any) -> None:
    """The same with a rank that lives, and makes its first call when the others have given it up."""
    os.environ["SWITCHYARD_RENDEZVOUS_TIMEOUT_MS"] = "3000"  # before the library reads it
    decoder = Decoder.of(group, enable_shrink=True)
    late = decoder.job.ranks - 1
    others = frozenset(range(late))
    if decoder.rank != late:
        decoder.step_without(frozenset({late}))
    dist.barrier(group)
    if decoder.rank == late:
        decoder.step_without(others)
    assert decoder.masks() == [int((rank == late) != (decoder.rank == late)) for rank in range(decoder.job.ranks)]
    dist.barrier(group)
    decoder.buffer.destroy()
