"""Parts of the drop-in's ElasticBuffer (V2) that need no ranks. Its calls are in bodies/elastic.py."""

import deep_ep
import pytest
import reference
import torch
from bodies.elastic import cases
from deep_ep._elastic_sizes import Routing, engine_tokens, most_rows
from deep_ep._layout import add_rows, check_stats, ends_of_experts, ends_of_ranks, rows_of_experts
from deep_ep._source import column_major


def prefix_of(inputs, rank, experts):
    return reference.flat(inputs, rank, experts).prefix


def counts_in_gpu_memory(inputs, case, rank):
    """The table that the CUDA engine keeps: by source, rows and then slots of each expert. One more column, too."""
    rows = torch.tensor(prefix_of(inputs, rank, case.experts), dtype=torch.int32)
    table = torch.full((case.ranks, 2 + -(-case.experts // case.ranks)), 77, dtype=torch.int32)
    table[:, 0] = rows.diff(prepend=torch.zeros(1, dtype=torch.int32))
    for source in range(case.ranks):
        for local, expert in enumerate(reference.experts_of(rank, case.experts, case.ranks)):
            table[source, 1 + local] = (inputs[source].topk_idx == expert).sum()
    return table


def test_sums_of_counts_in_gpu_memory():
    """The same operations on CPU tensors: they are the ones of torch that run on both."""
    for case in cases(3):
        inputs = case.inputs()
        for rank in range(case.ranks):
            table = counts_in_gpu_memory(inputs, case, rank)
            wanted = reference.expanded(inputs, rank, case.experts, 4)
            rows = rows_of_experts(table, len(wanted.counts))
            assert rows.tolist() == wanted.counts and rows.dtype == torch.int32, case
            ends = ends_of_experts(rows, 4, with_padding=False)
            assert ends.tolist() == wanted.ends and ends.dtype == torch.int32, case
            sums = ends_of_experts(rows, 4, with_padding=True)
            padded = [-(-count // 4) * 4 for count in wanted.counts]
            assert sums.tolist() == [sum(padded[: i + 1]) for i in range(len(padded))]
            assert sums.dtype == torch.int32
            of_ranks = ends_of_ranks(None, table, expanded=False)
            assert of_ranks.tolist() == prefix_of(inputs, rank, case.experts) and of_ranks.dtype == torch.int32
            assert ends_of_ranks(None, table, expanded=True) is None


def test_most_rows_hold_what_may_come():
    """Everybody sends all tokens to the experts of one rank, distinct ones; counts end just past a multiple."""
    sizes = ((2, 8, 3, 5, 4), (4, 7, 5, 3, 16), (3, 1, 1, 9, 1), (2, 2, 2, 0, 8))
    for ranks, experts, top_k, tokens, alignment in sizes:
        routing = Routing(ranks, experts, top_k, tokens)
        local = -(-experts // ranks)
        slots = ranks * tokens * min(top_k, local)
        counts = [slots // local + (1 if expert < slots % local else 0) for expert in range(local)]
        padded = sum(-(-count // alignment) * alignment for count in counts)
        assert padded <= most_rows(routing, True, alignment) <= slots + local * alignment
        assert most_rows(routing, True, alignment) % alignment == 0 or most_rows(routing, True, alignment) == 1
        assert most_rows(routing, False, alignment) == max(1, ranks * tokens)


@pytest.mark.parametrize(
    "of_call, of_buffer, most, expected",
    [
        (0, 4096, 1 << 20, 0),  # nobody says
        (7, 4096, 1 << 20, 4096),
        (4096, 4096, 1 << 20, 4096),
        (4097, 4096, 1 << 20, 8192),
        (8192, 4096, 1 << 20, 8192),
        (700, 0, 1 << 20, 1024),
        (3000001, 0, 4194303, 4194303),  # the next power of two is more than an engine takes
        (5000000, 0, 4194303, 5000000),  # which the engine refuses
    ],
)
def test_engine_tokens(of_call, of_buffer, most, expected):
    assert engine_tokens(of_call, of_buffer, most) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32])
def test_column_major_scales(dtype):
    for rows in (0, 1, 4, 7):
        scales = torch.arange(rows * 3).view(rows, 3).to(dtype)
        made = column_major(scales)
        assert torch.equal(made, scales) and made.dtype == dtype
        assert made.stride() == (1, max(4, -(-rows // 4) * 4))


def test_statistics_must_have_the_shape_of_the_counts():
    stats = torch.zeros(2, dtype=torch.int64)
    add_rows(stats, torch.tensor([1, 2], dtype=torch.int32))
    assert stats.tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"recv_stats: expected shape \[1\], seen \[2\]"):
        check_stats(stats, 1)


def test_top_level_names():
    assert {"ElasticBuffer", "EPHandle"} <= set(deep_ep.__all__)
