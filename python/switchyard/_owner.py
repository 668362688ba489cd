"""The base class of the buffers of both modes."""

from __future__ import annotations

from types import TracebackType
from typing import Any, TypeVar

from ._communicator import Communicator
from ._compiled import opaque_calls
from ._errors import Unusable

_Self = TypeVar("_Self", bound="Owner")


@opaque_calls
class Owner:
    """Owns a buffer of the core; a context manager that destroys it."""

    _core: Any

    def __init__(self, communicator: Communicator, max_tokens: int, hidden: int, num_experts: int, top_k: int) -> None:
        self.communicator = communicator
        self.max_tokens = max_tokens
        self.hidden = hidden
        self.num_experts = num_experts
        self.top_k = top_k

    @property
    def engine(self) -> str:
        """The engine that runs the calls: "cpu" or "cuda"."""
        return str(self._core.engine)

    def destroy(self) -> None:
        """Waits for queued work and frees the memory. Later calls raise Unusable; tensors stay valid."""
        self._core.destroy()

    def __repr__(self) -> str:
        name = type(self).__name__
        try:
            where = f"{self.communicator!r}, engine={self.engine!r}"
        except Unusable:
            return f"{name}(destroyed)"
        sizes = ", ".join(f"{size}={getattr(self, size)}" for size in ("max_tokens", "hidden", "num_experts", "top_k"))
        return f"{name}({where}, {sizes})"

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.destroy()
