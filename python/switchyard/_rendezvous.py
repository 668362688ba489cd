"""How the ranks of a job that another library has set up tell one another where to meet."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, Callable

from . import _core
from ._errors import Error, SystemCallError, Unsupported


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


def connect(rank: int, size: int, all_gather: Callable[[Any], list[Any]], timeout: float) -> _core.Communicator:
    """Collective. `all_gather` hands an object of each rank to all, in order of ranks."""
    token = secrets.token_hex(16)
    # Rank 0's lives until all have connected, which the connection itself waits for.
    server, trouble = _serve(token) if rank == 0 else (None, None)
    cards = all_gather((machine_id(), server.address if server else "", token, trouble))
    for _, _, _, error in cards:
        if error is not None:
            raise error
    machines = {card[0] for card in cards}
    if len(machines) > 1:
        raise Unsupported(f"the ranks of the group run on {len(machines)} machines: expected 1, several come later")
    _, address, token, _ = cards[0]
    return _core.Communicator.connect(rank, size, address, token, False, timeout)


def torch_all_gather(group: Any) -> tuple[int, int, Callable[[Any], list[Any]]]:
    """Of any back end of torch.distributed; `None` is the default group."""
    import torch.distributed as dist

    rank, size = dist.get_rank(group), dist.get_world_size(group)

    def all_gather(mine: Any) -> list[Any]:
        everybody: list[Any] = [None] * size
        dist.all_gather_object(everybody, mine, group=group)
        return everybody

    return rank, size, all_gather
