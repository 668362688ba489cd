"""Tuples whose items cost something to make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Iterator

if TYPE_CHECKING:
    from typing_extensions import Self


class LazyTuple(tuple):  # type: ignore[type-arg]
    """Reads as a tuple of `_size` items, each made when it is first read. Underneath it is an empty one, which is what
    C code sees that does not ask it (`"%s" % handle`). It is equal to itself alone.
    """

    _size: ClassVar[int]
    _made: dict[int, Any]

    def __new__(cls, *_: Any) -> Self:
        self = tuple.__new__(cls)
        self._made = {}
        return self

    def _make(self, at: int) -> Any:
        raise NotImplementedError

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(self._size)))
        at = range(self._size)[index]
        if at not in self._made:
            self._made[at] = self._make(at)
        return self._made[at]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(self._size))

    def __contains__(self, item: object) -> bool:
        return item in tuple(iter(self))

    def __add__(self, other: Any) -> Any:
        return tuple(iter(self)) + other

    def __radd__(self, other: Any) -> Any:
        return other + tuple(iter(self))

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def __hash__(self) -> int:
        return id(self)
