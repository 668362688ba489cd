"""Sizes and tuning, as callers pass them around."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """What DeepEP's kernels are tuned by. Switchyard uses num_sms (CUDA engine), and no other number.

    Args:
        num_sms: SMs that a call takes; even.
        num_max_nvl_chunked_send_tokens, num_max_nvl_chunked_recv_tokens, num_max_rdma_chunked_send_tokens,
        num_max_rdma_chunked_recv_tokens: lengths of queues, which there are none of here.
    """

    num_sms: int = 20
    num_max_nvl_chunked_send_tokens: int = 6
    num_max_nvl_chunked_recv_tokens: int = 256
    num_max_rdma_chunked_send_tokens: int = 6
    num_max_rdma_chunked_recv_tokens: int = 256

    def get_nvl_buffer_size_hint(self, hidden_bytes: int, num_ranks: int) -> int:
        """Bytes for `Buffer(num_nvl_bytes=...)`: two results of 4096 tokens a rank that all go everywhere.

        Args:
            hidden_bytes: bytes of a token.
            num_ranks: ranks of the group.
        """
        return 2 * 4096 * num_ranks * (hidden_bytes + 1024)

    def get_rdma_buffer_size_hint(self, hidden_bytes: int, num_ranks: int) -> int:
        """Bytes for `Buffer(num_rdma_bytes=...)`: 0, since all ranks are of one machine."""
        return 0
