"""The exceptions of Switchyard. All are `Error`, and also the built-in class that fits."""

from __future__ import annotations


class Error(RuntimeError):
    """Trouble that a program can react to.

    Attributes:
        rank: the rank at fault, or that found the fault; -1 where there is none.
        peer: the rank that was waited for; -1 where there is none.
        phase: the part of the call in which it was found; may be empty.
    """

    def __init__(self, text: str, rank: int = -1, peer: int = -1, phase: str = "") -> None:
        super().__init__(text)
        self.rank = rank
        self.peer = peer
        self.phase = phase


class InvalidArgument(Error, ValueError):
    """A wrong argument, found on every rank before anything moved. The buffer stays usable."""


class Timeout(Error, TimeoutError):
    """A wait for a peer ran into its deadline. The buffer refuses further work until `reset()`."""


class PeerLost(Error, ConnectionError):
    """A peer's process ended, or left the job. The buffer refuses further work."""


class OutOfMemory(Error, MemoryError):
    """The symmetric heap has not enough memory; the text says how much was needed. The buffer stays usable."""


class Unsupported(Error, NotImplementedError):
    """Not offered by this build or machine."""


class SystemCallError(Error, OSError):
    """The operating system refused a call; the text carries its reason."""


class Unusable(Error):
    """A communicator, buffer or handle that was destroyed, or that belongs to the process before a fork."""
