"""Run by mpirun: ranks of the real mpi4py; each checks itself. On the command line are nodes that they play: 0011."""

import os
import sys

os.environ.setdefault("SWITCHYARD_ENGINE", "cpu")
os.environ.setdefault("SWITCHYARD_TIMEOUT_MS", "20000")

import deep_ep  # noqa: E402
import switchyard  # noqa: E402
import torch  # noqa: E402
from low_latency_reference import Job, outputs_of, sums  # noqa: E402
from mpi4py import MPI  # noqa: E402
from ranks import play_nodes  # noqa: E402
from there_and_back import both_ways  # noqa: E402


def decoding(comm: MPI.Comm) -> None:
    job = Job(comm.Get_size())
    buffer = deep_ep.Buffer(comm=comm, low_latency_mode=True, explicitly_destroy=True)
    mine = job.inputs(buffer.rank)
    rows, _, handle, _, _ = buffer.low_latency_dispatch(
        mine.x, mine.topk_idx, job.max_tokens, job.experts, use_fp8=False
    )
    made = outputs_of(rows, buffer.rank, job)
    back, _, _ = buffer.low_latency_combine(made, mine.topk_idx, mine.topk_weights, handle)
    assert torch.equal(back, sums(job, buffer.rank))
    buffer.destroy()


def on_nodes(node_of: list[int]) -> None:
    world = MPI.COMM_WORLD
    play_nodes(world.Get_rank(), node_of if max(node_of) > 0 else [])
    communicator = switchyard.Communicator.from_mpi(world)
    assert (communicator.rank, communicator.size) == (world.Get_rank(), world.Get_size())
    assert communicator.node_by_rank == node_of
    assert communicator.all_gather(b"%d" % world.Get_rank()) == [b"%d" % rank for rank in range(world.Get_size())]
    both_ways(communicator)
    # A communicator of MPI's that is a part of all, in another order.
    back_to_front = world.Split(0, world.Get_size() - world.Get_rank())
    turned = switchyard.Communicator.from_mpi(back_to_front)
    assert turned.rank == world.Get_size() - 1 - world.Get_rank()
    both_ways(turned)
    if communicator.num_nodes == 1:
        decoding(world)
    started = switchyard.Communicator.from_environment()  # as mpirun says
    assert (started.rank, started.size) == (world.Get_rank(), world.Get_size())
    assert started.node_by_rank == node_of
    world.Barrier()


def main() -> None:
    torch.set_num_threads(1)
    for nodes in sys.argv[1:]:
        on_nodes([int(node) for node in nodes])
    if MPI.COMM_WORLD.Get_rank() == 0:  # alone: mpirun may mix what several print
        print("ok", flush=True)


if __name__ == "__main__":
    main()
