"""Buffer.runtime: what callers of DeepEP ask its C++ part for."""

from __future__ import annotations

from typing import Any, Callable


class Runtime:
    """Where this rank is. Calls are methods of Buffer alone.

    Args:
        comm_stream: Buffer.get_comm_stream.
    """

    def __init__(self, comm_stream: Callable[[], Any]) -> None:
        self.get_comm_stream = comm_stream

    def is_available(self) -> bool:
        """Returns True: a buffer has a runtime until it is destroyed."""
        return True

    def get_num_rdma_ranks(self) -> int:
        """Returns the number of nodes: 1."""
        return 1

    def get_rdma_rank(self) -> int:
        """Returns the number of this rank's node: 0."""
        return 0
