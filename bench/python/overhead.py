"""Host time of a call through deep_ep, and of the same call in C++, on tiny tensors.

The job is one rank: nothing is waited for, so that what Python adds is seen alone. The C++ figures are of overhead.cpp,
which `--cpp PROGRAM` (build/release/bench/overhead) runs. Prints medians of rounds, and what Python adds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any, Callable

import deep_ep
import torch

tokens, hidden, experts, top_k = 4, 16, 4, 2


class Alone:
    """What Communicator.from_mpi needs of mpi4py, for a single rank."""

    def Get_rank(self) -> int:
        return 0

    def Get_size(self) -> int:
        return 1

    def allgather(self, mine: Any) -> list[Any]:
        return [mine]


def rounds_of(call: Callable[[], Any], rounds: int, calls: int) -> float:
    """Microseconds a call: the median over rounds of the mean of a round."""
    times = []
    for _ in range(rounds + 1):
        begin = time.perf_counter_ns()
        for _ in range(calls):
            call()
        times.append((time.perf_counter_ns() - begin) / calls / 1000)
    return statistics.median(times[1:])


def measure(buffer: deep_ep.Buffer, rounds: int, calls: int) -> dict[str, float]:
    x = torch.ones(tokens, hidden, dtype=torch.bfloat16)
    ids = torch.arange(tokens * top_k).view(tokens, top_k) % experts
    weights = torch.ones(tokens, top_k)
    per_rank, _, per_expert, in_rank, _ = buffer.get_dispatch_layout(ids, experts)

    def dispatch() -> Any:
        return buffer.dispatch(
            x,
            num_tokens_per_rank=per_rank,
            is_token_in_rank=in_rank,
            num_tokens_per_expert=per_expert,
            topk_idx=ids,
            topk_weights=weights,
        )

    received, _, recv_weights, _, handle, _ = dispatch()
    return {
        "layout": rounds_of(lambda: buffer.get_dispatch_layout(ids, experts), rounds, calls),
        "dispatch": rounds_of(dispatch, rounds, calls),
        "cached dispatch": rounds_of(lambda: buffer.dispatch(x, handle=handle), rounds, calls),
        "combine": rounds_of(lambda: buffer.combine(received, handle, topk_weights=recv_weights), rounds, calls),
    }


def in_cpp(program: str, rounds: int, calls: int) -> dict[str, float]:
    done = subprocess.run([program, str(rounds), str(calls)], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpp", metavar="PROGRAM", help="the C++ side, built from overhead.cpp")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--limit", type=float, help="fail when a call adds more microseconds than this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    python = measure(deep_ep.Buffer(comm=Alone()), arguments.rounds, arguments.calls)
    cpp = in_cpp(arguments.cpp, arguments.rounds, arguments.calls) if arguments.cpp else {}
    worst = 0.0
    print(f"{'call':16s} {'deep_ep us':>11s} {'C++ us':>8s} {'added us':>9s}")
    for name, took in python.items():
        added = took - cpp[name] if name in cpp else float("nan")
        worst = max(worst, added)
        print(f"{name:16s} {took:11.2f} {cpp.get(name, float('nan')):8.2f} {added:9.2f}")
    return int(arguments.limit is not None and worst > arguments.limit)


if __name__ == "__main__":
    sys.exit(main())
