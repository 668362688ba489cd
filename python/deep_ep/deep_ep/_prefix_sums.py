"""Where the rows of experts and of ranks end, in the memory of the tensors that were dispatched.

On the GPU the sums are of counts that the engine keeps there: nothing waits for the host.
"""

from __future__ import annotations

import struct
from typing import Any

import torch
from switchyard import Communicator, Handle, InvalidArgument

from ._checks import tensor

_integers = (torch.int32, torch.int64, torch.int16, torch.int8, torch.uint8)


def rows_of_experts(counts: torch.Tensor, num_local_experts: int) -> torch.Tensor:
    """[L] int32: rows of each local expert, without padding.

    Args:
        counts: what the engine keeps in GPU memory, [R, 1 + most local experts of a rank].
        num_local_experts: L.
    """
    return counts[:, 1 : 1 + num_local_experts].sum(0, dtype=torch.int32)


def ends_of_experts(rows: torch.Tensor, alignment: int) -> torch.Tensor:
    """[L] int32: where each expert's rows end, given how many it has; each starts at a multiple of alignment."""
    padded = (rows + alignment - 1) // alignment * alignment
    return (padded.cumsum(0, dtype=torch.int32) - padded + rows).int()


def ends_of_ranks(handle: Handle, counts: torch.Tensor | None, expanded: bool) -> torch.Tensor | None:
    """[R] int32: tokens received from all ranks up to each. None: the engine does not know.

    Args:
        handle: of the dispatch.
        counts: as in rows_of_experts; None: the host knows.
        expanded: the layout. Column 0 of counts is of the flat one.
    """
    if counts is not None:
        return None if expanded else counts[:, 0].cumsum(0, dtype=torch.int32)
    known = handle.recv_rows_end_by_rank
    return torch.tensor(known, dtype=torch.int32) if known else None


def exchanged_ends(sent: torch.Tensor, communicator: Communicator) -> torch.Tensor:
    """[R, R] int32: tokens that a rank (column) received from all ranks up to one (row). An exchange between the ranks:
    collective, and it waits on the host.

    Args:
        sent: [R] tokens that go from here to each rank.
    """
    everybody = communicator.all_gather(struct.pack(f"{len(sent)}q", *sent.tolist()))
    rows = [struct.unpack(f"{len(sent)}q", theirs) for theirs in everybody]
    return torch.tensor(rows, dtype=torch.int64).cumsum(0).to(sent.device, torch.int32)


def check_stats(stats: Any, num_local_experts: int) -> None:
    """Of add_rows, before there are rows."""
    tensor("cumulative_local_expert_recv_stats", stats)
    if stats.dtype not in _integers:
        raise InvalidArgument(f"cumulative_local_expert_recv_stats: expected integers, seen {stats.dtype}")
    if list(stats.shape) != [num_local_experts]:
        raise InvalidArgument(
            f"cumulative_local_expert_recv_stats: expected shape [{num_local_experts}], seen {list(stats.shape)}"
        )


def add_rows(stats: torch.Tensor, rows: torch.Tensor) -> None:
    on_cpu = not stats.is_cuda and not rows.is_cuda
    stats.add_(rows if on_cpu else rows.to(stats.device))
