"""What a benchmark's JSON has for a page."""

from __future__ import annotations

import numpy as np

from .model import Case, ExpertLoad, Matrix, Measured, Phase
from .ranks import Routed, ranks_of_experts
from .values import Value

MOST_RANKS = 4096
MOST_EXPERTS = 1 << 20


def facts(file: Value) -> list[tuple[str, str]]:
    result = []
    for key in ("mode", "engine", "ranks", "nodes", "hidden", "top_k", "experts", "routing", "layout", "commit"):
        value = file.get(key)
        if value is not None:
            result.append((key.replace("_", " "), str(value.plain)))
    return result


def cases(file: Value) -> list[tuple[Case, list[Measured], Routed | None]]:
    mode = file["mode"].text()
    ranks = file["ranks"].whole(1, MOST_RANKS)
    experts = file["experts"].whole(1, MOST_EXPERTS)
    each = file.get("cases")
    result = []
    for value in each.each() if each else [file]:
        tokens = value["tokens"].whole(0, 1 << 40)
        case = _case(value, tokens, ranks)
        routed = _load(value, case, ranks, experts)
        result.append((case, _measured(value, mode, ranks, tokens, case), routed))
    return result


def _case(value: Value, tokens: int, ranks: int) -> Case:
    case = Case(f"{tokens} tokens a rank", [0] * ranks)
    between = value.get("between_ranks")
    if between is not None:
        nodes = between.get("node_by_rank")
        if nodes is not None and nodes.each():
            case.node_by_rank = [int(node) for node in nodes.array(ranks)]
        for call in ("dispatch", "combine"):
            part = between[call]
            waited = part.get("wait_us")
            case.matrices.append(
                Matrix(
                    call,
                    part["bytes"].array(ranks, ranks).tolist(),
                    waited.array(ranks, ranks).tolist() if waited is not None else None,
                )
            )
    phases = value.get("phases_us")
    for name, phase in phases.items() if phases is not None else ():
        percentiles = {key: phase[key].number() for key in ("p50", "p95", "p99", "max")}
        case.phases.append(Phase(name, phase["spans"].whole(1, 1 << 60), **percentiles))
    return case


def _load(value: Value, case: Case, ranks: int, experts: int) -> Routed | None:
    tokens = value.get("expert_tokens")
    if tokens is None:
        return None
    by_source = tokens.array(ranks, experts)
    case.experts = ExpertLoad(["a call"], [np.sum(by_source, axis=0).tolist()], ranks_of_experts(experts, ranks))
    return Routed(by_source.sum(axis=0), by_source, case.node_by_rank)


def _measured(value: Value, mode: str, ranks: int, tokens: int, case: Case) -> list[Measured]:
    """Returns the times of whole calls, and puts all times of calls in front of the phases."""
    measured = []
    calls = []
    if mode == "throughput":
        for call in ("dispatch", "combine"):
            part = value[call]
            median, p99, most = (part[key].number() for key in ("median_us", "p99_us", "max_us"))
            calls.append(Phase(f"{call}, slowest rank", None, median, None, p99, most))
            measured.append(Measured(mode, ranks, tokens, call, median))
    else:
        clocks = [clock for clock in ("graph", "device", "host") if value.get(clock) is not None]
        for clock in clocks:
            for part_name, part in value[clock].items():
                p50, p95, p99, most = (part[key].number() for key in ("p50_us", "p95_us", "p99_us", "max_us"))
                calls.append(Phase(f"{part_name}, slowest rank ({clock})", None, p50, p95, p99, most))
                if clock == clocks[0] and part_name in ("dispatch", "combine"):
                    measured.append(Measured(mode, ranks, tokens, part_name, p50))
    case.phases[:0] = calls
    return measured
