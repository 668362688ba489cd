"""Sums of counters at points in time, as many as there is room for, however long a run is."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Point(NamedTuple):
    """What was counted by the end of a step."""

    step: int
    seconds: float
    counted: dict[str, Any]


class Points:
    """What was counted up to each of some steps. When there are too many points, every second one goes.

    What came from whom is kept of the first and the latest step only.
    """

    def __init__(self, keep: int, counted: dict[str, Any]) -> None:
        self._keep = keep
        self._stride = 1
        self._first = self._latest = Point(0, 0.0, counted)
        self._points = [_reduced(self._first)]

    def add(self, seconds: float, counted: dict[str, Any]) -> None:
        self._latest = Point(self._latest.step + 1, seconds, counted)
        if self._latest.step % self._stride != 0:
            return
        self._points.append(_reduced(self._latest))
        if len(self._points) > self._keep:
            self._points = self._points[::2]
            self._stride *= 2

    def as_json(self) -> dict[str, Any]:
        points = list(self._points)
        if points[-1].step != self._latest.step:
            points.append(_reduced(self._latest))
        result = {
            "steps": [point.step for point in points[1:]],
            "seconds": [round(point.seconds, 6) for point in points[1:]],
            "expert_tokens": _between(points, "expert_tokens").tolist(),
        }
        for name in ("dispatches", "combines"):
            if name in points[0].counted:
                result[name] = _between(points, name).tolist()
        for call in ("dispatch", "combine"):
            result |= self._of_call(call, points)
        if "tokens" in self._first.counted:
            result["tokens"] = self._in_all("tokens").tolist()
        return result

    def _of_call(self, call: str, points: list[Point]) -> dict[str, Any]:
        by_rank = {"wait_us": (self._in_all(f"{call}_wait_ns") / 1e3).tolist()}
        result = {call: by_rank, f"{call}_wait_us": (_between(points, f"{call}_wait_ns").sum(axis=1) / 1e3).tolist()}
        if f"{call}_bytes" in self._first.counted:
            by_rank["bytes"] = self._in_all(f"{call}_bytes").tolist()
            result[f"{call}_us"] = (_between(points, f"{call}_ns") / 1e3).tolist()
        return result

    def _in_all(self, name: str) -> Any:
        return _host(self._latest.counted[name]) - _host(self._first.counted[name])


def _reduced(point: Point) -> Point:
    counted = {name: value for name, value in point.counted.items() if name != "tokens" and not name.endswith("_bytes")}
    if "tokens" in point.counted:
        counted["expert_tokens"] = point.counted["tokens"].sum(axis=0)
    return point._replace(counted=counted)


def _between(points: list[Point], name: str) -> Any:
    """Returns what was counted between one point and the next; right also where int32 counters wrap around."""
    return np.diff(np.array([_host(point.counted[name]) for point in points]), axis=0)


def _host(value: Any) -> Any:
    return np.asarray(value.cpu() if hasattr(value, "cpu") else value)
