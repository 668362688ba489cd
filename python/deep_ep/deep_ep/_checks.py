"""Checks of arguments, whose errors name them."""

from __future__ import annotations

from operator import index
from typing import Any

import torch


def wrong_type(name: str, expected: str, value: Any) -> TypeError:
    """To be raised."""
    return TypeError(f"{name}: expected {expected}, seen {type(value).__name__}")


def tensor(name: str, value: Any) -> torch.Tensor:
    """Raises TypeError unless it is one."""
    if not isinstance(value, torch.Tensor):
        raise wrong_type(name, "a torch.Tensor", value)
    return value


def number(name: str, value: Any) -> int:
    """Raises TypeError unless it is a whole one."""
    try:
        return index(value)
    except TypeError:
        raise wrong_type(name, "a whole number", value) from None
