"""Small helpers of the language."""

from __future__ import annotations

import functools
import weakref
from typing import Any, Callable


def value_or(value: Any | None, default: Any) -> Any:
    """Returns value, or the default if value is None."""
    return default if value is None else value


def weak_lru(maxsize: int | None = 128, typed: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns a decorator like functools.lru_cache for methods. Its caches do not keep objects alive.

    Args:
        maxsize: results kept for each object; None: all.
        typed: whether equal arguments of different types are kept apart.
    """

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        caches: weakref.WeakKeyDictionary[Any, Callable[..., Any]] = weakref.WeakKeyDictionary()

        def cache_of(owner: Any) -> Callable[..., Any]:
            weak = weakref.ref(owner)
            return functools.lru_cache(maxsize, typed)(lambda *args, **named: method(weak(), *args, **named))

        @functools.wraps(method)
        def cached(self: Any, *args: Any, **named: Any) -> Any:
            if self not in caches:
                caches[self] = cache_of(self)
            return caches[self](*args, **named)

        return cached

    return decorate
