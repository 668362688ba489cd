"""The environment of tests and benchmarks: process groups, seeds, output, and the speed of links."""

from __future__ import annotations

import os
import random
import re
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from switchyard import interop

from .._nodes import nodes_of

_local_rank: int | None = None
_local_seed = 0
_global_seed = 0

# ---- process groups ----


def init_dist(local_rank: int, num_local_ranks: int, seed: int = 0) -> tuple[int, int, Any]:
    """Makes the default process group, and chooses default dtype (bfloat16), device and seed of this process.

    With a GPU for each local rank the group is one of NCCL, on "cuda". With fewer GPUs all local ranks share the first
    one, in a group of gloo (start MPS first). Without GPUs, or without the CUDA engine, it is gloo on "cpu".

    MASTER_ADDR (127.0.0.1) and MASTER_PORT (8361) say where ranks meet. WORLD_SIZE (1) is the number of machines, and
    RANK (0) the number of this one: unlike in torchrun, they do not count processes.

    Args:
        local_rank, num_local_ranks: this rank, and the number of ranks, on this machine.
        seed: for init_seed.

    Returns:
        The rank, the number of ranks, and a group of all ranks.
    """
    global _local_rank
    _local_rank = local_rank
    machines, machine = int(os.getenv("WORLD_SIZE", "1")), int(os.getenv("RANK", "0"))
    meeting_point = f"tcp://{os.getenv('MASTER_ADDR', '127.0.0.1')}:{os.getenv('MASTER_PORT', '8361')}"
    size, rank = machines * num_local_ranks, machine * num_local_ranks + local_rank
    gpus = torch.cuda.device_count() if interop.has_cuda else 0
    own = local_rank if gpus >= num_local_ranks else 0
    if gpus:
        torch.cuda.set_device(own)
    if gpus >= num_local_ranks:
        device = torch.device("cuda", own)
        dist.init_process_group("nccl", init_method=meeting_point, world_size=size, rank=rank, device_id=device)
    else:
        dist.init_process_group("gloo", init_method=meeting_point, world_size=size, rank=rank)
    torch.set_default_dtype(torch.bfloat16)
    torch.set_default_device("cuda" if gpus else "cpu")
    init_seed(seed)
    return rank, size, dist.new_group(list(range(size)))


def get_physical_domain_size(group: Any) -> tuple[int, int]:
    """Returns the number of nodes, and of ranks on this rank's node.

    Collective when a group is asked about for the first time, unless a buffer was made of it.
    """
    return nodes_of(group).physical_size()


def get_logical_domain_size(group: Any, allow_hybrid_mode: bool = True) -> tuple[int, int]:
    """Returns the number of scale-out ranks and of scale-up ranks. See ElasticBuffer.get_logical_domain_size.

    Collective as get_physical_domain_size is.
    """
    return nodes_of(group).logical_size(allow_hybrid_mode)


def dist_print(s: str = "", once_in_node: bool = False) -> None:
    """Prints on all ranks, or on the first rank of each machine (once_in_node), and then is a barrier.

    Raises RuntimeError if init_dist did not make the process group.
    """
    if _local_rank is None:
        raise RuntimeError("dist_print: expected init_dist before it")
    if _local_rank == 0 or not once_in_node:
        print(s, flush=True)
    dist.barrier()


# ---- seeds ----


def init_seed(global_seed: int) -> None:
    """Seeds torch and random with global_seed plus the rank."""
    global _local_seed, _global_seed
    _global_seed, _local_seed = global_seed, global_seed + dist.get_rank()
    torch.manual_seed(_local_seed)
    random.seed(_local_seed)


def get_local_seed() -> int:
    """Returns the seed of this rank."""
    return _local_seed


def get_global_seed() -> int:
    """Returns the seed that all ranks passed to init_seed."""
    return _global_seed


# ---- checks ----


def check_nvlink_connections(group: Any) -> None:
    """Does nothing: an engine cannot be made where GPUs cannot map each other's memory, and says so."""


def check_torch_deterministic() -> None:
    """Does nothing: memory that PyTorch fills when it hands it out is ordered before the calls that write it."""


# ---- links ----


@lru_cache
def get_nvlink_gbs(factor: float = 0.9) -> float:
    """Returns the GB/s of all NVLinks of the first GPU, one way, times the factor; 0 if nvidia-smi does not say."""
    try:
        command = ["nvidia-smi", "nvlink", "-s", "-i", "0"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0.0
    return factor * sum(float(speed) for speed in re.findall(r"Link \d+: ([\d.]+) GB/s", said))


@lru_cache
def get_rdma_gbs(nic_name: str = os.getenv("EP_NIC_NAME", "mlx5_0")) -> float:
    """Returns the GB/s of a network card's first port; 0 if there is no such card."""
    gigabits = re.match(r"\d+", _of_card(nic_name, "ports/1/rate"))
    return int(gigabits[0]) / 8 if gigabits else 0.0


@lru_cache
def check_fast_rdma_atomic_support(nic_name: str = os.getenv("EP_NIC_NAME", "mlx5_0")) -> bool:
    """Whether a network card is an MT4131, which has fast atomics."""
    return _of_card(nic_name, "hca_type").strip() == "MT4131"


def _of_card(name: str, what: str) -> str:
    """Returns what the kernel says of a network card; empty if there is none."""
    try:
        return Path("/sys/class/infiniband", name, what).read_text()
    except OSError:
        return ""
