"""What files of switchyard.Recorder have for a page."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import ReportError
from .model import Case, ExpertLoad, Matrix, Phase
from .ranks import Routed, ranks_of_experts
from .values import Value

MOST_POINTS = 1 << 20


def case_of(parts: list[Value]) -> tuple[Case, list[tuple[str, str]], Routed]:
    """Returns the run of these parts, one of each rank, and what describes it."""
    parts = _sorted(parts)
    ranks = len(parts)
    first = parts[0]
    experts = first["experts"].whole(1, 1 << 20)
    case = Case("the run", [int(node) for node in first["node_by_rank"].array(ranks)])
    for call in ("dispatch", "combine"):
        case.matrices.append(_matrix(parts, call))
    case.experts = _experts(parts, experts)
    case.phases = _phases(parts)
    load = np.array(case.experts.tokens).reshape(-1, experts).sum(axis=0)
    routed = Routed(load, _by_source(parts, experts), case.node_by_rank)
    steps = first["steps"].each()
    facts = [(key.replace("_", " "), str(first[key].plain)) for key in ("mode", "engine", "hidden", "top_k", "experts")]
    return case, [("ranks", str(ranks)), ("steps", str(steps[-1].plain if steps else 0)), *facts], routed


def _sorted(parts: list[Value]) -> list[Value]:
    ranks = parts[0]["ranks"].whole(1, 4096)
    by_rank: dict[int, Value] = {}
    for part in parts:
        if part["ranks"].whole(1, 4096) != ranks:
            raise part["ranks"].wrong(f"{ranks}, as in {parts[0].where}")
        rank = part["rank"].whole(0, ranks - 1)
        if rank in by_rank:
            raise ReportError(f"{part.where}: rank: expected each rank once, seen {rank} in {by_rank[rank].where}, too")
        by_rank[rank] = part
    missing = sorted(set(range(ranks)) - set(by_rank))
    if missing:
        seen = f"none of {', '.join(map(str, missing[:8]))}{' and more' if len(missing) > 8 else ''}"
        raise ReportError(f"{parts[0].where}: expected files of all {ranks} ranks, seen {seen}")
    return [by_rank[rank] for rank in range(ranks)]


def _points(part: Value) -> int:
    return len(part["steps"].each())


def _matrix(parts: list[Value], call: str) -> Matrix:
    """Of a call, or of a step where nobody counted calls. Rows of `bytes` are who sends: parts have what came."""
    ranks = len(parts)
    points = _points(parts[0])
    calls = parts[0].get({"dispatch": "dispatches", "combine": "combines"}[call])
    number = calls.array(points).sum() if calls is not None else parts[0]["steps"].array(points).max(initial=0)
    name = call if calls is not None else {"dispatch": "step's dispatches", "combine": "step's combines"}[call]
    scale = max(float(number), 1.0)
    waits = np.array([part[call]["wait_us"].array(ranks) for part in parts]) / scale
    came = [part[call].get("bytes") for part in parts]
    if any(each is None for each in came):
        return Matrix(name, None, waits.tolist())
    columns = [each.array(ranks) / scale for each in came if each is not None]
    return Matrix(name, np.array(columns).T.tolist(), waits.tolist())


def _experts(parts: list[Value], experts: int) -> ExpertLoad:
    ranks = ranks_of_experts(experts, len(parts))
    points = _points(parts[0])
    columns = []
    for rank, part in enumerate(parts):
        if _points(part) != points:
            raise part["steps"].wrong(f"{points} points, as on rank 0")
        columns.append(part["expert_tokens"].array(points, ranks.count(rank)))
    ends = [step.whole(1, MOST_POINTS << 20) for step in parts[0]["steps"].each()]
    labels = [_label(begin + 1, end) for begin, end in zip([0, *ends[:-1]], ends)]
    return ExpertLoad(labels, np.concatenate(columns, axis=1).tolist(), ranks)


def _label(first: int, last: int) -> str:
    return f"step {last}" if first == last else f"steps {first} to {last}"


def _by_source(parts: list[Value], experts: int) -> np.ndarray | None:
    ranks = len(parts)
    rank_of = ranks_of_experts(experts, ranks)
    tokens = [part.get("tokens") for part in parts]
    if any(each is None for each in tokens):
        return None
    columns = [each.array(ranks, rank_of.count(rank)) for rank, each in enumerate(tokens) if each]
    return np.concatenate(columns, axis=1)


def _phases(parts: list[Value]) -> list[Phase]:
    """Of each step of each rank; steps that were merged count as their mean."""
    lists: dict[str, list[Any]] = {}
    for part in parts:
        points = _points(part)
        steps = np.diff(part["steps"].array(points), prepend=0.0)
        if (steps <= 0).any():
            raise part["steps"].wrong("numbers of steps, one at least, that grow")
        seconds = np.diff(part["seconds"].array(points), prepend=0.0)
        if (seconds < 0).any():
            raise part["seconds"].wrong("seconds that grow")
        lists.setdefault("a step", []).append(seconds / steps * 1e6)
        for name, words in (
            ("dispatch_us", "dispatches of a step"),
            ("combine_us", "combines of a step"),
            ("dispatch_wait_us", "waits in dispatches of a step"),
            ("combine_wait_us", "waits in combines of a step"),
        ):
            each = part.get(name)
            if each is not None:
                lists.setdefault(words, []).append(each.array(points) / steps)
    times = {name: np.concatenate(each) for name, each in lists.items()}
    return [summary(name, us) for name, us in times.items() if len(us) > 0]


def summary(name: str, us: np.ndarray) -> Phase:
    p50, p95, p99 = np.percentile(us, (50, 95, 99))
    return Phase(name, len(us), float(p50), float(p95), float(p99), float(us.max()))
