"""How the ranks of a job that another library has set up tell one another where to meet."""

from __future__ import annotations

import ctypes
import pickle
import secrets
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


# Hands what `card` is on each rank to all, in order of ranks; given seconds, then Timeout.
AllGather = Callable[[Any, float], List[Any]]


def connect(rank: int, size: int, all_gather: AllGather, timeout: float) -> _core.Communicator:
    """Collective. Ranks have `timeout` to gather, and as long again to connect."""
    token = secrets.token_hex(16)
    # Rank 0's lives until all have connected, which the connection itself waits for.
    server, trouble = _serve(token) if rank == 0 else (None, None)
    card = (machine_id(), server.address if server else "", token, trouble)
    cards = all_gather(card, _core.rendezvous_timeout(timeout))
    for _, _, _, error in cards:
        if error is not None:
            raise error
    machines = {card[0] for card in cards}
    if len(machines) > 1:
        raise Unsupported(f"the ranks of the group run on {len(machines)} machines: expected 1, several come later")
    _, address, token, _ = cards[0]
    return _core.Communicator.connect(rank, size, address, token, False, timeout)


def torch_all_gather(group: Any) -> tuple[int, int, AllGather]:
    """Of any back end of torch.distributed; `None` is the default group."""
    import torch
    import torch.distributed as dist

    rank, size = dist.get_rank(group), dist.get_world_size(group)

    def all_gather(card: Any, seconds: float) -> list[Any]:
        if "cpu:" not in dist.get_backend_config(group):
            # NCCL alone makes its connections inside of the call, which hears nothing until all ranks are there.
            everybody: list[Any] = [None] * size
            dist.all_gather_object(everybody, card, group=group)
            return everybody
        mine = torch.tensor(list(packed(card)), dtype=torch.uint8, device="cpu")
        theirs = [torch.empty_like(mine) for _ in range(size)]
        work = dist.all_gather(theirs, mine, group=group, async_op=True)
        wait(work.is_completed, rank, seconds, (work, group or dist.group.WORLD, mine, theirs))
        work.wait()  # raises what went wrong
        return [unpacked(bytes(each.tolist())) for each in theirs]

    return rank, size, all_gather


def mpi_all_gather(comm: Any) -> tuple[int, int, AllGather]:
    """Of an mpi4py communicator. One that only has allgather waits as long as that does."""
    rank, size = comm.Get_rank(), comm.Get_size()

    def all_gather(card: Any, seconds: float) -> list[Any]:
        if not hasattr(comm, "Iallgather"):
            return list(comm.allgather(card))
        mine, theirs = packed(card), bytearray(size * _card_bytes)
        request = comm.Iallgather(mine, theirs)
        wait(request.Test, rank, seconds, (request, comm, mine, theirs))
        return [unpacked(theirs[at : at + _card_bytes]) for at in range(0, len(theirs), _card_bytes)]

    return rank, size, all_gather


_card_bytes = 4096  # the same for all, so that one exchange will do


def packed(card: Any) -> bytearray:
    """With zeros to the end."""
    data = pickle.dumps(card)
    if len(data) > _card_bytes:
        raise SystemCallError(f"the card of a rank takes {len(data)} bytes: expected at most {_card_bytes}")
    return bytearray(data.ljust(_card_bytes, b"\0"))


def unpacked(data: bytes | bytearray) -> Any:
    return pickle.loads(data)  # which ends before the zeros


def wait(done: Callable[[], bool], rank: int, seconds: float, used: Any) -> None:
    """Looks again and again, since no library's own wait hears our deadline and Ctrl-C.

    Who leaves early leaves an exchange under way: what is `used` by it then lives for ever. Memory is written to when a
    late rank comes, and a group of gloo whose last reference went would wait for that rank.
    """
    end = time.monotonic() + seconds
    try:
        while not done():
            if time.monotonic() > end:
                text = f"rank {rank}: rendezvous: not all ranks of the group came in time"
                raise Timeout(text, rank=rank, phase="rendezvous")
            time.sleep(0.0005)
    except BaseException:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(used))
        raise
