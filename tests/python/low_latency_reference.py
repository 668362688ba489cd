"""The low-latency mode by plain loops over the inputs of all ranks. Results are compared with these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from ranks import played_nodes
from reference import Inputs, experts_of, group, make_inputs, tree_sum


@dataclass(frozen=True)
class Job:
    """Sizes, and everybody's inputs."""

    ranks: int
    max_tokens: int = 12
    hidden: int = 640
    experts: int = 8
    top_k: int = 3
    dtype: torch.dtype = torch.bfloat16
    repeats: bool = False
    """Whether some tokens have an expert in two slots, or in all."""

    def inputs(self, rank: int, step: int = 0) -> Inputs:
        # Some ranks have fewer tokens than others, or none.
        tokens = (self.max_tokens, 5, 0, 7)[(rank + step) % 4]
        made = make_inputs(
            1000 * step + rank,
            tokens=tokens,
            hidden=self.hidden,
            experts=self.experts,
            top_k=self.top_k,
            dtype=self.dtype,
        )
        if self.repeats:
            made.topk_idx[::3, -1] = made.topk_idx[::3, 0]
            made.topk_idx[1::4, :] = made.topk_idx[1::4, :1]
        return made


def power_of_two_scales(x: torch.Tensor) -> torch.Tensor:
    """[N, G]: the smallest powers of two that are at least amax / 448, by exponents: no logarithm rounds."""
    amax = x.float().unflatten(1, (-1, group)).abs().amax(2).clamp(min=1e-4)
    mantissa, exponent = torch.frexp(amax / 448)
    return torch.ldexp(torch.ones_like(amax), torch.where(mantissa == 0.5, exponent - 1, exponent))


def dequantised(rows: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    return (rows.float().unflatten(1, (-1, group)) * scales.unsqueeze(2)).flatten(1)


def scales_of_exponents(packed: torch.Tensor, groups: int) -> torch.Tensor:
    """[n, ceil(G/4)] int32, four exponents each, the first in the low byte."""
    exponents = torch.stack([(packed >> (8 * i)) & 255 for i in range(4)], 2).flatten(1)[:, :groups]
    return torch.ldexp(torch.ones(exponents.shape), exponents - 127)


def check_rows(x: torch.Tensor, rows: torch.Tensor, scales: torch.Tensor | None, rounded: bool) -> None:
    """Checks received rows of tokens x."""
    if scales is None:
        assert torch.equal(rows, x)
        return
    if scales.dtype == torch.int32:
        scales = scales_of_exponents(scales, x.shape[1] // group)
    if rounded:
        expected = power_of_two_scales(x)
        assert torch.equal(scales, expected)
        quotients = (x.float().unflatten(1, (-1, group)) / expected.unsqueeze(2)).flatten(1)
        assert torch.equal(rows.view(torch.uint8), quotients.to(torch.float8_e4m3fn).view(torch.uint8))
        return
    amax = x.float().unflatten(1, (-1, group)).abs().amax(2).clamp(min=1e-4)
    torch.testing.assert_close(scales, amax / 448, rtol=1e-6, atol=0)
    # e4m3 has three bits after the point: half of the last, and the smallest steps near zero.
    torch.testing.assert_close(dequantised(rows, scales), x.float(), rtol=2**-4, atol=float(amax.max()) / 448 * 2**-9)


def check_received(
    job: Job,
    rank: int,
    received: tuple[Any, Any, Any, Any, Any],
    *,
    step: int = 0,
    rounded: bool = False,
    missing: frozenset[int] = frozenset(),
) -> None:
    """received: (x, scales or None, counts, source tokens, ranges). `missing`: ranks that send nothing."""
    x, scales, counts, source, ranges = received
    for local, expert in enumerate(experts_of(rank, job.experts, job.ranks)):
        taken = []
        for other in range(job.ranks):
            theirs = job.inputs(other, step)
            tokens = [] if other in missing else (theirs.topk_idx == expert).nonzero()[:, 0].tolist()  # one a slot
            begin, count = int(ranges[local, other]) >> 32, int(ranges[local, other]) & 0xFFFFFFFF
            assert count == len(tokens)
            at = slice(begin, begin + count)
            taken += range(begin, begin + count)
            assert source[local, at].tolist() == tokens
            if tokens:
                check_rows(
                    theirs.x[tokens], x[local, at], None if scales is None else scales[local, at], rounded
                )
        assert sorted(taken) == list(range(int(counts[local])))


def outputs_of(rows: torch.Tensor, rank: int, job: Job) -> torch.Tensor:
    """Returns [L, n, H]: the outputs of this rank's experts for rows [L, n, H]. Each expert has a factor of its own."""
    factors = torch.tensor([1 + e / 8 for e in experts_of(rank, job.experts, job.ranks)])
    return (rows.float() * factors.view(-1, 1, 1)).to(job.dtype)


def sums(job: Job, rank: int, *, step: int = 0, missing: frozenset[int] = frozenset()) -> torch.Tensor:
    """Returns the sums of a rank's tokens if rows are not cast: in float32, in slot order, as nodes are played."""
    mine = job.inputs(rank, step)
    made = torch.zeros(mine.x.shape[0], job.hidden, dtype=job.dtype)
    owner = [r for r in range(job.ranks) for _ in experts_of(r, job.experts, job.ranks)]
    for token in range(mine.x.shape[0]):
        parts = []
        for k in range(job.top_k):
            expert = int(mine.topk_idx[token, k])
            if expert < 0 or owner[expert] in missing:
                continue
            row = (mine.x[token].float() * (1 + expert / 8)).to(job.dtype)
            parts.append((owner[expert], mine.topk_weights[token, k] * row.float()))
        if parts:
            made[token] = tree_sum(parts, played_nodes(job.ranks), rank, job.dtype)
    return made
