"""What a dispatch sends to whom, and where the rows of experts and ranks end in what is received."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import switchyard
import torch
from switchyard import Communicator, Event, Handle, InvalidArgument, Layout, OutOfMemory, interop

from ._errors import tensor

integers = (torch.int32, torch.int64, torch.int16, torch.int8, torch.uint8)


# ---- before a dispatch ----


def any_layout(
    buffer: switchyard.Buffer | None, topk_idx: Any, sizes: tuple[int, int], asynchronous: bool
) -> tuple[Layout, Event | None]:
    """Returns the layout, and the event after which its contents are valid; None: the current stream orders them.

    Args:
        buffer: a buffer whose engine computes the layout, in one kernel; None: there is none.
        sizes: num_experts, num_ranks.
    """
    if buffer is not None:
        try:
            stream = interop.current_cuda_stream(topk_idx)
            if asynchronous:
                return interop.get_layout_async(buffer, topk_idx, stream)
            return buffer.get_layout(topk_idx, cuda_stream=stream), None
        except OutOfMemory:
            pass  # results that the caller holds fill the heap
    return layout_of(topk_idx, *sizes), None


def layout_as_before(
    engine: switchyard.Buffer, topk_idx: Any, num_experts: Any, queued: bool
) -> tuple[tuple[Any, Any, Any, Any], Event | None] | None:
    """Returns the tensors of a layout and its event, if an engine's kernel computes it and the sizes are the engine's.

    Otherwise returns None. See any_layout.
    """
    if type(num_experts) is not int:
        return None
    try:
        return interop.layout_if_it_fits(engine, topk_idx, num_experts, queued)
    except OutOfMemory:  # results that the caller holds fill the heap
        return None


def layout_of(topk_idx: Any, num_experts: int, num_ranks: int) -> Layout:
    """Returns the layout in the memory of topk_idx, computed without a buffer."""
    if isinstance(topk_idx, torch.Tensor) and topk_idx.is_cuda:
        return by_torch(topk_idx, num_experts, num_ranks)
    return interop.get_layout(topk_idx, num_experts, num_ranks)


def by_torch(topk_idx: torch.Tensor, num_experts: int, num_ranks: int) -> Layout:
    """Computes the layout by operations of PyTorch on the current stream.

    The host does not wait, so ids out of range count as not used, as in the CUDA engine.
    """
    if topk_idx.ndim != 2 or topk_idx.dtype not in (torch.int64, torch.int32):
        raise InvalidArgument(
            f"topk_idx: expected int64 or int32 [tokens, top-k], seen {topk_idx.dtype} {list(topk_idx.shape)}"
        )
    used = (topk_idx >= 0) & (topk_idx < num_experts)
    # Slots that are not used go to one more expert, and one more rank, which are cut off.
    expert = topk_idx.long().where(used, num_experts)
    rank = ranks_of(expert, num_experts, num_ranks).where(used, num_ranks)
    in_rank = torch.zeros(len(topk_idx), num_ranks + 1, dtype=torch.bool, device=topk_idx.device)
    in_rank = in_rank.scatter_(1, rank, True)[:, :num_ranks].contiguous()
    per_expert = torch.zeros(num_experts + 1, dtype=torch.int32, device=topk_idx.device)
    per_expert.scatter_add_(0, expert.flatten(), torch.ones_like(expert, dtype=torch.int32).flatten())
    return Layout(in_rank.sum(0, dtype=torch.int32), per_expert[:num_experts], in_rank)


def ranks_of(expert: torch.Tensor, num_experts: int, num_ranks: int) -> torch.Tensor:
    """Returns the rank of each expert, by arithmetic: a table would have to be copied to the GPU."""
    each, more = divmod(num_experts, num_ranks)
    wide = more * (each + 1)  # experts of the first ranks, which hold one more than the others
    return torch.where(expert < wide, expert // (each + 1), more + (expert - wide) // max(each, 1))


# ---- after a dispatch ----
#
# Results lie in the memory of the dispatched tensors. On a GPU they are sums of counts that the engine keeps there, so
# that the host does not wait.


def rows_of_experts(counts: torch.Tensor, num_local_experts: int) -> torch.Tensor:
    """Returns [L] int32: rows of each local expert, without padding.

    Args:
        counts: the counts that the engine keeps in GPU memory, [R, 1 + most local experts of a rank].
        num_local_experts: L.
    """
    return counts[:, 1 : 1 + num_local_experts].sum(0, dtype=torch.int32)


def ends_of_experts(rows: torch.Tensor, alignment: int, with_padding: bool) -> torch.Tensor:
    """Returns [L] int32: where each expert's rows end if each expert starts at a multiple of alignment.

    Args:
        rows: the number of rows of each expert.
        with_padding: True: where its padding ends; False: where its real rows end.
    """
    padded = (rows + alignment - 1) // alignment * alignment
    ends = padded.cumsum(0, dtype=torch.int32)
    return ends if with_padding else (ends - padded + rows).int()


def ends_of_ranks(handle: Handle, counts: torch.Tensor | None, expanded: bool) -> torch.Tensor | None:
    """Returns [R] int32: tokens received from all ranks up to each; None if the engine does not know.

    Args:
        handle: the handle of the dispatch.
        counts: as in rows_of_experts; None: the host knows the counts.
        expanded: the layout of the dispatch. Only in the flat layout column 0 of counts has rows.
    """
    if counts is not None:
        return None if expanded else counts[:, 0].cumsum(0, dtype=torch.int32)
    known = handle.recv_rows_end_by_rank
    return torch.tensor(known, dtype=torch.int32, device="cpu") if known else None


def exchanged_ends(sent: torch.Tensor, communicator: Communicator) -> torch.Tensor:
    """Returns [R, R] int32: tokens that a rank (column) received from all ranks up to one (row).

    The ranks exchange their counts: the call is collective, and the host waits.

    Args:
        sent: [R] tokens that this rank sends to each rank.
    """
    rows = exchanged_counts_of_ranks(sent, communicator)
    return torch.tensor(rows, dtype=torch.int64, device="cpu").cumsum(0).to(sent.device, torch.int32)


def exchanged_counts(per_expert: torch.Tensor, alignment: int, communicator: Communicator) -> list[int]:
    """Returns for each local expert how many tokens all ranks send to it, rounded up to alignment. Collective.

    Args:
        per_expert: [E] tokens that this rank sends to each expert.
    """
    own = local_range(len(per_expert), communicator.rank, communicator.size)
    counts = [theirs[own.start : own.stop] for theirs in exchanged_counts_of_ranks(per_expert, communicator)]
    return [-(-sum(of_expert) // alignment) * alignment for of_expert in zip(*counts)]


def exchanged_counts_of_ranks(mine: torch.Tensor, communicator: Communicator) -> list[tuple[int, ...]]:
    """Returns the counts of each rank, which all have as many. Collective, and the host waits."""
    form = f"{len(mine)}q"
    return [struct.unpack(form, theirs) for theirs in communicator.all_gather(struct.pack(form, *mine.tolist()))]


def local_range(num_experts: int, rank: int, num_ranks: int) -> range:
    """Returns the experts of a rank."""
    begin = sum(interop.local_experts(num_experts, before, num_ranks) for before in range(rank))
    return range(begin, begin + interop.local_experts(num_experts, rank, num_ranks))


def exchanged_ids(topk_idx: torch.Tensor, num_experts: int, communicator: Communicator) -> list[torch.Tensor]:
    """Returns the ids [N, K] int32 of each rank, on the CPU; those out of range are -1. Collective."""
    on_cpu = topk_idx.to("cpu")
    mine = on_cpu.where((on_cpu >= 0) & (on_cpu < num_experts), -1).to(torch.int32).contiguous()
    everybody = communicator.all_gather(ctypes.string_at(mine.data_ptr(), mine.numel() * 4))
    top_k = mine.shape[1]
    empty = torch.empty(0, top_k, dtype=torch.int32, device="cpu")
    return [
        torch.frombuffer(bytearray(one), dtype=torch.int32).view(-1, top_k) if one else empty for one in everybody
    ]


def sources_of_rows(ids_of_ranks: list[torch.Tensor], own: range, max_tokens: int, alignment: int) -> torch.Tensor:
    """Returns [n, 2 + K] int32: for each token received, by source rank and token, where it came from and went to.

    Column 0 is source rank * max_tokens + the token's number there; column 1 is source rank * K + the last slot whose
    expert is ours; column 2 + k is the row of the expanded layout for slot k, or -1.

    Args:
        ids_of_ranks: the topk_idx of each rank.
        own: the local experts.
        max_tokens: more than any rank's tokens.
        alignment: rows of an expert start at multiples of it (expanded).
    """
    columns, experts = [], []
    for source, ids in enumerate(ids_of_ranks):
        local = torch.where((ids >= own.start) & (ids < own.stop), ids - own.start, -1)
        tokens = (local >= 0).any(1).nonzero().squeeze(1)
        local = local[tokens]
        last = ids.shape[1] - 1 - (local >= 0).int().flip(1).argmax(1) if len(tokens) else tokens
        columns.append(torch.stack((source * max_tokens + tokens, source * ids.shape[1] + last), 1))
        experts.append(local)
    expert = torch.cat(experts).long()
    used = expert >= 0
    rows = torch.full_like(expert, -1)
    rows[used] = _expanded_rows(expert[used], len(own), alignment)
    return torch.cat((torch.cat(columns), rows), 1).int()


def _expanded_rows(experts: torch.Tensor, num_local_experts: int, alignment: int) -> torch.Tensor:
    """Returns the row of each entry: by expert, each at a multiple of alignment, then in the order of the entries."""
    counts = torch.bincount(experts, minlength=num_local_experts)
    starts = ends_of_experts(counts, alignment, with_padding=False) - counts
    by_expert = torch.argsort(experts, stable=True)
    number = torch.empty_like(by_expert)  # among all entries, by expert
    number[by_expert] = torch.arange(len(experts), device=experts.device)
    return number - (counts.cumsum(0) - counts)[experts] + starts[experts]


def check_stats(stats: Any, num_local_experts: int) -> None:
    """Checks an argument of add_rows before there are rows."""
    tensor("cumulative_local_expert_recv_stats", stats)
    if stats.dtype not in integers:
        raise InvalidArgument(f"cumulative_local_expert_recv_stats: expected integers, seen {stats.dtype}")
    if list(stats.shape) != [num_local_experts]:
        raise InvalidArgument(
            f"cumulative_local_expert_recv_stats: expected shape [{num_local_experts}], seen {list(stats.shape)}"
        )


def add_rows(stats: torch.Tensor, rows: torch.Tensor) -> None:
    on_cpu = not stats.is_cuda and not rows.is_cuda
    stats.add_(rows if on_cpu else rows.to(stats.device))
