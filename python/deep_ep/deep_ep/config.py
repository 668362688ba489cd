"""DeepEP's tuning parameters."""

from __future__ import annotations

from dataclasses import dataclass


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
        """Returns bytes for `Buffer(num_rdma_bytes=...)`: 0, since all ranks are on one machine."""
        return 0
