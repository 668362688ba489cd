"""What the ranks of a group settle when they make a buffer."""

from __future__ import annotations

from typing import Any

import switchyard
from switchyard import InvalidArgument


def check_agreement(communicator: switchyard.Communicator, names: tuple[str, ...], mine: tuple[Any, ...]) -> None:
    """Collective. Raises InvalidArgument, on all ranks, when one has other values than rank 0."""
    everybody = communicator.all_gather(repr(mine).encode())
    for rank, theirs in enumerate(everybody):
        if theirs != everybody[0]:
            expected, seen = everybody[0].decode(), theirs.decode()
            raise InvalidArgument(f"rank {rank}: {names}: expected {expected} as on rank 0, seen {seen}")
