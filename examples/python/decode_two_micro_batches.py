"""Decodes with two micro-batches: while the tokens of one are on their way, the other computes.

    torchrun --nproc-per-node 2 examples/python/decode_two_micro_batches.py [--device cuda]

The calls are DeepEP's low-latency ones, here of Switchyard's drop-in: with return_recv_hook=True a call only sends, and
hook() receives. Every rank compares its logits with those that it computes alone, by plain loops over all experts. The
program prints the time of a step with and without overlap. With --device cuda each rank has a GPU of its own, or all
share the first one if there are fewer GPUs than ranks.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from typing import Any, Callable

import deep_ep
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

vocabulary, hidden, inner, num_layers, num_experts, top_k = 512, 512, 256, 3, 16, 4
batch = 16  # tokens of a micro-batch on each rank: the most that a dispatch sends


class Model:
    """All weights. A rank uses only its own experts; the reference uses all of them."""

    def __init__(self, device: torch.device) -> None:
        random = torch.Generator().manual_seed(0)

        def weights(*shape: int) -> Tensor:
            values = torch.randn(*shape, generator=random) / shape[-2] ** 0.5
            return values.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32)

        self.embedding = (weights(vocabulary, hidden) * vocabulary**0.5).bfloat16()
        self.mixers = weights(num_layers, hidden, hidden)
        self.up = weights(num_layers, num_experts, hidden, inner)
        self.down = weights(num_layers, num_experts, inner, hidden)
        self.head = weights(hidden, vocabulary)
        # The token determines its experts, as in hash layers: routes that depend on rounding could not be compared.
        scores = torch.rand(num_layers, vocabulary, num_experts, generator=random).softmax(-1).topk(top_k)
        self.weights, self.chosen = scores.values.to(device) * 4, scores.indices.to(device)

    def product(self, x: Tensor, weights: Tensor) -> Tensor:
        """Multiplies bfloat16; on CPUs in float32, since those without bfloat16 instructions take 100 times as long."""
        return (x.to(weights.dtype) @ weights).bfloat16()

    def attention(self, layer: int, x: Tensor, past: Tensor) -> Tensor:
        """Stands in for attention: mixes in the tokens before, and updates `past`."""
        past.mul_(0.5).add_(x)
        return x + self.product(F.rms_norm(past, (hidden,)), self.mixers[layer])

    def experts(self, layer: int, ids: slice, rows: Tensor) -> Tensor:
        """Returns [L, n, H] for rows [L, n, H]. It computes empty slots, too, so that no host needs the counts."""
        return self.product(F.silu(self.product(rows, self.up[layer, ids])), self.down[layer, ids])


class MicroBatch:
    """Some sequences of this rank, and the call that is under way for them."""

    def __init__(self, model: Model, buffer: deep_ep.Buffer, first: Tensor) -> None:
        self.model, self.buffer, self.tokens = model, buffer, first
        each = num_experts // buffer.group_size
        self.mine = slice(buffer.rank * each, (buffer.rank + 1) * each)
        self.past = torch.zeros(num_layers, batch, hidden, dtype=torch.bfloat16, device=first.device)
        self.x, self.y = model.embedding[first], torch.zeros_like(model.embedding[first])
        self.hook: Callable[[], None] | None = None
        self.handle: Any = None
        self.history: list[Tensor] = [first]
        self.logits: list[Tensor] = []

    def attend(self, layer: int) -> None:
        self.x = self.model.attention(layer, self.x + self.y, self.past[layer])
        self.normed = F.rms_norm(self.x, (hidden,))

    def send_to_experts(self, layer: int) -> None:
        self.ids = self.model.chosen[layer, self.tokens]
        self.rows, _, self.handle, _, self.hook = self.buffer.low_latency_dispatch(
            self.normed, self.ids, batch, num_experts, use_fp8=False, return_recv_hook=True
        )

    def run_experts(self, layer: int) -> None:
        # The outputs are written to the memory that the combine reads, so that it copies nothing.
        self.outputs = self.buffer.get_next_low_latency_combine_buffer(self.handle)
        self.outputs.copy_(self.model.experts(layer, self.mine, self.rows))

    def send_back(self, layer: int) -> None:
        self.y, _, self.hook = self.buffer.low_latency_combine(
            self.outputs, self.ids, self.model.weights[layer, self.tokens], self.handle, zero_copy=True,
            return_recv_hook=True,
        )

    def receive(self) -> None:
        """Runs the receive half of the latest call."""
        hook, self.hook = self.hook, None
        if hook is not None:
            hook()

    def next_token(self) -> None:
        logits = self.model.product(F.rms_norm(self.x + self.y, (hidden,)), self.model.head)
        self.tokens = logits.argmax(-1)
        self.history.append(self.tokens)
        self.logits.append(logits)
        self.x, self.y = self.model.embedding[self.tokens], torch.zeros_like(self.x)


halves = ((MicroBatch.attend, MicroBatch.send_to_experts), (MicroBatch.run_experts, MicroBatch.send_back))


def one_after_the_other(a: MicroBatch, b: MicroBatch) -> None:
    for layer in range(num_layers):
        for each in (a, b):
            for compute, send in halves:
                compute(each, layer)
                send(each, layer)
                each.receive()


def overlapped(a: MicroBatch, b: MicroBatch) -> None:
    """One computes while the tokens of the other travel. A hook runs before the next send of its kind."""
    for layer in range(num_layers):
        for compute, send in halves:
            for mine, other in ((a, b), (b, a)):
                compute(mine, layer)
                other.receive()
                send(mine, layer)
    b.receive()


def decode(step: Callable[[MicroBatch, MicroBatch], None], pair: list[MicroBatch], steps: int) -> float:
    """Returns milliseconds a step."""
    begin = time.perf_counter()
    for _ in range(steps):
        step(*pair)
        for each in pair:
            each.next_token()
    if pair[0].tokens.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) / steps * 1000


def reference(model: Model, history: list[Tensor]) -> list[Tensor]:
    """Returns the logits for the decoded tokens, computed in this process alone."""
    past = torch.zeros(num_layers, batch, hidden, dtype=torch.bfloat16, device=history[0].device)
    result = []
    for tokens in history[:-1]:
        x = model.embedding[tokens]
        for layer in range(num_layers):
            x = model.attention(layer, x, past[layer])
            rows = F.rms_norm(x, (hidden,)).expand(num_experts, -1, -1)
            made = model.experts(layer, slice(num_experts), rows).transpose(0, 1).float()
            picked = made.gather(1, model.chosen[layer, tokens].unsqueeze(2).expand(-1, -1, hidden))
            x = x + (picked * model.weights[layer, tokens].unsqueeze(2)).sum(1).bfloat16()
        result.append(model.product(F.rms_norm(x, (hidden,)), model.head))
    return result


def apart(model: Model, pair: list[MicroBatch]) -> float:
    """Returns the largest difference of logits on any rank, relative to the largest logit."""
    worst = torch.zeros(1)
    for each in pair:
        seen, expected = torch.stack(each.logits).float(), torch.stack(reference(model, each.history)).float()
        distance = (seen - expected).abs().max() / expected.abs().max()
        worst = worst.maximum(distance.nan_to_num(nan=torch.inf).cpu())  # a maximum over ranks may drop a NaN
    dist.all_reduce(worst, dist.ReduceOp.MAX)
    return worst.item()


def device_of(kind: str) -> torch.device:
    """Returns the device of this rank: the GPU with its number, or the first one if there are fewer GPUs than ranks."""
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        sys.exit("--device cuda: PyTorch sees no GPU")
    index = int(os.environ["RANK"]) if torch.cuda.device_count() >= int(os.environ["WORLD_SIZE"]) else 0
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=16, help="of a round")
    parser.add_argument("--rounds", type=int, default=7, help="that are timed; one before warms up and is checked")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29592"}.items():
        os.environ.setdefault(name, value)
    model = Model(device_of(arguments.device))
    dist.init_process_group("gloo")
    ranks = dist.get_world_size()
    memory = deep_ep.Buffer.get_low_latency_rdma_size_hint(batch, hidden, ranks, num_experts)
    buffer = deep_ep.Buffer(dist.group.WORLD, 0, memory, low_latency_mode=True, explicitly_destroy=True)
    random = torch.Generator().manual_seed(buffer.rank)
    first = torch.randint(vocabulary, (2, batch), generator=random).to(model.head.device)
    times: dict[Any, list[float]] = {one_after_the_other: [], overlapped: []}
    good = True
    for number in range(arguments.rounds + 1):
        for step, taken in times.items():
            pair = [MicroBatch(model, buffer, each) for each in first]
            dist.barrier()
            taken.append(decode(step, pair, arguments.steps))
            if number == 0:
                distance = apart(model, pair)
                good = good and distance < 0.02
                if buffer.rank == 0:
                    print(f"{step.__name__}: logits at most {distance:.1e} apart from one process's", flush=True)
    if buffer.rank == 0:
        alone, both = (statistics.median(taken[1:]) for taken in times.values())
        print(f"{ranks} ranks, 2 x {batch} tokens each: {alone:.2f} ms a step one after the other, {both:.2f} ms "
              f"overlapped: {'ok' if good else 'FAILED'}")
    del pair
    buffer.destroy()
    dist.destroy_process_group()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
