"""Public calls as single steps of a compiled model: torch.compile runs them as they are, and looks into none.

Its tracer would follow our Python code into the extension, whose methods lose their objects there.
"""

from __future__ import annotations

import functools
import sys
from types import FunctionType
from typing import Any, Callable, TypeVar

_Class = TypeVar("_Class", bound=type)

_special = ("__call__", "__enter__", "__exit__", "__getitem__", "__iter__")


def opaque(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function as one step. Until torch._dynamo is imported it costs a look into a dict."""
    disabled: Callable[..., Any] | None = None

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal disabled
        if "torch._dynamo" not in sys.modules:  # importing that takes a second, so it is left to whoever compiles
            return function(*args, **kwargs)
        if disabled is None:
            disabled = sys.modules["torch"].compiler.disable(function)
        return disabled(*args, **kwargs)

    made: Any = call
    made.__code__ = made.__code__.replace(co_name=function.__name__)  # one each: the compiler counts by code
    made._torchdynamo_disable = True  # as torch.compiler.disable marks what it returns
    return call


def opaque_calls(cls: _Class) -> _Class:
    """Makes the public methods and properties of a class opaque."""
    for name, value in list(vars(cls).items()):
        if name.startswith("_") and name not in _special:
            continue
        if isinstance(value, FunctionType):
            setattr(cls, name, opaque(value))
        elif isinstance(value, (staticmethod, classmethod)):
            setattr(cls, name, type(value)(opaque(value.__func__)))
        elif isinstance(value, property):
            setattr(cls, name, value.getter(opaque(value.fget)) if value.fget else value)
        elif isinstance(value, functools.cached_property):
            value.func = opaque(value.func)
    return cls
