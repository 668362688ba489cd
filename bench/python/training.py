"""Measures what a training step that holds every layer's received rows until backward costs in time and memory.

Each rank is a process; on a machine with fewer GPUs than ranks they share one (start MPS first). A step runs `--layers`
dispatches and combines forward, keeps what each dispatch received, and in reverse order sends gradients along the same
handles. Steps that hold take turns with forward passes that release each layer's rows and handle at once, so that both
are measured in one run: the ratio of their dispatches says what holding costs. The first step lets the heap grow, and
is reported alone.

    python bench/python/training.py --ranks 4 --tokens 4096 --hidden 7168 --layers 32
"""

from __future__ import annotations

import argparse
import os
import statistics
from typing import Any

import deep_ep
import torch
import torch.distributed as dist


class Timed:
    """Device times of calls, in microseconds."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Any, Any]] = []

    def __call__(self, call: Any) -> Any:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        result = call()
        end.record()
        self._pairs.append((begin, end))
        return result

    def take(self) -> list[float]:
        torch.cuda.synchronize()
        times = [1e3 * begin.elapsed_time(end) for begin, end in self._pairs]
        self._pairs.clear()
        return times


class Rank:
    def __init__(self, options: argparse.Namespace) -> None:
        self.layers = options.layers
        generator = torch.Generator(device="cuda").manual_seed(dist.get_rank())
        self.x = torch.randn(options.tokens, options.hidden, generator=generator, device="cuda", dtype=torch.bfloat16)
        scores = torch.rand(options.tokens, options.experts, generator=generator, device="cuda")
        self.weights, self.ids = scores.topk(options.top_k)
        self.buffer = deep_ep.Buffer(dist.group.WORLD, num_nvl_bytes=options.num_nvl_bytes)
        self.layout = self.buffer.get_dispatch_layout(self.ids, options.experts)
        self.dispatches, self.cached = Timed(), Timed()

    def dispatch(self) -> tuple[Any, Any]:
        per_rank, _, per_expert, in_rank, _ = self.layout
        received = self.dispatches(
            lambda: self.buffer.dispatch(
                self.x,
                num_tokens_per_rank=per_rank,
                is_token_in_rank=in_rank,
                num_tokens_per_expert=per_expert,
                topk_idx=self.ids,
                topk_weights=self.weights,
            )
        )
        return received[0], received[4]

    def forward(self, holds: bool) -> list[tuple[Any, Any]]:
        kept = []
        for _ in range(self.layers):
            rows, handle = self.dispatch()
            # As experts do it, the outputs are PyTorch's.
            self.buffer.combine(rows.clone(), handle)
            if holds:
                kept.append((rows, handle))
            del rows, handle
        return kept

    def step(self, holds: bool) -> None:
        kept = self.forward(holds)
        while kept:
            rows, handle = kept.pop()
            gradient = self.cached(lambda handle=handle: self.buffer.dispatch(self.x, handle=handle))[0]
            self.buffer.combine(gradient + rows, handle)
            del gradient, rows, handle

    def memory(self) -> str:
        engine = next(iter(self.buffer._engines._buffers.values()))
        gib = 1 << 30
        return (
            f"heap {engine.heap_bytes_now / gib:.2f} GiB, in use at most {engine.heap_bytes_peak / gib:.2f} GiB; "
            f"PyTorch reserved {torch.cuda.max_memory_reserved() / gib:.2f} GiB"
        )


def say(text: str) -> None:
    if dist.get_rank() == 0:
        print(text, flush=True)


def run(rank: int, options: argparse.Namespace) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(options.port))
    torch.cuda.set_device(rank % torch.cuda.device_count())
    dist.init_process_group("gloo", rank=rank, world_size=options.ranks)
    job = Rank(options)
    medians: dict[bool, list[float]] = {}
    job.step(False)
    job.dispatches.take(), job.cached.take()
    job.step(True)
    say(f"first step that holds: dispatch {statistics.median(job.dispatches.take()):.0f} us; {job.memory()}")
    job.cached.take()
    for number in range(2 * options.steps):
        holds = number % 2 == 1
        dist.barrier()
        job.step(holds)
        medians.setdefault(holds, []).append(statistics.median(job.dispatches.take()))
        job.cached.take()
    released, held = (statistics.median(medians[holds]) for holds in (False, True))
    say(
        f"dispatch: {released:.0f} us with an empty heap, {held:.0f} us while rows are held: "
        f"{held / released:.3f} times"
    )
    say(job.memory())
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("ranks", 4), ("tokens", 4096), ("hidden", 7168), ("experts", 256), ("top-k", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in (("layers", 32), ("steps", 5), ("num-nvl-bytes", 1 << 28), ("port", 29577)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.multiprocessing.spawn(run, args=(options,), nprocs=options.ranks)


if __name__ == "__main__":
    main()
