"""Where the experts of a model should lie, given how many tokens each of them gets."""

from __future__ import annotations

import math
import operator
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _core
from ._errors import InvalidArgument
from ._frameworks import framework_of


@dataclass(frozen=True)
class ExpertPlan:
    """Which logical expert each physical one is, in each layer. See `plan_experts`.

    With L layers, E logical and R physical experts, and X the most replicas of any expert in any layer. Tensors are of
    PyTorch if the load was, and of NumPy otherwise, on the CPU.

    Attributes:
        physical_to_logical: [L, R] int64: the logical expert of each physical one. GPU g of G has the physical experts
            from g * R / G on.
        logical_to_physical: [L, E, X] int64: the replicas of each expert, ascending, then -1.
        replica_count: [L, E] int64: how many these are, 1 at least.
        imbalance: [L] float64: the load of the heaviest GPU by the mean of all; 1 where there is no load.
        moved: [L] int64: physical experts that are another one than in `old`; 0 without it.
        crossing: [L] float64: tokens whose replica is on another node; None without `traffic`.
    """

    physical_to_logical: Any
    logical_to_physical: Any
    replica_count: Any
    imbalance: Any
    moved: Any
    crossing: Any


def plan_experts(
    load: Any,
    replicas: int,
    groups: int,
    nodes: int,
    gpus: int,
    old: Any = None,
    traffic: Any = None,
    *,
    slack: float = 0.0,
    move_cost: float = math.inf,
) -> ExpertPlan:
    """Plans the replicas of each expert and the GPU of each replica, so that GPUs have equal loads.

    An expert's load is split evenly between its replicas. Where `nodes` divides `groups`, a group of neighbouring
    experts lies on one node as a whole; otherwise replicas lie anywhere. No GPU gets more load than the heaviest one of
    DeepSeek's EPLB (a greedy algorithm). Within that, `old` keeps what it can, and then tokens stay on their nodes
    where they can; without either, the heaviest GPU is made as light as a local search makes it.

    No rank talks to another: equal arguments give equal plans on all ranks.

    Args:
        load: [layers, experts] real numbers, finite and not negative, in any unit: what each expert has to do. A
            tensor of any framework and on any device, or lists.
        replicas: physical experts of a layer, as many as experts at least, a multiple of `gpus`.
        groups: of experts, all of the same size; 1 if routing knows no groups.
        nodes: of the cluster, all of the same size.
        gpus: of all nodes together, a multiple of `nodes`.
        old: [layers, replicas] integers: the `physical_to_logical` so far, which has each expert in each layer. None:
            there is none.
        traffic: [layers, nodes, experts] or [layers, gpus, experts] tokens that each node, or each GPU, sends to each
            expert. They are counted as crossing where the replicas on their own node, each with an equal share of the
            expert's tokens, cannot take them; a token that goes to two experts counts twice. None: nobody has counted.
        slack: how much heavier than EPLB's heaviest GPU one may be, as a part of it (0.05: by 5 %), if that saves moves
            or tokens between nodes.
        move_cost: with `old` and `traffic`: tokens that must stay on their nodes for each physical expert that moves
            for their sake. By default none moves for that alone.

    Raises:
        InvalidArgument: a shape, a number or an expert is not one of those; the text says which.
        TypeError: a number is of another kind.
    """
    loads = _numbers("load", load, 2, "[layers, experts]")
    args = _core.ExpertArgs()
    args.layers, args.experts = loads.shape
    for name, value in (("replicas", replicas), ("groups", groups), ("nodes", nodes), ("gpus", gpus)):
        setattr(args, name, _whole(name, value))
    args.slack, args.move_cost = _real("slack", slack), _real("move_cost", move_cost)
    before = None if old is None else _map_before(old, args)
    tokens = None if traffic is None else _tokens(traffic, args)
    planned = _core.plan_experts(args, loads, before, tokens)
    kind: type = type(load)
    if framework_of(kind) == "torch":
        from_numpy = sys.modules["torch"].from_numpy
        return ExpertPlan(*(None if each is None else from_numpy(each) for each in planned))
    return ExpertPlan(*planned)


def _whole(name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected a whole number, seen {value!r}") from None
    if not -(2**63) <= number < 2**63:
        raise InvalidArgument(f"{name}: expected a number of this cluster, seen {number}")
    return number


def _real(name: str, value: Any) -> float:
    try:
        return float(value + 0.0)  # float() alone takes texts, too
    except TypeError:
        raise TypeError(f"{name}: expected a number, seen {value!r}") from None


def _array(name: str, value: Any) -> Any:
    """Returns a tensor of any framework, or lists, as an array in host memory."""
    kind: type = type(value)
    framework = framework_of(kind)
    if framework == "torch":
        torch = sys.modules["torch"]
        plain = value.detach()
        return (plain.to(torch.float64) if plain.is_floating_point() else plain).cpu().numpy()
    if framework == "cupy":
        return value.get()
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{name}: expected a tensor of numbers, seen {type(value).__name__}: {error}") from None


def _numbers(name: str, value: Any, dims: int, shape: str) -> Any:
    array = _array(name, value)
    if array.ndim != dims:
        raise InvalidArgument(f"{name}: expected {shape}, seen {_shape(array)}")
    known = array.dtype.kind in "biuf" or array.dtype.name.startswith(("bfloat", "float"))
    if not known:
        raise InvalidArgument(f"{name}: expected real numbers, seen {array.dtype}")
    return np.array(array, dtype=np.float64, order="C")  # a copy: nobody changes what was checked


def _map_before(old: Any, args: _core.ExpertArgs) -> Any:
    array = _array("old", old)
    if array.dtype.kind not in "iu":
        raise InvalidArgument(f"old: expected integers, seen {array.dtype}")
    if array.shape != (args.layers, args.replicas):
        raise InvalidArgument(
            f"old: expected [{args.layers}, {args.replicas}] (layers, replicas), seen {_shape(array)}; leave it out "
            "where layers or replicas change"
        )
    return np.array(array, dtype=np.int64, order="C")


def _tokens(traffic: Any, args: _core.ExpertArgs) -> Any:
    array = _numbers("traffic", traffic, 3, "[layers, nodes or gpus, experts]")
    layers, sources, experts = array.shape
    if (layers, experts) != (args.layers, args.experts) or sources not in (args.nodes, args.gpus):
        raise InvalidArgument(
            f"traffic: expected [{args.layers}, {args.nodes} or {args.gpus}, {args.experts}] (layers, nodes or gpus, "
            f"experts), seen {_shape(array)}"
        )
    return array


def _shape(array: Any) -> str:
    return f"[{', '.join(map(str, array.shape))}]"
