"""Trains a small MoE language model with its experts spread over ranks, and shows that ranks change nothing.

    torchrun --nproc-per-node 4 examples/python/moe_language_model.py

Each rank takes its part of every batch and holds its part of the experts; attention, router and embeddings are
replicated, their gradients averaged. Rank 0 trains the same model alone on whole batches as well, and compares losses,
gradients and final weights. Without torchrun there is one rank.
"""

from __future__ import annotations

import argparse
import os
import sys

import switchyard
import torch
import torch.distributed as dist
import torch.nn.functional as F
from switchyard.torch import MoEDispatcher
from torch import Tensor, nn

vocabulary, length, width, inner, num_experts, top_k = 64, 24, 64, 96, 8, 2
batch = 8  # of all ranks together


class Experts(nn.Module):
    """Some experts; rows come grouped by expert."""

    def __init__(self, ids: range) -> None:
        super().__init__()
        up, down = [], []
        for expert in ids:  # by their own seeds: the same weights wherever an expert lives
            random = torch.Generator().manual_seed(100 + expert)
            up.append(torch.randn(width, inner, generator=random) / width**0.5)
            down.append(torch.randn(inner, width, generator=random) / inner**0.5)
        self.up, self.down = nn.Parameter(torch.stack(up)), nn.Parameter(torch.stack(down))

    def forward(self, rows: Tensor, counts: Tensor) -> Tensor:
        parts = rows.split(counts.tolist())
        return torch.cat([F.silu(part @ up) @ down for part, up, down in zip(parts, self.up, self.down)])


class Alone(nn.Module):
    """What MoEDispatcher does, when all experts are here: rows sorted by expert."""

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
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        normed = self.norms[0](x)
        x = x + self.attention(normed, normed, normed, attn_mask=mask, need_weights=False)[0]
        flat = self.norms[1](x).flatten(0, 1)
        weights, chosen = self.router(flat).softmax(1).topk(top_k)
        weights = weights / weights.sum(1, keepdim=True)
        return self.head(self.norms[2](x + self.layer(flat, chosen, weights).view_as(x)))

    def shared(self) -> list[nn.Parameter]:
        """All but the experts."""
        return [each for name, each in self.named_parameters() if not name.startswith("layer.")]

    def own(self) -> list[nn.Parameter]:
        return list(self.layer.parameters())


def batches(steps: int) -> list[Tensor]:
    """A language to learn: each token follows from the two before it, mostly."""
    random = torch.Generator().manual_seed(1)
    result = []
    for _ in range(steps):
        rows = torch.randint(vocabulary, (batch, length + 1), generator=random)
        for t in range(2, length + 1):
            rule = (rows[:, t - 1] * 3 + rows[:, t - 2]) % vocabulary
            rows[:, t] = torch.where(torch.rand(batch, generator=random) < 0.9, rule, rows[:, t])
        result.append(rows)
    return result


def loss_of(model: Model, rows: Tensor) -> Tensor:
    return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


def average(tensors: list[Tensor], ranks: int) -> None:
    for tensor in tensors:
        dist.all_reduce(tensor)
        tensor /= ranks


class Spread:
    """The model over the ranks of a job."""

    def __init__(self, communicator: switchyard.Communicator) -> None:
        self.rank, self.ranks = communicator.rank, communicator.size
        each = num_experts // self.ranks
        tokens = batch // self.ranks * length
        self.buffer = switchyard.Buffer(
            communicator, max_tokens=tokens, hidden=width, num_experts=num_experts, top_k=top_k, engine="cpu"
        )
        experts = Experts(range(self.rank * each, (self.rank + 1) * each))
        self.model = Model(MoEDispatcher(self.buffer, experts))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=3e-3, eps=1e-5)

    def step(self, rows: Tensor) -> float:
        """Loss of the whole batch, and gradients of it: those of experts already hold all ranks' tokens."""
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
        """Shared tensors, then those of the experts of all ranks together."""
        pick = (lambda p: p.grad) if of_gradients else (lambda p: p.data)
        result = [pick(p).clone() for p in self.model.shared()]
        for parameter in self.model.own():
            parts = [torch.empty_like(parameter) for _ in range(self.ranks)]
            dist.all_gather(parts, pick(parameter).contiguous())
            result.append(torch.cat(parts))
        return result


class Single:
    """The same model in one process."""

    def __init__(self) -> None:
        self.model = Model(Alone(Experts(range(num_experts))))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=3e-3, eps=1e-5)

    def step(self, rows: Tensor) -> float:
        self.optimizer.zero_grad()
        loss = loss_of(self.model, rows)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def gathered(self, of_gradients: bool) -> list[Tensor]:
        parameters = self.model.shared() + self.model.own()
        return [p.grad.clone() if of_gradients and p.grad is not None else p.data.clone() for p in parameters]


def difference(left: list[Tensor], right: list[Tensor]) -> float:
    """The largest, relative to the largest value of the tensor."""
    pairs = zip(left, right, strict=True)
    return max(((a - b).abs().max() / b.abs().max().clamp(min=1e-6)).item() for a, b in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29591"}.items():
        os.environ.setdefault(name, value)
    dist.init_process_group("gloo")
    communicator = switchyard.Communicator.from_torch()
    spread = Spread(communicator)
    single = Single() if communicator.rank == 0 else None
    worst_loss = worst_gradient = 0.0
    first = last = 0.0
    for number, rows in enumerate(batches(arguments.steps)):
        last = spread.step(rows)
        gradients = spread.gathered(of_gradients=True)
        first = first or last
        if single is not None:
            alone = single.step(rows)
            apart = difference(gradients, single.gathered(of_gradients=True))
            worst_loss, worst_gradient = max(worst_loss, abs(last - alone)), max(worst_gradient, apart)
            if number % 10 == 0 or number == arguments.steps - 1:
                print(f"step {number:3d}  loss {last:.6f}  alone {alone:.6f}  gradients apart {apart:.1e}", flush=True)
    weights = spread.gathered(of_gradients=False)
    good = True
    if single is not None:
        apart = difference(weights, single.gathered(of_gradients=False))
        good = worst_loss < 1e-4 and worst_gradient < 1e-2 and last < first
        print(f"{communicator.size} ranks against one: losses at most {worst_loss:.1e} apart, gradients "
              f"{worst_gradient:.1e}, final weights {apart:.1e}")
        print(f"loss {first:.3f} -> {last:.3f}: {'ok' if good else 'FAILED'}")
    spread.buffer.destroy()
    dist.destroy_process_group()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
