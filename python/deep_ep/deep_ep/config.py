"""DeepEP's tuning parameters."""

from __future__ import annotations

import os
from dataclasses import dataclass

# Of the rings that Switchyard makes between nodes, when it may choose.
_ring_bytes = 16 << 20


@dataclass(frozen=True)
class Config:
    """The tuning parameters of DeepEP's kernels. Switchyard uses num_sms (CUDA engine) and ignores the others.

    Args:
        num_sms: SMs that a call takes; an even number.
        num_max_nvl_chunked_send_tokens, num_max_nvl_chunked_recv_tokens, num_max_rdma_chunked_send_tokens,
        num_max_rdma_chunked_recv_tokens: lengths of queues, which Switchyard does not have.
    """

    num_sms: int = 20
    num_max_nvl_chunked_send_tokens: int = 6
    num_max_nvl_chunked_recv_tokens: int = 256
    num_max_rdma_chunked_send_tokens: int = 6
    num_max_rdma_chunked_recv_tokens: int = 256

    def get_nvl_buffer_size_hint(self, hidden_bytes: int, num_ranks: int) -> int:
        """Returns bytes for `Buffer(num_nvl_bytes=...)`: two results of 4096 tokens a rank that all go to all ranks.

        Args:
            hidden_bytes: bytes of a token.
            num_ranks: the number of ranks.
        """
        return 2 * 4096 * num_ranks * (hidden_bytes + 1024)

    def get_rdma_buffer_size_hint(self, hidden_bytes: int, num_ranks: int) -> int:
        """Returns bytes for `Buffer(num_rdma_bytes=...)`: what a rank's rings between nodes take; 0 for one node.

        The rings are there with any num_rdma_bytes. As nobody asks the ranks here, they count as being on several nodes
        when there are more than on this one, by LOCAL_WORLD_SIZE of torchrun or OMPI_COMM_WORLD_LOCAL_SIZE of mpirun,
        and when there are more than 8 if neither is set.

        Args:
            hidden_bytes: bytes of a token.
            num_ranks: the number of ranks.
        """
        each = _ranks_of_this_node()
        if num_ranks <= each:
            return 0
        neighbours = -(-num_ranks // each) - 1
        return max(_ring_bytes, 8 * neighbours * (hidden_bytes + 4096))


def _ranks_of_this_node() -> int:
    for name in ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"):
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > 0:
            return int(value)
    return 8  # as many as DeepEP's nodes have
