"""What buffers of both modes have alike: an engine, and an end."""

from __future__ import annotations

from types import TracebackType
from typing import Any, TypeVar

_Self = TypeVar("_Self", bound="Owner")


class Owner:
    """Owns a buffer of the core; a context manager that destroys it."""

    _core: Any

    @property
    def engine(self) -> str:
        """ "cpu" or "cuda"."""
        return str(self._core.engine)

    def destroy(self) -> None:
        """Waits for queued work and lets go of the memory; later calls raise Unusable. Tensors stay valid."""
        self._core.destroy()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.destroy()
