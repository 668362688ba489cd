"""The ranks of a job."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from . import _core, _rendezvous
from ._compiled import opaque_calls
from ._errors import Unusable
from ._lifetime import track_communicator


@opaque_calls
class Communicator:
    """Membership of this rank in a job of one node, or of several, with 1 to 64 ranks on each.

    Use one of the class methods to make it. They are collective: every rank of the job calls the same one. They raise
    `Timeout` if a rank does not come and `InvalidArgument` for arguments out of range. The rank leaves the job when the
    communicator is destroyed or its last reference is gone.
    """

    def __init__(self, core: _core.Communicator) -> None:
        self._core = core
        track_communicator(self)

    @classmethod
    def from_environment(cls) -> Communicator:
        """Reads the variables that torchrun, mpirun or srun set, or SWITCHYARD_RANK and so on (see docs/api.md)."""
        return cls(_core.Communicator.from_environment())

    @classmethod
    def from_torch(cls, group: Any = None, *, timeout: float = 0.0) -> Communicator:
        """Connects the ranks of a torch.distributed process group of any back end; None: the default group.

        The ranks use a collective of the group to agree on a meeting point. After a Timeout or Ctrl-C in it the group
        can no longer be used, since the collective stays under way. In a group that has no back end for CPU tensors
        (NCCL alone) neither ends the wait until all ranks are there or the group's own timeout is over.

        Args:
            group: a `torch.distributed.ProcessGroup`. Where its ranks run on several machines, they meet at the machine
                of its rank 0, by SWITCHYARD_ADDRESS, MASTER_ADDR or its host's name.
            timeout: seconds for the ranks to find one another; 0: SWITCHYARD_RENDEZVOUS_TIMEOUT_MS.

        Raises:
            InvalidArgument: ranks run on several machines, and rank 0 knows no address by which the others reach it.
            Timeout: a rank did not come.
        """
        return cls(_rendezvous.connect(*_rendezvous.torch_all_gather(group), timeout))

    @classmethod
    def from_mpi(cls, comm: Any, *, timeout: float = 0.0) -> Communicator:
        """Connects the ranks of an mpi4py communicator (or any object with Get_rank, Get_size and allgather).

        Arguments and errors are those of `from_torch`. After a Timeout or Ctrl-C comm can no longer be used. A comm
        without Iallgather waits as long as its allgather does.
        """
        return cls(_rendezvous.connect(*_rendezvous.mpi_all_gather(comm), timeout))

    @classmethod
    def connect(
        cls,
        *,
        rank: int,
        size: int,
        address: str,
        token: str = "",
        serve: bool = True,
        timeout: float = 0.0,
        node: str = "",
    ) -> Communicator:
        """Connects ranks that all know the address of a meeting point.

        Args:
            rank, size: this rank and the number of ranks.
            address: host:port of the meeting point; an IPv6 address is in brackets, as in "[::1]:29400".
            token: a secret that all ranks share; it is never sent. Without one all ranks must be on this machine.
            serve: True: rank 0 serves the meeting point; False: another process serves it already.
            timeout: seconds for the ranks to find one another; 0: SWITCHYARD_RENDEZVOUS_TIMEOUT_MS.
            node: ranks that give the same name form a node, whose ranks map each other's memory. "": SWITCHYARD_NODE,
                and without that ranks form a node that can.
        """
        return cls(_core.Communicator.connect(rank, size, address, token, serve, timeout, node))

    @classmethod
    def join(
        cls, store: _core.Store, *, rank: int, size: int, timeout: float = 0.0, node: str = ""
    ) -> Communicator:
        """Connects ranks that are threads of this process: each joins the same `Store()` with its own rank.

        Different names as `node` play several nodes; see connect.
        """
        return cls(_core.Communicator.join(store, rank, size, timeout, node))

    @property
    def rank(self) -> int:
        """This rank; ranks count from 0."""
        return self._core.rank

    @property
    def size(self) -> int:
        """The number of ranks."""
        return self._core.size

    @property
    def num_nodes(self) -> int:
        """The number of nodes; the ranks of a node map each other's memory."""
        return max(self.node_by_rank) + 1

    @property
    def node_by_rank(self) -> list[int]:
        """The node of each rank. Nodes count from 0 in the order of their first ranks."""
        return self._core.node_by_rank

    def barrier(self) -> None:
        """Waits until every rank has called it. Raises Timeout or PeerLost."""
        self._core.barrier()

    def all_gather(self, mine: bytes) -> list[bytes]:
        """Returns the bytes (16 MiB at most) that each rank passed, in the order of ranks."""
        return self._core.all_gather(mine)

    def destroy(self) -> None:
        """Leaves the job; a second call does nothing. The rank stays in the job as long as one of its buffers lives."""
        self._core.destroy()

    def __repr__(self) -> str:
        try:
            return f"Communicator(rank={self.rank}, size={self.size})"
        except Unusable:
            return "Communicator(destroyed)"

    def __enter__(self) -> Communicator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.destroy()
