"""Public calls as single steps of a compiled model: torch.compile runs them as they are, and looks into none.

Its tracer would follow our Python code into the extension, whose methods lose their objects there.
"""

from __future__ import annotations

import functools
import inspect
import sys
from types import FunctionType
from typing import Any, Callable, TypeVar

_Class = TypeVar("_Class", bound=type)

_special = ("__call__", "__enter__", "__exit__", "__getitem__", "__iter__")


def _find_tracer() -> object:
    """Stands for the function that says what compiles this thread's frames until torch._dynamo has given that."""
    global _tracer
    frames = getattr(sys.modules["torch"]._C._dynamo, "eval_frame", None)
    _tracer = getattr(frames, "get_eval_frame_callback", lambda: True)
    return _tracer()


_tracer: Callable[[], object] = _find_tracer  # None: nothing compiles them


def opaque(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function as one step. Outside of compiled functions that costs two looks."""
    disabled: Callable[..., Any] | None = None

    def compiled() -> Callable[..., Any]:
        """Returns what compiled functions call."""
        nonlocal disabled
        if disabled is None:
            disabled = sys.modules["torch"].compiler.disable(function)
        return disabled

    # Importing torch._dynamo takes a second, so that is left to whoever compiles. Making an optimizer imports it, too,
    # and a call through what it makes of a function takes microseconds.
    made = _with_parameters_of(
        function,
        """
    if "torch._dynamo" not in _opaque_modules or _opaque_tracer() is None:
        return _opaque_function({passed})
    return _opaque_compiled()({passed})
""",
        {
            "__name__": function.__module__,
            "_opaque_modules": sys.modules,
            "_opaque_tracer": lambda: _tracer(),
            "_opaque_function": function,
            "_opaque_compiled": compiled,
        },
    )
    made._torchdynamo_disable = True  # as torch.compiler.disable marks what it returns
    return made


def _with_parameters_of(function: Callable[..., Any], body: str, names: dict[str, Any]) -> Any:
    """Returns a function like this one, which takes its arguments one by one: to pack and unpack them takes a while.

    It has code of its own, by which the compiler counts.

    Args:
        body: "{passed}" stands for the arguments.
        names: what the body uses.
    """
    declared: list[str] = []
    passed: list[str] = []
    behind_star = False
    for each in inspect.signature(function).parameters.values():
        marks = "*" if each.kind is each.VAR_POSITIONAL else "**" if each.kind is each.VAR_KEYWORD else ""
        by_name = each.kind is each.KEYWORD_ONLY
        if by_name and not behind_star:
            declared.append("*")
        behind_star = behind_star or by_name or marks == "*"
        declared.append(f"{marks}{each.name}" + ("" if each.default is each.empty else "=None"))
        passed.append(f"{each.name}={each.name}" if by_name else f"{marks}{each.name}")
    made: dict[str, Any] = {}
    text = f"def {_name}({', '.join(declared)}):{body.format(passed=', '.join(passed))}"
    exec(compile(text, f"<{function.__qualname__}, opaque to torch.compile>", "exec"), names, made)
    like: Any = functools.wraps(function)(made[_name])
    like.__defaults__, like.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    like.__code__ = like.__code__.replace(co_name=function.__name__)
    return like


_name = "call"


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
