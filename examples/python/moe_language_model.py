"""Trains a small MoE language model whose experts are spread over ranks, and shows that this changes nothing.

    torchrun --nproc-per-node 4 examples/python/moe_language_model.py [--device cuda]

Each rank takes its part of every batch and holds its part of the experts. Attention, router and embeddings are
replicated, and their gradients are averaged. Rank 0 also trains the same model alone on whole batches, and compares
losses, gradients and final weights. Without torchrun there is one rank. With --device cuda each rank has a GPU of its
own, or all share the first one if there are fewer GPUs than ranks.
"""

from __future__ import annotations

import argparse
import os
import sys

import switchyard
import torch
import torch.distributed as dist

# Adam imports this module, and its functions have the default group as a default argument. Imported before there is a
# group, they keep none: the threads of gloo would outlive destroy_process_group(), and one that frees a tensor while
# Python ends aborts the process.
import torch.distributed.nn
import torch.nn.functional as F
from switchyard.torch import MoEDispatcher
from torch import Tensor, nn

vocabulary, length, width, inner, num_experts, top_k = 64, 24, 64, 96, 8, 2
batch = 8  # sequences of all ranks together


class Experts(nn.Module):
    """Some of the experts. Rows are grouped by expert."""

    def __init__(self, ids: range) -> None:
        super().__init__()
        up, down = [], []
        for expert in ids:  # each has its own seed, and so the same weights on any rank
            random = torch.Generator().manual_seed(100 + expert)
            up.append(torch.randn(width, inner, generator=random) / width**0.5)
            down.append(torch.randn(inner, width, generator=random) / inner**0.5)
        self.up, self.down = nn.Parameter(torch.stack(up)), nn.Parameter(torch.stack(down))

    def forward(self, rows: Tensor, counts: Tensor) -> Tensor:
        parts = rows.split(counts.tolist())
        return torch.cat([F.silu(part @ up) @ down for part, up, down in zip(parts, self.up, self.down)])


