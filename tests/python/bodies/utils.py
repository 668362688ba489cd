"""deep_ep.utils on either device, with a process group. Each function checks itself."""

from __future__ import annotations

import itertools
import math
from typing import Any

import deep_ep
import pytest
import reference
import torch
from deep_ep.utils import envs, refs, testing
from deep_ep.utils.math import per_token_cast_back, per_token_cast_to_fp8
from devices import close, device, here, same

experts_each, hidden, top_k, most_tokens = 3, 256, 4, 20


def make_inputs(group: Any) -> list[reference.Inputs]:
    sizes: Any = {"hidden": hidden, "experts": experts_each * group.size(), "top_k": top_k, "dtype": torch.bfloat16}
    return [reference.make_inputs(rank, tokens=(13, 0, 1)[rank % 3], **sizes) for rank in range(group.size())]


# ---- references ----


def reference_dispatch(group: Any) -> None:
    """The same rows as by plain loops, bit by bit, for each form of x."""
    inputs, rank, experts = make_inputs(group), group.rank(), experts_each * group.size()
    mine, wanted = here(inputs[rank]), reference.flat(inputs, rank, experts)
    pair = per_token_cast_to_fp8(mine.x)
    rows = list(zip(wanted.source.tolist(), wanted.source_token.tolist()))
    for x, weights in itertools.product((mine.x, pair), (mine.topk_weights, None)):
        recv_x, ids, recv_weights, numbers, counts = refs.dispatch(x, mine.topk_idx, weights, most_tokens, experts)
        back = per_token_cast_back(*recv_x) if isinstance(recv_x, tuple) else recv_x
        close(back, wanted.x, 0.0 if x is mine.x else 0.1)
        same(ids, wanted.topk_idx)
        same(numbers, (wanted.source * most_tokens + wanted.source_token).int())
        assert counts.tolist() == torch.tensor([0, *wanted.prefix]).diff().tolist() and counts.dtype == torch.int32
        if weights is None:
            assert recv_weights is None
        else:  # all of a token's weights, also those of experts of other ranks
            expected = [inputs[source].topk_weights[token] for source, token in rows]
            same(recv_weights, torch.stack(expected) if rows else torch.empty(0, top_k))
    if group.size() > 1:
        with pytest.raises(ValueError, match="num_experts: expected a multiple"):
            refs.dispatch(mine.x, mine.topk_idx, None, most_tokens, experts + 1)


def reference_combine(group: Any) -> None:
    """Sums in steps as by plain loops: the slots of a rank, then of a node, then of a token."""
    inputs, experts = make_inputs(group), experts_each * group.size()
    envs.init_seed(5)
    assert (envs.get_global_seed(), envs.get_local_seed()) == (5, 5 + group.rank())
    mine = inputs[group.rank()]
    numbers = group.rank() * most_tokens + torch.arange(len(mine.x))
    y = refs.generate_pre_combine_data(here(numbers), most_tokens, top_k, hidden)
    close(y, pre_combine_data(numbers.tolist(), group.size()), 0.01)
    y = y.masked_fill(here(mine.topk_idx < 0).unsqueeze(2), 0)
    bias = torch.randn(2, *mine.x.shape).bfloat16()
    for of_rank, of_node in ((False, False), (True, False), (True, True)):
        for added in (None, bias[0], (bias[0], bias[1])):
            groups = [experts_each] * of_rank + [experts] * of_node
            moved = tuple(map(here, added)) if isinstance(added, tuple) else added if added is None else here(added)
            seen = refs.combine(y, here(mine.topk_idx), 1, group.size(), experts, moved, of_rank, of_node)
            same(seen, summed(y.cpu(), mine.topk_idx, groups, added))
    with pytest.raises(ValueError, match="reduce_in_local"):
        refs.combine(y, here(mine.topk_idx), 1, group.size(), experts, None, False, True)


def pre_combine_data(numbers: list[int], ranks: int) -> torch.Tensor:
    most, rows = ranks * most_tokens * top_k, torch.empty(len(numbers), top_k, hidden)
    for (row, number), k, channel in itertools.product(enumerate(numbers), range(top_k), range(hidden)):
        step = ((number * top_k + k) * 131071 % most + 1) / most
        rows[row, k, channel] = math.sin(step * (channel + 1) + math.sin(5))
    return rows


