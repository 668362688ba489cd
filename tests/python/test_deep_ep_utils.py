"""deep_ep.utils: parts that need no calls between ranks, and init_dist. The others are in bodies/utils.py."""

import gc
import json
import os
import subprocess
import sys
import time
import weakref

import deep_ep
import pytest
import torch
import torch.distributed as dist
from deep_ep.utils import envs, gate, testing
from deep_ep.utils.math import (
    align,
    calc_diff,
    ceil_div,
    count_bytes,
    create_grouped_scores,
    hash_tensor,
    hash_tensors,
    inplace_unique,
    safe_div,
)
from deep_ep.utils.semantic import value_or, weak_lru
from ranks import free_port
from switchyard import interop

# ---- events ----


def test_events_wait():
    for captured in (deep_ep.Buffer.capture(), deep_ep.ElasticBuffer.capture(), deep_ep.EventHandle()):
        assert isinstance(captured.event, deep_ep.EventHandle)
        captured.current_stream_wait()
        wrapped = deep_ep.EventOverlap(captured, extra_tensors=(1,))
        assert wrapped.event is captured.event and wrapped.extra_tensors == (1,)
        with wrapped:
            pass
        wrapped.current_stream_wait()
    assert isinstance(deep_ep.Buffer.capture(), deep_ep.EventOverlap)
    assert isinstance(deep_ep.ElasticBuffer.capture(), deep_ep.EventHandle)


def test_no_event_is_no_wait():
    nothing = deep_ep.EventOverlap()
    assert nothing.event is None and deep_ep.EventOverlap(nothing).event is None
    with nothing, nothing(release_handle=True):
        pass
    with pytest.raises(RuntimeError, match="async_finish"):
        nothing.current_stream_wait()
    with pytest.raises(TypeError, match="event: expected an EventHandle or an EventOverlap, seen int"):
        deep_ep.EventOverlap(3)


def test_a_handle_is_released_only_where_asked_for():
    event = deep_ep.Buffer.capture()
    with event:
        pass
    assert event.event is not None
    with event(release_handle=True):
        pass
    assert event.event is None
    event = deep_ep.Buffer.capture()
    assert event(release_handle=True) is event and event() is event  # the last call counts
    with event:
        pass
    event.current_stream_wait()
    event.current_stream_wait(release_handle=True)
    assert event.event is None


def test_hooks_run_once_after_the_wait():
    class Wait(deep_ep.EventHandle):
        def current_stream_wait(self):
            done.append("wait")

    done = []
    event = deep_ep.EventOverlap(Wait())
    for name in ("first", "second"):
        event.register_hook_after_wait(lambda name=name: done.append((name, event.event is None)))
        event.current_stream_wait(release_handle=name == "second")
    assert done == ["wait", ("first", False), "wait", ("second", False)]


# ---- arithmetic ----


def test_small_numbers():
    for x in range(20):
        for y in (1, 3, 8):
            assert ceil_div(x, y) == len(range(0, x, y)) and align(x, y) == y * len(range(0, x, y))
    assert safe_div(3, 4) == 0.75 and safe_div(0, 0) == 0 and safe_div(0, 5) == 0
    with pytest.raises(ZeroDivisionError):
        safe_div(1, 0)


def test_unique_values_of_rows():
    for dtype in (torch.int64, torch.int32):
        x = torch.randint(-1, 5, (40, 7)).to(dtype)
        wanted = [sorted({v for v in row if v >= 0}, reverse=True) for row in x.tolist()]
        inplace_unique(x, 5)
        assert x.tolist() == [row + [-1] * (7 - len(row)) for row in wanted]
    x = torch.tensor([[4, 2, 9]])
    inplace_unique(x, 4)
    assert x.tolist() == [[2, -1, -1]]


def test_scores_of_groups():
    scores, chosen = torch.rand(9, 12), torch.rand(9, 4).topk(2).indices
    made = create_grouped_scores(scores, chosen, 4)
    for token in range(9):
        for expert in range(12):
            kept = expert // 3 in chosen[token].tolist()
            assert made[token, expert] == (scores[token, expert] if kept else 0)


