"""Runs ranks for tests as threads of this process, or as processes in a group of gloo."""

from __future__ import annotations

import os
import socket
import sys
import threading
import traceback
from typing import Any, Callable

import switchyard

timeout = 20.0


def as_threads(size: int, body: Callable[[switchyard.Communicator], Any]) -> list[Any]:
    """Runs body on every rank; returns what they returned, or raises what the first failed one raised."""
    store = switchyard.Store()
    results: list[Any] = [None] * size
    errors: list[BaseException | None] = [None] * size

    def run(rank: int) -> None:
        try:
            with switchyard.Communicator.join(store, rank=rank, size=size, timeout=timeout) as communicator:
                results[rank] = body(communicator)
        except BaseException as error:
            errors[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        if error is not None:
            raise error
    return results


class ThreadComm:
    """The methods of mpi4py that Communicator.from_mpi needs, for threads."""

    class Board:
        def __init__(self, size: int) -> None:
            self.barrier = threading.Barrier(size, timeout=timeout)
            self.slots: list[Any] = [None] * size

    def __init__(self, board: ThreadComm.Board, rank: int) -> None:
        self.board = board
        self.rank = rank

    def Get_rank(self) -> int:
        return self.rank

    def Get_size(self) -> int:
        return len(self.board.slots)

    def allgather(self, mine: Any) -> list[Any]:
        self.board.slots[self.rank] = mine
        self.board.barrier.wait()
        everybody = list(self.board.slots)
        self.board.barrier.wait()
        return everybody


def with_comm(size: int, body: Callable[[ThreadComm], Any]) -> list[Any]:
    """Does what as_threads does, with a ThreadComm for each rank."""
    board = ThreadComm.Board(size)
    return as_threads(size, lambda communicator: body(ThreadComm(board, communicator.rank)))


def free_port() -> int:
    """Returns a free port whose successor is free, too: PyTorch's store is at MASTER_PORT, ours takes the next one."""
    while True:
        with socket.socket() as probe, socket.socket() as successor:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            try:
                successor.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


_node_of: list[int] = []


def play_nodes(rank: int, node_of: list[int]) -> None:
    """Makes this process play to be on the node that the list says for its rank; an empty list ends that."""
    _node_of[:] = node_of
    os.environ.pop("SWITCHYARD_NODE", None)
    if node_of:
        os.environ["SWITCHYARD_NODE"] = f"node {node_of[rank]}"


def played_nodes(size: int) -> list[int]:
    """Returns the node that each rank plays to be on: the first one, unless play_nodes said otherwise."""
    return list(_node_of) or [0] * size


def meet_at_a_free_port(group: Any) -> None:
    """Gives from_environment another port than MASTER_PORT + 1: connections that were made meanwhile may use that."""
    import torch.distributed as dist

    port = [free_port()]
    dist.broadcast_object_list(port, src=dist.get_global_rank(group, 0), group=group)
    os.environ["SWITCHYARD_STORE"] = f"127.0.0.1:{port[0]}"


def _child(rank: int, size: int, port: int, body: Callable[..., None], args: tuple[Any, ...]) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(size))
    try:
        dist.init_process_group("gloo", rank=rank, world_size=size)
        body(dist.group.WORLD, *args)
        dist.destroy_process_group()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def as_processes(size: int, body: Callable[..., None], *args: Any) -> None:
    """Runs body(group, *args) in processes; raises if one fails. They find body, a function of a module, by name."""
    import torch.multiprocessing as mp

    mp.spawn(_child, args=(size, free_port(), body, args), nprocs=size, join=True)
