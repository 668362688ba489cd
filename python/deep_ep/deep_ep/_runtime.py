"""Buffer.runtime: what callers of DeepEP ask its C++ part for."""

from __future__ import annotations

from typing import Any, Callable

from ._nodes import Nodes


class Runtime:
    """Where this rank is. Calls are methods of Buffer alone.

    Args:
        comm_stream: Buffer.get_comm_stream.
    """

    def __init__(self, comm_stream: Callable[[], Any], nodes: Nodes) -> None:
        self.get_comm_stream = comm_stream
        self._nodes = nodes

    def is_available(self) -> bool:
        """Returns True: a buffer has a runtime until it is destroyed."""
        return True

    def get_num_rdma_ranks(self) -> int:
        """Returns the number of nodes."""
        return self._nodes.count

    def get_rdma_rank(self) -> int:
        """Returns the number of this rank's node."""
        return self._nodes.own

    def get_root_rdma_rank(self, global_: bool) -> int:
        """Returns the first node, or (global_) its rank that has this rank's number there."""
        return self._nodes.peer_of(self._nodes.rank, 0) if global_ else 0
