"""Run by a launcher, two ranks on each of two nodes: each rank checks itself. On the command line: torch, or mpi."""

import os
import sys
from contextlib import contextmanager

os.environ.setdefault("SWITCHYARD_ENGINE", "cpu")
os.environ.setdefault("SWITCHYARD_TIMEOUT_MS", "20000")

import switchyard  # noqa: E402
import torch  # noqa: E402
from there_and_back import both_ways  # noqa: E402


@contextmanager
def torch_group():
    import torch.distributed as dist

    dist.init_process_group("gloo")
    yield switchyard.Communicator.from_torch(), dist.get_rank()
    dist.destroy_process_group()


@contextmanager
def mpi_group():
    from mpi4py import MPI

    yield switchyard.Communicator.from_mpi(MPI.COMM_WORLD), MPI.COMM_WORLD.Get_rank()


def main() -> None:
    torch.set_num_threads(1)
    with {"torch": torch_group, "mpi": mpi_group}[sys.argv[1]]() as (of_the_group, rank):
        for communicator in (of_the_group, switchyard.Communicator.from_environment()):
            with communicator:
                assert communicator.rank == rank
                assert communicator.node_by_rank == [0, 0, 1, 1]
                both_ways(communicator)
    if rank == 0:
        print("ok", flush=True)


if __name__ == "__main__":
    main()
