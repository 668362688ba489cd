"""The handle of V1's dispatches over nodes, which has other items than that of dispatches within one."""

from __future__ import annotations

from typing import Any

import switchyard
import torch
from switchyard import Handle
from switchyard.interop import opaque_calls

from ._layout import exchanged_counts_of_ranks
from ._nodes import Nodes
from .handle import DispatchHandle, Routing, new_tuple, send_head, sent_rows, source_tokens


@opaque_calls
class InternodeHandle(DispatchHandle):
    """The handle of a dispatch over D nodes, of which this rank's has L ranks.

    It reads as the tuple (is_token_in_rank, rdma_channel_prefix_matrix [D, 1], gbl_channel_prefix_matrix [R, 1],
    recv_rdma_channel_prefix_matrix [D, 1], recv_rdma_rank_prefix_sum [D], recv_gbl_channel_prefix_matrix [R, 1],
    recv_gbl_rank_prefix_sum [R], recv_src_meta [n, 8] uint8, send_rdma_head [N, D], send_nvl_head [tokens, L]); those
    without a dtype are int32. Calls have one channel. Items 3, 4 and 9 tell how many tokens this rank passes on to its
    node: the ranks exchange counts when one of them is first read, so all ranks read it, or none.
    """

    _size = 10
    _fields = (
        lambda self: self.is_token_in_rank,
        lambda self: self.routing.nodes.tokens_per_node(self.is_token_in_rank).unsqueeze(1),
        lambda self: sent_rows(self),
        lambda self: self.passed_on().unsqueeze(1),
        lambda self: self.passed_on().cumsum(0, dtype=torch.int32),
        lambda self: torch.zeros_like(sent_rows(self)),
        lambda self: ends_of_ranks(self),
        lambda self: source_meta(self),
        lambda self: send_head(self.routing.nodes.tokens_in_node(self.is_token_in_rank)),
        lambda self: self._no_head(),
    )
    _in_rank = 0
    _counts: list[tuple[int, ...]] | None = None

    def passed_on(self) -> torch.Tensor:
        """Returns [D] int32: tokens of each node that come to this one by this rank; of this node its own tokens.

        Collective the first time.
        """
        nodes, in_rank = self.routing.nodes, self.is_token_in_rank
        if self._counts is None:
            mine = nodes.tokens_per_node(in_rank)
            self._counts = exchanged_counts_of_ranks(mine, self.routing.communicator)
        tokens = [0] * nodes.count
        for rank, counts in enumerate(self._counts):
            if nodes.peer_of(rank, nodes.own) == nodes.rank:
                tokens[nodes.by_rank[rank]] += counts[nodes.own]
        return torch.tensor(tokens, dtype=torch.int32, device=in_rank.device)

    def _no_head(self) -> torch.Tensor:
        """Returns -1 for each token and rank: there are no queues within a node in which it would have a place."""
        nodes, passed_on = self.routing.nodes, self.passed_on()
        shape = int(passed_on.sum()), len(nodes.ranks[nodes.own])
        return torch.full(shape, -1, dtype=torch.int32, device=passed_on.device)


def handle_of(core: Handle, buffer: switchyard.Buffer, routing: tuple[Any, Any, int, Any, Nodes]) -> DispatchHandle:
    """Args:
    routing: the items of a Routing.
    """
    made = new_tuple(DispatchHandle if routing[4].count == 1 else InternodeHandle)
    made.core = core
    made.buffer = buffer
    made.routing = new_tuple(Routing, routing)  # in half the time that Routing(*routing) takes
    return made


def ends_of_ranks(handle: DispatchHandle) -> torch.Tensor:
    """Returns [R] int32: rows received from all ranks up to each."""
    ends = handle.core.recv_rows_end_by_rank
    return torch.tensor(ends, dtype=torch.int32, device=handle.is_token_in_rank.device)


def source_meta(handle: InternodeHandle) -> torch.Tensor:
    """Returns [n, 8] uint8: of each row received, as two int32, the node that it came from, and its token there."""
    tokens, ends = source_tokens(handle.core), ends_of_ranks(handle)
    node_of = torch.tensor(handle.routing.nodes.by_rank, dtype=torch.int32, device=tokens.device)
    node = torch.full_like(tokens, -1)  # rows of a worst case have none
    rows = ends.diff(prepend=ends.new_zeros(1))
    node[: int(ends[-1])] = node_of.repeat_interleave(rows.to(tokens.device).long())
    return torch.stack((node, tokens), 1).view(torch.uint8)
