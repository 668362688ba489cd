"""The exceptions of Switchyard. Each is an `Error` and also the built-in exception of the same meaning."""

from __future__ import annotations


class Error(RuntimeError):
    """The base class of all exceptions of Switchyard.

    Attributes:
        rank: the rank that caused the error, or else the one that found it; -1 if there is none.
        peer: the rank that was waited for; -1 if there is none.
        phase: the part of the call in which the error was found; may be empty.
    """

    def __init__(self, text: str, rank: int = -1, peer: int = -1, phase: str = "") -> None:
        super().__init__(text)
        self.rank = rank
        self.peer = peer
        self.phase = phase


class InvalidArgument(Error, ValueError):
    """An argument is wrong. All ranks raise this before anything moves, and the buffer stays usable."""


class Timeout(Error, TimeoutError):
    """A peer did not come before the deadline. The buffer refuses further work until `reset()`."""


class PeerLost(Error, ConnectionError):
    """The process of a peer ended, or the peer left the job. The buffer refuses further work."""


class OutOfMemory(Error, MemoryError):
    """The symmetric heap is too small; the text says how much was needed. The buffer stays usable."""


class Unsupported(Error, NotImplementedError):
    """This build or this machine does not have what was asked for."""


class SystemCallError(Error, OSError):
    """The operating system refused a call; the text has its reason."""


class Unusable(Error):
    """A communicator, buffer or handle was destroyed, or belongs to the process before a fork."""
