"""Arithmetic of tests and benchmarks: FP8 casts, comparisons, hashes, and small functions of numbers.

Tensors may lie on any device, and results lie there, too.
"""

from __future__ import annotations

from typing import Any, Iterator

import torch

_block = 128  # channels of a token that share a scale
_most_fp8 = 448.0  # the largest finite float8_e4m3fn
_least_peak = 1e-4  # scales of blocks with smaller values do not shrink further

# ---- numbers ----


def ceil_div(x: int, y: int) -> int:
    """Returns x / y, rounded up."""
    return -(-x // y)


def align(x: int, y: int) -> int:
    """Returns the least multiple of y that is not below x."""
    return ceil_div(x, y) * y


def safe_div(a: Any, b: Any) -> Any:
    """Returns a / b, and 0 for 0 / 0. Raises ZeroDivisionError for other numbers by 0."""
    return 0 if a == 0 and b == 0 else a / b


# ---- FP8 ----


def per_token_cast_to_fp8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Casts tokens to FP8 with a scale for each 128 channels: x is about values * scales.

    Args:
        x: [N, H] of a floating dtype.

    Returns:
        The values [N, H] float8_e4m3fn; the scales [N, ceil(H/128)] float32, the largest magnitude of the block / 448
        (of blocks below 1e-4: 1e-4 / 448).
    """
    blocks = _in_blocks(x)
    peaks = blocks.abs().amax(dim=2).float().clamp_min(_least_peak)
    values = (blocks * (_most_fp8 / peaks).unsqueeze(2)).to(torch.float8_e4m3fn)
    return _out_of_blocks(values, x.shape[1]), peaks / _most_fp8


def per_token_cast_back(x_fp8: torch.Tensor, x_scales: torch.Tensor) -> torch.Tensor:
    """Returns values * scales in bfloat16: the inverse of per_token_cast_to_fp8, up to rounding.

    Args:
        x_fp8: [N, H] float8_e4m3fn.
        x_scales: [N, ceil(H/128)] float32, or [N, ceil(H/512)] int32: four exponents (UE8M0) each, the first in the
            lowest byte. Any strides; the int32 also in another shape, if they are as many in that order.
    """
    if x_fp8.numel() == 0:
        return x_fp8.to(torch.bfloat16)
    blocks = _in_blocks(x_fp8.float())
    if x_scales.dtype == torch.int32:
        exponents = x_scales.reshape(-1).view(torch.uint8).reshape(len(blocks), -1)[:, : blocks.shape[1]]
        x_scales = (exponents.int() << 23).view(torch.float32)
    return _out_of_blocks((blocks * x_scales.unsqueeze(2)).to(torch.bfloat16), x_fp8.shape[1])


def _in_blocks(x: torch.Tensor) -> torch.Tensor:
    """Returns [N, ceil(H/128), 128]: x [N, H], with zeros at its end."""
    tokens, hidden = x.shape
    blocks = ceil_div(hidden, _block)
    return torch.nn.functional.pad(x, (0, blocks * _block - hidden)).reshape(tokens, blocks, _block)


def _out_of_blocks(blocks: torch.Tensor, hidden: int) -> torch.Tensor:
    return blocks.flatten(1)[:, :hidden].contiguous()


# ---- routing ----


def inplace_unique(x: torch.Tensor, num_slots: int) -> None:
    """Leaves each value of a row once, from the largest to the smallest, and then -1.

    Args:
        x: [N, K] integers. Values outside of 0..num_slots-1 become -1.
        num_slots: the number of values.
    """
    values = x.masked_fill((x < 0) | (x >= num_slots), -1).sort(dim=1, descending=True).values
    again = torch.zeros_like(values, dtype=torch.bool)
    again[:, 1:] = values[:, 1:] == values[:, :-1]
    x.copy_(values.masked_fill(again, -1).sort(dim=1, descending=True).values)


def create_grouped_scores(scores: torch.Tensor, group_idx: torch.Tensor, num_groups: int) -> torch.Tensor:
    """Returns the scores of experts of the chosen groups, and 0 for the others.

    Args:
        scores: [N, E].
        group_idx: [N, G] int64: the groups that each token chose.
        num_groups: the number of groups, each of E / num_groups neighbouring experts.
    """
    tokens, experts = scores.shape
    left_out = torch.ones(tokens, num_groups, dtype=torch.bool, device=scores.device).scatter_(1, group_idx, False)
    return scores.masked_fill(left_out.repeat_interleave(experts // num_groups, dim=1), 0)


# ---- whole tensors ----


def calc_diff(x: torch.Tensor, y: torch.Tensor) -> float:
    """Returns how far apart tensors of one shape are: 0 if they are equal.

    It is 1 - 2 (x' y') / (x' x' + y' y') in float64, where x' = x + 1 and y' = y + 1.
    """
    a, b = x.double().flatten() + 1, y.double().flatten() + 1
    return float(1 - 2 * (a * b).sum() / (a * a + b * b).sum())


def hash_tensor(t: torch.Tensor) -> int:
    """Returns the sum of the tensor's 32-bit words. The last dimension must be contiguous and whole words long."""
    return int(t.view(torch.int32).sum())


def hash_tensors(*tensors: Any) -> int:
    """Returns the hashes of all tensors, also of those in tuples and lists, combined by exclusive or."""
    value = 0
    for each in _flat(tensors):
        if isinstance(each, torch.Tensor):
            value ^= hash_tensor(each)
    return value


def count_bytes(*tensors: Any) -> int:
    """Returns the bytes of all tensors, also of those in tuples and lists. None counts as 0."""
    return sum(each.numel() * each.element_size() for each in _flat(tensors) if each is not None)


def _flat(items: Any) -> Iterator[Any]:
    for each in items:
        if isinstance(each, (tuple, list)):
            yield from _flat(each)
        else:
            yield each
