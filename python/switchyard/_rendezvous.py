"""How the ranks of a job that another library has set up tell one another where to meet."""

from __future__ import annotations

import queue
import secrets
import threading
import time
from pathlib import Path
from typing import Any, Callable, List

from . import _core
from ._errors import Error, SystemCallError, Timeout, Unsupported


def machine_id() -> str:
    """The same for all processes of a machine, until it is booted."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        import socket

        return socket.gethostname()


def _serve(token: str) -> tuple[_core.StoreServer | None, Error | None]:
    """Where to meet, or why that cannot be: the others are to hear of it."""
    try:
        return _core.StoreServer(token), None
    except Error as error:
        return None, error
    except Exception as error:
        return None, SystemCallError(f"the meeting point cannot be made: {error!r}", rank=0)


# Hands an object of each rank to all, in order of ranks; given seconds, then Timeout.
AllGather = Callable[[Any, float], List[Any]]


def connect(rank: int, size: int, all_gather: AllGather, timeout: float) -> _core.Communicator:
    """Collective."""
    end = time.monotonic() + _core.rendezvous_timeout(timeout)
    token = secrets.token_hex(16)
    # Rank 0's lives until all have connected, which the connection itself waits for.
    server, trouble = _serve(token) if rank == 0 else (None, None)
    cards = all_gather((machine_id(), server.address if server else "", token, trouble), end - time.monotonic())
    for _, _, _, error in cards:
        if error is not None:
            raise error
    machines = {card[0] for card in cards}
    if len(machines) > 1:
        raise Unsupported(f"the ranks of the group run on {len(machines)} machines: expected 1, several come later")
    _, address, token, _ = cards[0]
    return _core.Communicator.connect(rank, size, address, token, False, max(end - time.monotonic(), 0.001))


def _late(rank: int) -> Timeout:
    text = f"rank {rank}: rendezvous: not all ranks of the group came in time"
    return Timeout(text, rank=rank, phase="rendezvous")


def torch_all_gather(group: Any) -> tuple[int, int, AllGather]:
    """Of any back end of torch.distributed; `None` is the default group."""
    import torch
    import torch.distributed as dist

    rank, size = dist.get_rank(group), dist.get_world_size(group)
    device = torch.cuda.current_device() if torch.cuda.is_initialized() else None

    def gathered(mine: Any) -> list[Any]:
        if device is not None:
            torch.cuda.set_device(device)  # each thread has a current one of its own
        everybody: list[Any] = [None] * size
        dist.all_gather_object(everybody, mine, group=group)
        return everybody

    def all_gather(mine: Any, seconds: float) -> list[Any]:
        try:
            return in_thread(lambda: gathered(mine), seconds)
        except queue.Empty:
            raise _late(rank) from None

    return rank, size, all_gather


def in_thread(call: Callable[[], Any], seconds: float) -> Any:
    """For calls that hear neither a deadline nor Ctrl-C. Late, they are left to their own end, and Empty is raised."""
    answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((call(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=run, name="switchyard-rendezvous", daemon=True).start()
    answer, error = answers.get(timeout=max(seconds, 0.0))
    if error is not None:
        raise error
    return answer


def mpi_all_gather(comm: Any) -> tuple[int, int, AllGather]:
    """Of an mpi4py communicator. Without Ibarrier the gathering ends when comm lets it."""
    rank, size = comm.Get_rank(), comm.Get_size()

    def all_gather(mine: Any, seconds: float) -> list[Any]:
        if hasattr(comm, "Ibarrier"):
            end = time.monotonic() + seconds
            arrived = comm.Ibarrier()
            while not arrived.Test():
                if time.monotonic() > end:
                    raise _late(rank)
                time.sleep(0.001)
        return list(comm.allgather(mine))

    return rank, size, all_gather
