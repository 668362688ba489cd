"""Files for reports, with numbers that are easy to follow, and what a page holds."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

RANKS, EXPERTS = 4, 16


def expert_tokens() -> np.ndarray:
    """By source and expert: expert 2 is the busiest, and each source is a little different."""
    tokens = np.full((RANKS, EXPERTS), 10.0)
    tokens[:, 2] = 400
    tokens[:, 9] = 100
    return tokens + np.arange(RANKS)[:, None]


def bench() -> dict[str, Any]:
    """A benchmark in throughput mode, where all wait for rank 2."""
    bytes_between = [[1e6 * (1 + source * RANKS + to) for to in range(RANKS)] for source in range(RANKS)]
    waits = [
        [0.0 if rank == other else 300.0 if other == 2 else 20.0 for other in range(RANKS)] for rank in range(RANKS)
    ]
    call = {"median_us": 2000.0, "p99_us": 2400.0, "max_us": 2500.0}
    return {
        "schema": "switchyard-bench/1",
        "commit": "0123456789ab",
        "engine": "cpu",
        "mode": "throughput",
        "ranks": RANKS,
        "nodes": 2,
        "tokens": 128,
        "hidden": 7168,
        "top_k": 4,
        "experts": EXPERTS,
        "routing": "zipf",
        "dispatch": call,
        "combine": {name: 2 * us for name, us in call.items()},
        "between_ranks": {
            "calls": 20,
            "node_by_rank": [0, 0, 1, 1],
            "dispatch": {"bytes": bytes_between, "wait_us": waits},
            "combine": {"bytes": np.transpose(bytes_between).tolist(), "wait_us": waits},
        },
        "expert_tokens": expert_tokens().tolist(),
        "phases_us": {
            "dispatch/announce": {"spans": 80, "p50": 30.0, "p95": 60.0, "p99": 90.0, "max": 100.0},
            "dispatch/place": {"spans": 80, "p50": 1500.0, "p95": 1600.0, "p99": 1700.0, "max": 1800.0},
        },
    }


def latency() -> dict[str, Any]:
    """A benchmark in low-latency mode with two counts of tokens."""
    times = {"p50_us": 100.0, "p95_us": 120.0, "p99_us": 150.0, "p99_9_us": 180.0, "max_us": 200.0}
    full = bench()
    cases = [
        {"tokens": tokens, "host": {"dispatch": times, "combine": times, "both": times}}
        | {key: full[key] for key in ("between_ranks", "expert_tokens", "phases_us")}
        for tokens in (8, 64)
    ]
    kept = ("commit", "engine", "ranks", "nodes", "hidden", "top_k", "experts", "routing")
    return {"schema": "switchyard-latency/1", "mode": "latency", "cases": cases} | {key: full[key] for key in kept}


def trace() -> dict[str, Any]:
    spans = [
        ("dispatch", 0, 2000),
        ("dispatch/announce", 10, 30),
        ("dispatch/place", 50, 1500),
        ("combine", 2100, 4000),
    ]
    events = []
    for rank in range(RANKS):
        events.append({"ph": "M", "name": "process_name", "pid": rank, "tid": 0, "args": {"name": f"rank {rank}"}})
        for name, begin, length in spans:
            events.append({"ph": "X", "name": name, "pid": rank, "tid": 0, "ts": 5000.5 + begin + rank, "dur": length})
        events.append({"ph": "X", "name": "dispatch/place", "pid": rank, "tid": 1, "ts": 5060.5 + rank, "dur": 1400})
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def plan() -> dict[str, Any]:
    def operation(us: float) -> dict[str, Any]:
        parts = {"fixed": 20.0, "sms": us / 3, "link": us / 4, "nic": us, "messages": 0.0, "fill": 10.0}
        return {"us": us, "low_us": us / 2, "high_us": us * 1.5, "bottleneck": "NIC", "parts_us": parts}

    cases = [
        {"mode": mode, "ranks": ranks, "tokens": 128, "dispatch": operation(us), "combine": operation(us)}
        for mode, ranks, us in (("throughput", RANKS, 1900.0), ("throughput", 8, 2500.0), ("latency", RANKS, 400.0))
    ]
    return {
        "schema": "switchyard-plan/1",
        "library": "switchyard",
        "machine": {"name": "h200"},
        "model": {"hidden": 7168, "top_k": 4, "experts": EXPERTS},
        "routing": "uniform",
        "cases": cases,
        "choices": [],
    }


def record_part(rank: int, points: int = 6) -> dict[str, Any]:
    """Steps in which the load wanders from expert to expert; each point has two steps."""
    local = EXPERTS // RANKS
    tokens = [
        [5 + (90 if rank * local + expert == 2 * point else 0) for expert in range(local)] for point in range(points)
    ]
    return {
        "rank": rank,
        "ranks": RANKS,
        "node_by_rank": [0, 0, 1, 1],
        "mode": "throughput",
        "engine": "cpu",
        "hidden": 7168,
        "top_k": 4,
        "experts": EXPERTS,
        "first_expert": rank * local,
        "steps": [2 * point + 2 for point in range(points)],
        "seconds": [0.01 * (point + 1) for point in range(points)],
        "expert_tokens": tokens,
        "dispatches": [2] * points,
        "combines": [2] * points,
        "dispatch": {"wait_us": [12.0 * other for other in range(RANKS)], "bytes": [1200 * (rank + 1)] * RANKS},
        "combine": {"wait_us": [24.0 * other for other in range(RANKS)], "bytes": [2400 * (rank + 1)] * RANKS},
        "dispatch_wait_us": [10.0] * points,
        "combine_wait_us": [20.0] * points,
        "dispatch_us": [400.0] * points,
        "combine_us": [600.0] * points,
        "tokens": [[sum(column) / RANKS for column in zip(*tokens)]] * RANKS,
    }


def record(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"schema": "switchyard-record/1", "parts": list(parts)}


def whole_record() -> dict[str, Any]:
    return record(*(record_part(rank) for rank in range(RANKS)))


def write(folder: Path, **files: Any) -> list[str]:
    """Writes objects, or texts as they are, and returns the names of the files."""
    paths = []
    for name, content in files.items():
        path = folder / f"{name}.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        paths.append(str(path))
    return paths


def embedded(page: str, name: str) -> str:
    """Returns what a page has packed under a name."""
    found = re.search(rf'<script type="application/octet-stream" id="{name}">([^<]*)</script>', page)
    assert found is not None, name
    return gzip.decompress(base64.b64decode(found[1])).decode() if found[1] else ""


def data_of(page: str) -> dict[str, Any]:
    return json.loads(embedded(page, "data"))