class Alone(nn.Module):
    """Does what MoEDispatcher does if one rank holds all experts: it sorts rows by expert."""

    def __init__(self, experts: Experts) -> None:
        super().__init__()
        self.experts = experts

    def forward(self, x: Tensor, topk_idx: Tensor, topk_weights: Tensor) -> Tensor:
        order = topk_idx.flatten().argsort(stable=True)
        counts = torch.bincount(topk_idx.flatten(), minlength=num_experts)
        outputs = self.experts(x[order // top_k], counts) * topk_weights.flatten()[order].unsqueeze(1)
        return torch.zeros_like(x).index_add(0, order // top_k, outputs)


class Model(nn.Module):
    """Embedding, one block of attention and experts, and a head."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.router = nn.Linear(width, num_experts)
        self.head = nn.Linear(width, vocabulary)
        self.layer = layer

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1], device=ids.device)
        normed = self.norms[0](x)
        x = x + self.attention(normed, normed, normed, attn_mask=mask, need_weights=False)[0]
        flat = self.norms[1](x).flatten(0, 1)
        weights, chosen = self.router(flat).softmax(1).topk(top_k)
        weights = weights / weights.sum(1, keepdim=True)
        return self.head(self.norms[2](x + self.layer(flat, chosen, weights).view_as(x)))

    def shared(self) -> list[nn.Parameter]:
        """Returns all parameters except those of experts."""
        return [each for name, each in self.named_parameters() if not name.startswith("layer.")]

    def own(self) -> list[nn.Parameter]:
        return list(self.layer.parameters())


def batches(steps: int) -> list[Tensor]:
    """Returns batches of a language in which most tokens follow from the one before.

    With this seed no token's second and third expert are nearly equal. Otherwise rounding would choose between them.
    """
    random = torch.Generator().manual_seed(32)
    result = []
    for _ in range(steps):
        rows = torch.randint(vocabulary, (batch, length + 1), generator=random)
        for t in range(1, length + 1):
            rule = (rows[:, t - 1] * 3 + 1) % vocabulary
            rows[:, t] = torch.where(torch.rand(batch, generator=random) < 0.9, rule, rows[:, t])
        result.append(rows)
    return result


def loss_of(model: Model, rows: Tensor) -> Tensor:
    return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


def average(tensors: list[Tensor], ranks: int) -> None:
    """Averages tensors over ranks in the host's memory, where gloo works."""
    for tensor in tensors:
        total = tensor.cpu()
        dist.all_reduce(total)
        tensor.copy_(total / ranks)


def values(parameters: list[nn.Parameter], of_gradients: bool) -> list[Tensor]:
    """Returns copies in the host's memory."""
    picked = [p.grad if of_gradients and p.grad is not None else p.data for p in parameters]
    return [each.to("cpu", copy=True).contiguous() for each in picked]


class Spread:
    """The model over the ranks of a job."""

    def __init__(self, communicator: switchyard.Communicator, device: torch.device) -> None:
        self.rank, self.ranks = communicator.rank, communicator.size
        each = num_experts // self.ranks
        tokens = batch // self.ranks * length
        self.buffer = switchyard.Buffer(
            communicator,
            max_tokens=tokens,
            hidden=width,
            num_experts=num_experts,
            top_k=top_k,
            engine=device.type,
            device=-1 if device.index is None else device.index,
        )
        experts = Experts(range(self.rank * each, (self.rank + 1) * each))
        self.model = Model(MoEDispatcher(self.buffer, experts)).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=3e-3, eps=1e-5)

    def step(self, rows: Tensor) -> float:
        """Makes a step; returns the loss of the batch. Gradients of experts cover the tokens of all ranks already."""
        self.optimizer.zero_grad()
        loss = loss_of(self.model, rows.chunk(self.ranks)[self.rank])
        loss.backward()
        mean = loss.detach().clone()
        average([mean, *(p.grad for p in self.model.shared() if p.grad is not None)], self.ranks)
        for parameter in self.model.own():
            if parameter.grad is not None:
                parameter.grad /= self.ranks
        self.optimizer.step()
        return mean.item()

    def gathered(self, of_gradients: bool) -> list[Tensor]:
        """Returns shared tensors, then those of the experts of all ranks together."""
        result = values(self.model.shared(), of_gradients)
        for mine in values(self.model.own(), of_gradients):
            parts = [torch.empty_like(mine) for _ in range(self.ranks)]
            dist.all_gather(parts, mine)
            result.append(torch.cat(parts))
        return result


class Single:
    """The same model in one process."""

    def __init__(self, device: torch.device) -> None:
        self.model = Model(Alone(Experts(range(num_experts)))).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=3e-3, eps=1e-5)

    def step(self, rows: Tensor) -> float:
        self.optimizer.zero_grad()
        loss = loss_of(self.model, rows)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def gathered(self, of_gradients: bool) -> list[Tensor]:
        return values(self.model.shared() + self.model.own(), of_gradients)


def difference(left: list[Tensor], right: list[Tensor]) -> float:
    """Returns the largest difference, relative to the largest value of the tensor."""
    pairs = zip(left, right, strict=True)
    return max(((a - b).abs().max() / b.abs().max().clamp(min=1e-6)).item() for a, b in pairs)


def device_of(kind: str) -> torch.device:
    """Returns the device of this rank: the GPU with its number, or the first one if there are fewer GPUs than ranks."""
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        sys.exit("--device cuda: PyTorch sees no GPU")
    ranks = int(os.environ["WORLD_SIZE"])
    index = int(os.environ["RANK"]) if torch.cuda.device_count() >= ranks else 0
    torch.cuda.set_device(index)
    torch.backends.cuda.matmul.allow_tf32 = False  # rounding to its 10 bits would hide the differences
    return torch.device("cuda", index)


class Comparison:
    """The largest distances between the two models so far. Gathering is collective; rank 0 alone compares."""

    def __init__(self, spread: Spread, single: Single | None) -> None:
        self.spread, self.single = spread, single
        self.first = self.last = self.loss = self.gradient = 0.0

    def step(self, rows: Tensor) -> str:
        self.last = self.spread.step(rows)
        self.first = self.first or self.last
        gradients = self.spread.gathered(of_gradients=True)
        if self.single is None:
            return ""
        alone = self.single.step(rows)
        apart = difference(gradients, self.single.gathered(of_gradients=True))
        self.loss, self.gradient = max(self.loss, abs(self.last - alone)), max(self.gradient, apart)
        return f"loss {self.last:.6f}  alone {alone:.6f}  gradients apart {apart:.1e}"

    def verdict(self) -> bool:
        weights = self.spread.gathered(of_gradients=False)
        if self.single is None:
            return True
        apart = difference(weights, self.single.gathered(of_gradients=False))
        good = self.loss < 1e-4 and self.gradient < 1e-2 and self.last < self.first
        print(f"{self.spread.ranks} ranks against one: losses at most {self.loss:.1e} apart, gradients "
              f"{self.gradient:.1e}, final weights {apart:.1e}")
        print(f"loss {self.first:.3f} -> {self.last:.3f}: {'ok' if good else 'FAILED'}")
        return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29591"}.items():
        os.environ.setdefault(name, value)
    device = device_of(arguments.device)
    dist.init_process_group("gloo")
    communicator = switchyard.Communicator.from_torch()
    spread = Spread(communicator, device)
    both = Comparison(spread, Single(device) if communicator.rank == 0 else None)
    for number, rows in enumerate(batches(arguments.steps)):
        line = both.step(rows.to(device))
        if line and (number % 10 == 0 or number == arguments.steps - 1):
            print(f"step {number:3d}  {line}", flush=True)
    good = both.verdict()
    spread.buffer.destroy()
    dist.destroy_process_group()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