def summed(y: torch.Tensor, topk_idx: torch.Tensor, groups: list[int], bias: Any) -> torch.Tensor:
    """Sums of each token, rounded after each step. The sum of a group stands in its last slot.

    Args:
        groups: for each step, how many neighbouring experts are added up.
    """
    biases = [] if bias is None else [bias] if isinstance(bias, torch.Tensor) else list(bias)
    out = torch.zeros(len(y), y.shape[2])
    for token, experts in enumerate(topk_idx.tolist()):
        rows = dict(enumerate(y[token]))  # by slot
        for size in groups:
            of_group: dict[int, list[int]] = {}
            for slot in sorted(rows):
                of_group.setdefault(experts[slot] // size, []).append(slot)
            rows = {slots[-1]: sum_of([rows[slot] for slot in slots]).bfloat16() for slots in of_group.values()}
        out[token] = sum_of([each[token] for each in biases] + [rows[slot] for slot in sorted(rows)])
    return out.bfloat16()


def sum_of(rows: list[torch.Tensor]) -> torch.Tensor:
    total = torch.zeros(rows[0].shape, dtype=torch.float32)
    for row in rows:
        total += row.float()
    return total


# ---- casts ----


def casts(group: Any) -> None:
    """Values are as near to x * 448 / peak as FP8 can be, and come back within half a step of FP8."""
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).double()
    codes = codes[~codes.isnan()]
    for tokens, channels, dtype in ((5, 256, torch.bfloat16), (3, 200, torch.float32), (0, 128, torch.bfloat16)):
        x = (torch.randn(tokens, channels) * 10.0 ** torch.randint(-6, 4, (tokens, 1))).to(dtype)
        values, scales = per_token_cast_to_fp8(here(x))
        assert values.dtype == torch.float8_e4m3fn and values.shape == x.shape and values.device == device()
        blocks = -(-channels // 128)
        assert scales.dtype == torch.float32 and scales.shape == (tokens, blocks)
        for token, block in itertools.product(range(tokens), range(blocks)):
            part = slice(block * 128, (block + 1) * 128)
            peak = max(1e-4, *(abs(value) for value in x[token, part].double().tolist()))
            assert scales[token, block].item() == pytest.approx(peak / 448, rel=3e-7)
            exact = x[token, part].double() * 448 / peak
            nearest = (codes - exact.unsqueeze(1)).abs().amin(1)
            off = (values[token, part].cpu().double() - exact).abs()
            assert (off <= nearest + 1e-5 * exact.abs()).all()
        columns = scales.T.contiguous().T  # column-major
        for given in (scales, columns):
            back = per_token_cast_back(values, given)
            assert back.dtype == torch.bfloat16
            exact = values.cpu().double() * scales.cpu().double().repeat_interleave(128, 1)[:, :channels]
            close(back, exact, 2**-8)
    exponents = torch.randint(100, 150, (4, 8), dtype=torch.uint8)
    values = torch.randn(4, 700).to(torch.float8_e4m3fn)  # 6 blocks of the 8 that two words have
    exact = values.double() * (2.0 ** (exponents.double() - 127)).repeat_interleave(128, 1)[:, :700]
    same(per_token_cast_back(here(values), here(exponents.view(torch.int32))), exact.bfloat16())


# ---- events ----


def hooks(group: Any) -> None:
    """A hook runs after the wait, once; a handle that is released is gone, and what waited for it is valid."""
    mine = here(make_inputs(group)[group.rank()])
    buffer = deep_ep.ElasticBuffer(group, 8 << 20, num_max_tokens_per_rank=most_tokens, explicitly_destroy=True)
    options: Any = {"num_experts": experts_each * group.size(), "async_with_compute_stream": True}
    _, recv_ids, _, _, event = buffer.dispatch(mine.x, mine.topk_idx, do_cpu_sync=False, **options)
    wanted = len(reference.flat(make_inputs(group), group.rank(), options["num_experts"]).topk_idx)
    seen: list[int] = []
    event.register_hook_after_wait(lambda: seen.append(int((recv_ids >= 0).any(1).sum())))
    with pytest.raises(RuntimeError, match="hook_after_wait: expected one"):
        event.register_hook_after_wait(seen.clear)
    with event(release_handle=True) as entered:
        assert entered is event and not seen
    assert seen == [wanted] and event.event is None and event.hook_after_wait is None
    buffer.destroy()


# ---- times ----


def times(group: Any) -> None:
    """Ranks measure collective calls together."""
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        torch.ones(8, device=device()).sum()

    average, least, longest = testing.bench(call, num_warmups=2, num_tests=3)
    assert len(calls) == 5 and 0 < least <= average <= longest < 5
    meetings: list[int] = []
    options: Any = {"num_tests": 3, "barrier_comm_profiling": True}
    seen = testing.bench_kineto(call, "kernel", barrier=lambda: meetings.append(1), **options)
    assert 0 < seen < 5 and len(meetings) == 3 and len(calls) == 9
    first, second = testing.bench_kineto(call, ("one", "two"), num_kernels_per_period=2, **options)
    assert first == second and len(first) == 2 and 0 < first[0] < 5
