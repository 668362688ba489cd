"""The ranks of a job."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from . import _core, _rendezvous
from ._errors import Unusable
from ._lifetime import track_communicator


class Communicator:
    """Membership of this rank in a job of 1 to 64 ranks on one machine.

    Made by one of the class methods, all of which are collective: every rank of the job calls it. They raise
    `Timeout` when a rank does not come, and `InvalidArgument` for what makes no sense. When a communicator is
    destroyed, or its last reference goes, the rank leaves the job.
    """

    def __init__(self, core: _core.Communicator) -> None:
        self._core = core
        track_communicator(self)

    @classmethod
    def from_environment(cls) -> Communicator:
        """Reads what torchrun, mpirun or srun have set, or SWITCHYARD_RANK and so on (docs/api.md lists them)."""
        return cls(_core.Communicator.from_environment())

    @classmethod
    def from_torch(cls, group: Any = None, *, timeout: float = 0.0) -> Communicator:
        """The ranks of a torch.distributed process group of any back end; None: the default group.

        A collective of the group tells the ranks where to meet. After a Timeout or Ctrl-C in it the group is of no more
        use: the exchange stays under way. A group that has no back end for CPU tensors (NCCL alone) hears neither until
        all ranks are there, or its own timeout is over.

        Args:
            group: a `torch.distributed.ProcessGroup` whose ranks run on one machine.
            timeout: seconds for the ranks to find one another; 0: SWITCHYARD_RENDEZVOUS_TIMEOUT_MS.

        Raises:
            Unsupported: the ranks run on several machines.
            Timeout: a rank did not come.
        """
        return cls(_rendezvous.connect(*_rendezvous.torch_all_gather(group), timeout))

    @classmethod
    def from_mpi(cls, comm: Any, *, timeout: float = 0.0) -> Communicator:
        """The ranks of an mpi4py communicator (or whatever has Get_rank, Get_size and allgather).

        Arguments and errors are those of `from_torch`; after a Timeout or Ctrl-C comm is of no more use. A comm that
        has no Iallgather waits as long as its allgather does.
        """
        return cls(_rendezvous.connect(*_rendezvous.mpi_all_gather(comm), timeout))

    @classmethod
    def connect(
        cls, *, rank: int, size: int, address: str, token: str = "", serve: bool = True, timeout: float = 0.0
    ) -> Communicator:
        """Meets at an address that all ranks know.

        Args:
            rank, size: who we are.
            address: host:port of the meeting point.
            token: what ranks must show to one another.
            serve: rank 0 serves the meeting point itself; False: it is served already.
            timeout: seconds for the ranks to find one another; 0: SWITCHYARD_RENDEZVOUS_TIMEOUT_MS.
        """
        return cls(_core.Communicator.connect(rank, size, address, token, serve, timeout))

    @classmethod
    def join(cls, store: _core.Store, *, rank: int, size: int, timeout: float = 0.0) -> Communicator:
        """For ranks that are threads of this process: each joins the same `Store()` under a rank of its own."""
        return cls(_core.Communicator.join(store, rank, size, timeout))

    @property
    def rank(self) -> int:
        """This rank, from 0."""
        return self._core.rank

    @property
    def size(self) -> int:
        """The number of ranks."""
        return self._core.size

    def barrier(self) -> None:
        """Waits until every rank has called it. Raises Timeout or PeerLost."""
        self._core.barrier()

    def all_gather(self, mine: bytes) -> list[bytes]:
        """Every rank hands in bytes (16 MiB at most) and receives everybody's, by rank."""
        return self._core.all_gather(mine)

    def destroy(self) -> None:
        """Leaves the job; a second call does nothing. Buffers that live keep their rank in it."""
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
