"""How ranks that another library has started agree on a meeting point."""

from __future__ import annotations

import ctypes
import os
import pickle
import secrets
import socket
import time
from pathlib import Path
from typing import Any, Callable, List

from . import _core
from ._errors import Error, InvalidArgument, SystemCallError, Timeout


def machine_id() -> str:
    """Returns a text that is the same in all processes that reach each other over loopback, until a reboot."""
    try:
        network = os.stat("/proc/self/ns/net").st_ino
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{network}"
    except OSError:
        return socket.gethostname()


def _serve(token: str, host: str = "") -> tuple[_core.StoreServer | None, Error | None]:
    """Returns the server of the meeting point, or the reason why there is none, which rank 0 sends to the others.

    Args:
        host: of this machine, by which other machines reach it; "": all ranks are on this one.
    """
    try:
        return _core.StoreServer(token, host), None
    except Error as error:
        return None, error
    except Exception as error:
        return None, SystemCallError(f"the store that ranks meet at cannot be served: {error!r}", rank=0)


def _serve_others(token: str) -> tuple[_core.StoreServer | None, Error | None]:
    """The same for ranks on several machines."""
    given = os.environ.get("SWITCHYARD_ADDRESS", "auto")
    hosts = [given] if given != "auto" else [os.environ.get("MASTER_ADDR", ""), socket.gethostname()]
    trouble: Error | None = None
    for host in filter(None, hosts):
        server, trouble = _serve(token, host)
        if server is not None:
            return server, None
    text = "SWITCHYARD_ADDRESS: expected an address of rank 0's machine, by which the other machines reach it"
    return None, InvalidArgument(f"{text}; {trouble}", rank=0)


def _job_token(sent: str) -> str:
    """Returns the token that ranks show. Others may see what is sent through a group, but not SWITCHYARD_TOKEN."""
    secret = os.environ.get("SWITCHYARD_TOKEN", "")
    return f"{secret}:{sent}" if secret else sent


# Takes this rank's card and returns those of all ranks, in order. Raises Timeout after the given number of seconds.
AllGather = Callable[[Any, float], List[Any]]


def _exchanged(all_gather: AllGather, card: Any, seconds: float) -> list[Any]:
    cards = all_gather(card, seconds)
    for _, _, _, error in cards:
        if error is not None:
            raise error
    return cards


def connect(rank: int, size: int, all_gather: AllGather, timeout: float) -> _core.Communicator:
    """Connects the ranks. Collective; the ranks have `timeout` seconds to gather, and as many again to connect."""
    token = secrets.token_hex(16)
    # The server of rank 0 lives until all ranks have connected: Communicator.connect returns after that.
    server, trouble = _serve(_job_token(token)) if rank == 0 else (None, None)
    seconds = _core.rendezvous_timeout(timeout)
    cards = _exchanged(all_gather, (machine_id(), server.address if server else "", token, trouble), seconds)
    if len({card[0] for card in cards}) > 1:
        server, trouble = _serve_others(_job_token(token)) if rank == 0 else (None, None)
        cards = _exchanged(all_gather, ("", server.address if server else "", token, trouble), seconds)
    _, address, token, _ = cards[0]
    return _core.Communicator.connect(rank, size, address, _job_token(token), False, timeout, "")


def torch_all_gather(group: Any) -> tuple[int, int, AllGather]:
    """Returns rank, size and an AllGather of a torch.distributed group of any back end; None: the default group."""
    import torch
    import torch.distributed as dist

    rank, size = dist.get_rank(group), dist.get_world_size(group)

    def all_gather(card: Any, seconds: float) -> list[Any]:
        if "cpu:" not in dist.get_backend_config(group):
            # NCCL alone connects within the call, which neither a deadline nor Ctrl-C ends before all ranks are there.
            everybody: list[Any] = [None] * size
            dist.all_gather_object(everybody, card, group=group)
            return everybody
        mine = torch.tensor(list(packed(card)), dtype=torch.uint8, device="cpu")
        theirs = [torch.empty_like(mine) for _ in range(size)]
        work = dist.all_gather(theirs, mine, group=group, async_op=True)
        wait(work.is_completed, rank, seconds, (work, group or dist.group.WORLD, mine, theirs))
        work.wait()  # raises the error of the call, if there is one
        return [unpacked(bytes(each.tolist())) for each in theirs]

    return rank, size, all_gather


def mpi_all_gather(comm: Any) -> tuple[int, int, AllGather]:
    """Returns rank, size and an AllGather of an mpi4py communicator. Without Iallgather that has no deadline."""
    rank, size = comm.Get_rank(), comm.Get_size()

    def all_gather(card: Any, seconds: float) -> list[Any]:
        if not hasattr(comm, "Iallgather"):
            return list(comm.allgather(card))
        mine, theirs = packed(card), bytearray(size * _card_bytes)
        request = comm.Iallgather(mine, theirs)
        wait(request.Test, rank, seconds, (request, comm, mine, theirs))
        return [unpacked(theirs[at : at + _card_bytes]) for at in range(0, len(theirs), _card_bytes)]

    return rank, size, all_gather


_card_bytes = 4096  # all cards have the same size, so that one exchange is enough


def packed(card: Any) -> bytearray:
    """Returns the pickled card, padded with zeros."""
    data = pickle.dumps(card)
    if len(data) > _card_bytes:
        raise SystemCallError(f"the card of a rank takes {len(data)} bytes: expected at most {_card_bytes}")
    return bytearray(data.ljust(_card_bytes, b"\0"))


def unpacked(data: bytes | bytearray) -> Any:
    return pickle.loads(data)  # ignores the zeros after the pickle


def wait(done: Callable[[], bool], rank: int, seconds: float, used: Any) -> None:
    """Polls until done: neither our deadline nor Ctrl-C ends the waits of these libraries.

    When this raises, the exchange stays under way. The objects that it uses (`used`) then live for ever: a rank that
    comes late writes to their memory, and a group of gloo would wait for that rank when its last reference is dropped.
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