def test_differences_hashes_and_sizes():
    x, y = torch.rand(3, 5), torch.rand(3, 5)
    pairs = [(a + 1, b + 1) for a, b in zip(x.double().flatten().tolist(), y.double().flatten().tolist())]
    wanted = 1 - 2 * sum(a * b for a, b in pairs) / sum(a * a + b * b for a, b in pairs)
    assert calc_diff(x, y) == pytest.approx(wanted) and calc_diff(x, x) == pytest.approx(0, abs=1e-15)
    words = torch.tensor([[1, -2], [3, 2**31 - 1]], dtype=torch.int32)
    assert hash_tensor(words) == hash_tensor(words.view(torch.bfloat16)) == 1 - 2 + 3 + 2**31 - 1
    one = torch.tensor([12], dtype=torch.int32)
    assert hash_tensors(words, None, ([one], "text")) == hash_tensor(words) ^ 12
    assert count_bytes(words, None, (one, [torch.zeros(3, dtype=torch.uint8), None])) == 16 + 4 + 3


# ---- gates ----


def received_by(topk_idx, ranks, experts_each):
    """Tokens that each rank receives."""
    chosen = [{expert // experts_each for expert in row} for row in topk_idx.tolist()]
    return [sum(rank in each for each in chosen) for rank in range(ranks)]


@pytest.mark.parametrize("ratio", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("ranks, experts_each, top_k", [(2, 4, 3), (4, 1, 2), (8, 8, 6), (8, 2, 1)])
def test_exact_gates(ranks, experts_each, top_k, ratio):
    tokens, experts = 2000, ranks * experts_each
    arguments = (tokens, experts, ranks, top_k, ratio, True)
    if -(-top_k // experts_each) > (ranks - 1) // ratio + 1:  # a token needs more ranks than the ratio allows
        with pytest.raises(ValueError, match="ratio: expected one that leaves a token 2 ranks, seen 4.0"):
            gate.get_unbalanced_scores(*arguments)
        return
    scores = gate.get_unbalanced_scores(*arguments)
    assert scores.shape == (tokens, experts) and scores.dtype == torch.float32
    assert int((scores > 0.9).sum()) == tokens * top_k
    first, *others = received_by(scores.topk(top_k).indices, ranks, experts_each)
    assert max(others) <= 1.02 * min(others)
    assert first == pytest.approx(ratio * sum(others) / len(others), rel=0.02)


@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_gates_on_average(ratio):
    scores = gate.get_unbalanced_scores(4000, 32, 8, 4, ratio, precise=False)
    first, *others = received_by(scores.topk(4).indices, 8, 4)
    assert scores.dtype == torch.float32 and first == pytest.approx(ratio * sum(others) / 7, rel=0.15)


def test_experts_follow_counts_of_ranks():
    counts = torch.tensor([[2, 0, 1], [0, 3, 0]] * 50)
    ids = gate.generate_topk_idx(counts, 100, 9, 3, 3)
    for row, wanted in zip(ids.tolist(), counts.tolist()):
        assert len(set(row)) == 3 and [sum(expert // 3 == rank for expert in row) for rank in range(3)] == wanted
    assert len(set(map(tuple, ids[::2].tolist()))) > 5  # random ones
    with pytest.raises(ValueError, match="rank_count: expected"):
        gate.generate_topk_idx(counts, 100, 9, 3, 4)
    with pytest.raises(ValueError, match="ratio: expected at least 1, seen 0.5"):
        gate.generate_rank_count(4, 8, 2, 2, 0.5)


# ---- helpers ----


def test_values_and_weak_caches():
    assert value_or(None, 3) == 3 and value_or(0, 3) == 0
    calls = []

    class Owner:
        @weak_lru(maxsize=None)
        def squared(self, x, power=2):
            """Documented."""
            calls.append(x)
            return x**power

    one, other = Owner(), Owner()
    assert [one.squared(3), one.squared(3), one.squared(3, power=3), other.squared(3)] == [9, 9, 27, 9]
    assert len(calls) == 3 and Owner.squared.__doc__ == "Documented."
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None


# ---- times ----


def test_bench_takes_the_time_of_the_calls_alone():
    after = []
    average, least, longest = testing.bench(
        lambda: time.sleep(0.01), 1, 4, post_fn=lambda: after.append(time.sleep(0.05)), flush_l2=False
    )
    assert 0.01 <= least <= average <= longest and least < 0.05 and len(after) == 4


def test_bench_kineto_returns_what_callers_unpack(tmp_path, monkeypatch, capfd):
    calls = []

    def call():
        calls.append(time.sleep(0.01))
        os.write(1, b"from C\n")
        print("from Python")

    trace = tmp_path / "trace.json"
    options = {"num_tests": 2, "suppress_kineto_output": True, "trace_path": str(trace)}
    dispatch_time, combine_time = testing.bench_kineto(call, ("dispatch", "combine"), **options)
    assert 0.01 <= dispatch_time == combine_time < 1 and len(calls) == 4
    assert "traceEvents" in json.loads(trace.read_text())
    assert capfd.readouterr().out == ""
    print("again")
    assert capfd.readouterr().out == "again\n"
    with pytest.raises(ValueError, match="kernel_names: expected a str or a tuple, seen list"):
        testing.bench_kineto(call, ["dispatch"])
    monkeypatch.setenv("EP_USE_NVIDIA_TOOLS", "1")
    assert testing.bench_kineto(call, "dispatch") == 1 and list(testing.bench_kineto(call, ("a", "b"))) == [1, 1]
    assert len(calls) == 4


# ---- process groups ----

program = """
import os, sys, torch, torch.distributed as dist
from deep_ep.utils import envs
local, count = int(sys.argv[1]), int(sys.argv[2])
rank, size, group = envs.init_dist(local, count, seed=40)
assert (dist.get_rank(), dist.get_world_size(), group.size()) == (rank, size, size) and size == 2
assert torch.get_default_dtype() == torch.bfloat16 and torch.initial_seed() == 40 + rank
total = torch.ones(3) * (rank + 1)
dist.all_reduce(total, group=group)
assert total.tolist() == [3, 3, 3]
envs.dist_print(f"everybody {rank}")
envs.dist_print(f"once {rank}", once_in_node=True)
print(dist.get_backend(), total.device.type, flush=True)
dist.destroy_process_group()
"""


def run_dist(*ranks):
    """Runs the program with (local rank, local ranks, environment) of each process, and returns their output."""
    port = str(free_port())
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(local), str(count)],
            env=os.environ | {"MASTER_PORT": port, "OMP_NUM_THREADS": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for local, count, environment in ranks
    ]
    ends = [child.communicate(timeout=100) for child in children]
    assert [child.returncode for child in children] == [0, 0], ends
    return [out.splitlines() for out, _ in ends]


def in_use(local_ranks):
    gpus = torch.cuda.device_count() if interop.has_cuda else 0
    return "nccl cuda" if gpus >= local_ranks else "gloo cuda" if gpus else "gloo cpu"


def test_ranks_of_one_machine():
    first, second = run_dist((0, 2, {}), (1, 2, {}))
    assert first == ["everybody 0", "once 0", in_use(2)] and second == ["everybody 1", in_use(2)]


def test_ranks_of_two_machines():
    if in_use(1) == "nccl cuda":
        pytest.skip("NCCL takes no two ranks on one GPU")
    ranks = [(0, 1, {"WORLD_SIZE": "2", "RANK": str(machine)}) for machine in range(2)]
    for machine, lines in enumerate(run_dist(*ranks)):
        assert lines == [f"everybody {machine}", f"once {machine}", in_use(1)]


def test_printing_needs_init_dist(monkeypatch):
    monkeypatch.setattr(envs, "_local_rank", None)
    with pytest.raises(RuntimeError, match="expected init_dist"):
        envs.dist_print("nothing")
    assert not dist.is_initialized()


def test_links_that_are_not_there():
    assert envs.get_rdma_gbs("no-such-card") == 0 and envs.check_fast_rdma_atomic_support("no-such-card") is False
    assert envs.get_nvlink_gbs() >= 0
    envs.check_nvlink_connections(None)
    envs.check_torch_deterministic()
