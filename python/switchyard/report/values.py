"""Values of a JSON file that know where they stand, so that what is wrong with one can be said in a line."""

from __future__ import annotations

import math
from typing import Any, Iterator

import numpy as np

from .errors import ReportError


class Value:
    """A value, and the words for its place in its file."""

    def __init__(self, value: Any, where: str) -> None:
        self.plain = value
        self.where = where

    def wrong(self, expected: str) -> ReportError:
        return ReportError(f"{self.where}: expected {expected}, seen {_short(self.plain)}")

    def __getitem__(self, key: str) -> Value:
        found = self.get(key)
        if found is None:
            raise ReportError(f"{self.where}: {key}: expected a value, seen none")
        return found

    def get(self, key: str) -> Value | None:
        if not isinstance(self.plain, dict):
            raise self.wrong("an object")
        return Value(self.plain[key], f"{self.where}: {key}") if self.plain.get(key) is not None else None

    def items(self) -> Iterator[tuple[str, Value]]:
        if not isinstance(self.plain, dict):
            raise self.wrong("an object")
        for key, value in self.plain.items():
            yield key, Value(value, f"{self.where}: {key}")

    def each(self) -> list[Value]:
        if not isinstance(self.plain, list):
            raise self.wrong("a list")
        return [Value(value, f"{self.where}[{index}]") for index, value in enumerate(self.plain)]

    def text(self) -> str:
        if not isinstance(self.plain, str):
            raise self.wrong("a text")
        return self.plain

    def number(self) -> float:
        known = isinstance(self.plain, (int, float)) and not isinstance(self.plain, bool)
        if not known or not math.isfinite(self.plain) or self.plain < 0:
            raise self.wrong("a finite number, 0 at least")
        return float(self.plain)

    def whole(self, low: int, high: int) -> int:
        known = isinstance(self.plain, int) and not isinstance(self.plain, bool)
        if not known or not low <= self.plain <= high:
            raise self.wrong(f"a whole number from {low} to {high}")
        return int(self.plain)

    def array(self, *shape: int) -> np.ndarray:
        """Returns finite numbers that are not negative, in this shape."""
        words = " x ".join(map(str, shape))
        try:
            numbers = np.array(self.plain, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            raise self.wrong(f"{words} numbers") from None
        if numbers.size == 0 and 0 in shape:
            return np.zeros(shape)  # an empty list says nothing of the lists in it
        if numbers.shape != shape:
            raise ReportError(f"{self.where}: expected {words} numbers, seen {' x '.join(map(str, numbers.shape))}")
        bad = np.argwhere(~(np.isfinite(numbers) & (numbers >= 0)))
        if len(bad) > 0:
            index = "".join(f"[{i}]" for i in bad[0])
            seen = numbers[tuple(bad[0])]
            raise ReportError(f"{self.where}{index}: expected a finite number, 0 at least, seen {seen:g}")
        return numbers


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
