"""Measures the host time of calls through deep_ep, and of the same calls in C++, on tiny tensors.

The job has one rank, so that calls wait for nothing and only the time that Python adds is seen. The C++ times are those
of overhead.cpp, which `--cpp PROGRAM` (build/release/bench/overhead) runs. The program prints medians over rounds, and
the time that Python adds. "low latency" is a dispatch and its combine together; with hooks each is two calls. "V2" are
calls of ElasticBuffer. Calls that C++ does not have (int32 and column-major scales, statistics) are compared with the
C++ call that they make. On a GPU (--device cuda) the time is that until the call returns, and each call finds the GPU
idle.
"""

from __future__ import annotations

import argparse
import importlib
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
    """The methods of mpi4py that Communicator.from_mpi needs, for a single rank."""

    def Get_rank(self) -> int:
        return 0

    def Get_size(self) -> int:
        return 1

    def allgather(self, mine: Any) -> list[Any]:
        return [mine]


class Timer:
    """Returns microseconds a call: the median over rounds of the mean of a round. Times contain only the calls."""

    def __init__(self, device: torch.device, rounds: int, calls: int) -> None:
        self.rounds, self.calls = rounds, calls
        self.settle: Callable[[], Any] = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def __call__(self, call: Callable[[], Any]) -> float:
        times = [self.mean(call) for _ in range(self.rounds + 1)]
        return statistics.median(times[1:])

    def mean(self, call: Callable[[], Any]) -> float:
        total = 0
        for _ in range(self.calls):
            self.settle()
            begin = time.perf_counter_ns()
            call()
            total += time.perf_counter_ns() - begin
        return total / self.calls / 1000


# The C++ call that a call makes, where that has another name.
made_by = {
    "dispatch, int32 scales": "FP8 dispatch",
    "V2 dispatch": "dispatch",
    "V2 dispatch, stats": "dispatch",
    "V2 dispatch, FP8": "FP8 dispatch",
    "V2 dispatch, TMA scales": "FP8 dispatch",
    "V2 expanded dispatch": "expanded dispatch",
    "V2 cached dispatch": "cached dispatch",
    "V2 combine": "combine",
}


class Inputs:
    def __init__(self, device: torch.device) -> None:
        self.x = torch.ones(tokens, hidden, dtype=torch.bfloat16, device=device)
        self.ids = torch.arange(tokens * top_k, device=device).view(tokens, top_k) % experts
        self.weights = torch.ones(tokens, top_k, device=device)
        self.fp8 = self.x.to(torch.float8_e4m3fn)
        self.scales = torch.ones(tokens, 1, device=device)
        self.packed = self.scales.int()
        self.stats = torch.zeros(experts, dtype=torch.int32, device=device)


def throughput(buffer: deep_ep.Buffer, inputs: Inputs, timed: Timer) -> dict[str, float]:
    x, ids = inputs.x, inputs.ids
    per_rank, _, per_expert, in_rank, _ = buffer.get_dispatch_layout(ids, experts)

    def dispatch(x: Any = x) -> Any:
        return buffer.dispatch(
            x,
            num_tokens_per_rank=per_rank,
            is_token_in_rank=in_rank,
            num_tokens_per_expert=per_expert,
            topk_idx=ids,
            topk_weights=inputs.weights,
        )

    received, _, recv_weights, _, handle, _ = dispatch()
    return {
        "layout": timed(lambda: buffer.get_dispatch_layout(ids, experts)),
        "dispatch": timed(dispatch),
        "FP8 dispatch": timed(lambda: dispatch((inputs.fp8, inputs.scales))),
        "dispatch, int32 scales": timed(lambda: dispatch((inputs.fp8, inputs.packed))),
        "cached dispatch": timed(lambda: buffer.dispatch(x, handle=handle)),
        "combine": timed(lambda: buffer.combine(received, handle, topk_weights=recv_weights)),
    }


def low_latency(buffer: deep_ep.Buffer, inputs: Inputs, timed: Timer) -> dict[str, float]:
    x, ids, weights = inputs.x, inputs.ids, inputs.weights

    def step() -> None:
        rows, _, handle, _, _ = buffer.low_latency_dispatch(x, ids, tokens, experts, use_fp8=False)
        buffer.low_latency_combine(rows, ids, weights, handle)

    def step_with_hooks() -> None:
        rows, _, handle, _, hook = buffer.low_latency_dispatch(
            x, ids, tokens, experts, use_fp8=False, return_recv_hook=True
        )
        assert hook is not None
        hook()
        _, _, hook = buffer.low_latency_combine(rows, ids, weights, handle, return_recv_hook=True)
        assert hook is not None
        hook()

    return {"low latency": timed(step), "low latency, hooks": timed(step_with_hooks)}


def elastic(buffer: deep_ep.ElasticBuffer, inputs: Inputs, timed: Timer) -> dict[str, float]:
    fp8 = inputs.fp8, inputs.scales

    def dispatch(x: Any = inputs.x, **options: Any) -> Any:
        return buffer.dispatch(x, inputs.ids, inputs.weights, num_experts=experts, **options)

    received, _, recv_weights, handle, _ = dispatch()
    return {
        "V2 dispatch": timed(dispatch),
        "V2 dispatch, stats": timed(lambda: dispatch(cumulative_local_expert_recv_stats=inputs.stats)),
        "V2 dispatch, FP8": timed(lambda: dispatch(fp8)),
        "V2 dispatch, TMA scales": timed(lambda: dispatch(fp8, use_tma_aligned_col_major_sf=True)),
        "V2 expanded dispatch": timed(lambda: dispatch(do_expand=True)),
        "V2 cached dispatch": timed(lambda: buffer.dispatch(inputs.x, handle=handle)),
        "V2 combine": timed(lambda: buffer.combine(received, handle, topk_weights=recv_weights)),
    }


def in_cpp(program: str, timed: Timer, engine: str) -> dict[str, float]:
    command = [program, str(timed.rounds), str(timed.calls), engine]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    return dict(json.loads(done.stdout))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpp", metavar="PROGRAM", help="the C++ side, built from overhead.cpp")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--limit", type=float, help="fail when a call adds more microseconds than this")
    parser.add_argument("--dynamo", action="store_true", help="import torch._dynamo first, as making an optimizer does")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.dynamo:
        importlib.import_module("torch._dynamo")
    device = torch.device("cuda", 0) if arguments.device == "cuda" else torch.device("cpu")
    timed = Timer(device, arguments.rounds, arguments.calls)
    buffer = deep_ep.Buffer(comm=Alone(), num_nvl_bytes=64 << 20, low_latency_mode=True)
    inputs = Inputs(device)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    v2 = deep_ep.ElasticBuffer(torch.distributed.group.WORLD, num_bytes=64 << 20, num_max_tokens_per_rank=tokens)
    python = throughput(buffer, inputs, timed) | low_latency(buffer, inputs, timed) | elastic(v2, inputs, timed)
    cpp = in_cpp(arguments.cpp, timed, arguments.device) if arguments.cpp else {}
    worst = 0.0
    print(f"{'call':23s} {'deep_ep us':>11s} {'C++ us':>8s} {'added us':>9s}")
    for name, took in python.items():
        below = cpp.get(made_by.get(name, name), float("nan"))
        worst = max(worst, took - below)
        print(f"{name:23s} {took:11.2f} {below:8.2f} {took - below:9.2f}")
    return int(arguments.limit is not None and worst > arguments.limit)


if __name__ == "__main__":
    sys.exit(main())
