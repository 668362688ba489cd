"""Plans of experts: switchyard.plan_experts, and eplb.rebalance_experts on top of it."""

import importlib.metadata
import inspect
import math
import random
import subprocess
import sys

import eplb
import numpy as np
import pytest
import switchyard
import torch
from expert_reference import gpu_loads, greedy_gpu_loads, least_possible

# experts, replicas, groups, nodes, gpus
shapes = {
    "hierarchical": (64, 96, 8, 4, 16),
    "global": (64, 96, 1, 4, 16),
    "groups that nodes do not divide": (60, 72, 6, 4, 12),
    "one node": (32, 40, 4, 1, 8),
    "one GPU": (7, 9, 1, 1, 1),
    "one slot a GPU": (12, 15, 1, 5, 15),
    "no spare": (48, 48, 8, 2, 6),
    "odd": (21, 35, 3, 1, 7),
}


def some_load(kind, experts, seed):
    rng = random.Random(seed)
    if kind == "uniform":
        return [100.0] * experts
    if kind == "zipf":
        load = [round(10000 / (1 + i)) + 0.0 for i in range(experts)]
        rng.shuffle(load)
        return load
    if kind == "skewed":
        return [math.exp(rng.gauss(0, 1.5)) for _ in range(experts)]
    if kind == "random":
        return [float(rng.randrange(1000)) for _ in range(experts)]
    if kind == "one-hot":
        return [1000.0 if i == experts // 2 else 0.0 for i in range(experts)]
    return [0.0] * experts


kinds = ["uniform", "zipf", "skewed", "random", "one-hot", "all zero"]


def check_maps(p2l, l2p, counts, experts, replicas):
    assert p2l.shape == (len(p2l), replicas) and l2p.shape[:2] == counts.shape == (len(p2l), experts)
    assert l2p.shape[2] == counts.max()
    for layer in range(len(p2l)):
        for expert in range(experts):
            slots = [i for i, each in enumerate(p2l[layer].tolist()) if each == expert]
            assert len(slots) == counts[layer, expert] >= 1
            assert l2p[layer, expert].tolist() == slots + [-1] * (l2p.shape[2] - len(slots))


@pytest.mark.parametrize("shape", shapes.values(), ids=shapes)
@pytest.mark.parametrize("kind", kinds)
def test_eplb_is_at_least_as_even_as_the_greedy_algorithm(shape, kind):
    experts, replicas, groups, nodes, gpus = shape
    weight = torch.tensor([some_load(kind, experts, seed) for seed in range(3)])
    p2l, l2p, counts = eplb.rebalance_experts(weight, replicas, groups, nodes, gpus)
    assert p2l.dtype == l2p.dtype == counts.dtype == torch.int64
    assert {each.device.type for each in (p2l, l2p, counts)} == {"cpu"}
    check_maps(p2l, l2p, counts, experts, replicas)
    for load, physical in zip(weight.double().tolist(), p2l.tolist()):
        most = max(gpu_loads(load, physical, gpus))
        assert most <= max(greedy_gpu_loads(load, replicas, groups, nodes, gpus)) * (1 + 1e-6)
        assert most >= least_possible(load, replicas, gpus) * (1 - 1e-6)
        if groups % nodes == 0:
            by_group = [
                {i // (replicas // nodes) for i, e in enumerate(physical) if e // (experts // groups) == g}
                for g in range(groups)
            ]
            assert all(len(each) == 1 for each in by_group)


def test_eplb_has_the_interface_of_deepseek():
    names = ["weight", "num_replicas", "num_groups", "num_nodes", "num_gpus"]
    assert list(inspect.signature(eplb.rebalance_experts).parameters) == names
    assert eplb.engine == "switchyard"
    assert importlib.metadata.packages_distributions()["eplb"] == ["deep_ep"]  # what users install for it
    # The example of EPLB's README.
    weight = torch.tensor(
        [
            [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
            [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
        ]
    )
    theirs = [
        [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
        [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
    ]
    ours, _, counts = eplb.rebalance_experts(weight, 16, 4, 2, 8)
    assert ours.shape == (2, 16) and counts.sum(1).tolist() == [16, 16]
    for load, one, other in zip(weight.double().tolist(), ours.tolist(), theirs):
        assert max(gpu_loads(load, other, 8)) == max(greedy_gpu_loads(load, 16, 4, 2, 8))  # the reference is right
        assert max(gpu_loads(load, one, 8)) <= max(gpu_loads(load, other, 8))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.bool])
def test_eplb_takes_weights_of_any_dtype(dtype):
    weight = torch.tensor([[3, 1, 0, 1], [0, 1, 1, 1]]).to(dtype)
    expected = eplb.rebalance_experts(weight.float(), 6, 1, 1, 2)
    for one, other in zip(eplb.rebalance_experts(weight, 6, 1, 1, 2), expected):
        assert torch.equal(one, other)
    grown = weight.float().requires_grad_() if dtype.is_floating_point else weight.t().contiguous().t()
    assert torch.equal(eplb.rebalance_experts(grown, 6, 1, 1, 2)[0], expected[0])


def test_eplb_ignores_groups_that_nodes_do_not_divide():
    weight = torch.arange(10.0)[None]
    # 3 groups do not divide 10 experts, and 2 nodes not 5 GPUs: DeepSeek's module asks for neither.
    one = eplb.rebalance_experts(weight, 15, 3, 2, 5)
    other = eplb.rebalance_experts(weight, 15, 1, 1, 5)
    assert all(torch.equal(a, b) for a, b in zip(one, other))


@pytest.mark.parametrize(
    "change, text",
    [
        ({"weight": torch.tensor([[1.0, 2, 3, math.nan]])}, r"weight: expected finite .* seen nan at \[0, 3\]; "),
        ({"weight": torch.tensor([[1.0, 2, 3, -1]])}, r"weight: expected finite numbers .* seen -1 at \[0, 3\]; "),
        ({"weight": torch.ones(4)}, r"weight: expected \[layers, experts\], seen \[4\]"),
        ({"num_replicas": 3}, "num_replicas: expected one for each of 4 experts at least, seen 3"),
        ({"num_replicas": 7}, "num_replicas: expected a multiple of gpus, which is 4, seen 7"),
        ({"num_gpus": 0}, "num_gpus: expected 1 to"),
        ({"num_nodes": 0}, "num_nodes: expected 1 to"),
        ({"num_groups": -2}, "num_groups: expected 1 to"),
        ({"num_gpus": 1, "num_replicas": 4}, "num_gpus: expected a multiple of nodes, which is 2, seen 1"),
        ({"num_groups": 6}, "experts: expected a multiple of groups, which is 6, seen 4"),
    ],
)
def test_eplb_refuses_with_its_own_names(change, text):
    good = {"weight": torch.ones(1, 4), "num_replicas": 8, "num_groups": 2, "num_nodes": 2, "num_gpus": 4}
    eplb.rebalance_experts(**good)
    with pytest.raises(ValueError, match="^" + text):
        eplb.rebalance_experts(**(good | change))


def test_processes_make_the_same_maps():
    program = (
        "import numpy, switchyard, hashlib\n"
        "random = numpy.random.default_rng(5)\n"
        "load, traffic = random.exponential(size=(4, 64)), random.exponential(size=(4, 4, 64))\n"
        "plan = switchyard.plan_experts(load, 96, 1, 4, 16, traffic=traffic)\n"
        "print(hashlib.sha256(plan.physical_to_logical.tobytes()).hexdigest())\n"
    )
    ranks = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({rank.communicate(timeout=60)[0] for rank in ranks}) == 1
    assert all(rank.returncode == 0 for rank in ranks)


def test_plans_are_of_the_loads_framework():
    rows = [[4.0, 3, 2, 1], [0, 0, 9, 9]]
    plans = [switchyard.plan_experts(kind(rows), 8, 1, 2, 4) for kind in (list, np.array, torch.tensor)]
    for plan in plans:
        check_maps(plan.physical_to_logical, plan.logical_to_physical, plan.replica_count, 4, 8)
        assert plan.crossing is None
        assert plan.moved.tolist() == [0, 0]
    assert [type(plan.imbalance) for plan in plans] == [np.ndarray, np.ndarray, torch.Tensor]
    assert len({str(plan.physical_to_logical.tolist()) for plan in plans}) == 1
    plans[1].physical_to_logical[0, 0] = 3  # the caller's own
    plans[2].physical_to_logical[0, 0] = 3


def test_old_maps_stay_where_they_can():
    rng = np.random.default_rng(3)
    load = rng.exponential(size=(3, 64))
    first = switchyard.plan_experts(load, 96, 1, 2, 16)
    same = switchyard.plan_experts(load, 96, 1, 2, 16, old=first.physical_to_logical)
    assert same.moved.tolist() == [0, 0, 0]
    drifted = load * rng.uniform(0.8, 1.25, size=load.shape)
    fresh = switchyard.plan_experts(drifted, 96, 1, 2, 16).physical_to_logical
    kept = switchyard.plan_experts(drifted, 96, 1, 2, 16, old=torch.from_numpy(first.physical_to_logical))
    assert kept.moved.tolist() == (kept.physical_to_logical != first.physical_to_logical).sum(1).tolist()
    assert 2 * kept.moved.sum() < (fresh != first.physical_to_logical).sum()
    loose = switchyard.plan_experts(drifted, 96, 1, 2, 16, old=first.physical_to_logical, slack=0.2)
    assert 2 * loose.moved.sum() < kept.moved.sum()
    for plan, more in ((kept, 1), (loose, 1.2)):
        for layer in range(3):
            most = max(gpu_loads(drifted[layer].tolist(), plan.physical_to_logical[layer].tolist(), 16))
            assert most <= max(greedy_gpu_loads(drifted[layer].tolist(), 96, 1, 2, 16)) * more * (1 + 1e-9)


def test_tokens_stay_on_their_nodes():
    load = np.ones((1, 8))
    traffic = np.zeros((1, 4, 8))
    for expert in range(8):
        traffic[0, 3 - expert // 2, expert] = 10
    plan = switchyard.plan_experts(load, 8, 1, 4, 4, traffic=traffic)
    assert plan.crossing.tolist() == [0] and plan.imbalance.tolist() == [1]
    assert [plan.physical_to_logical[0].tolist().index(e) // 2 for e in range(8)] == [3, 3, 2, 2, 1, 1, 0, 0]
    old = np.arange(8)[None]
    assert switchyard.plan_experts(load, 8, 1, 4, 4, old, traffic).crossing.tolist() == [80]
    moved = switchyard.plan_experts(load, 8, 1, 4, 4, old, traffic, move_cost=5)
    assert moved.crossing.tolist() == [0] and moved.moved.tolist() == [8]


@pytest.mark.parametrize(
    "change, error, text",
    [
        ({"load": [[1, 2, 3, math.inf]]}, ValueError, r"load: expected finite numbers >= 0, .* seen inf at \[0, 3\]; "),
        ({"load": [[[1]]]}, ValueError, r"load: expected \[layers, experts\], seen \[1, 1, 1\]"),
        ({"load": [[1, 2], [3]]}, ValueError, "load: expected "),
        ({"load": [["a"] * 4]}, ValueError, "load: expected real numbers, seen <U1"),
        ({"load": np.ones((1, 4), complex)}, ValueError, "load: expected real numbers, seen complex128"),
        ({"load": None}, ValueError, r"load: expected \[layers, experts\], seen \[\]"),
        ({"load": np.ones((1, 0))}, ValueError, "experts: expected 1 to"),
        ({"replicas": 8.5}, TypeError, "replicas: expected a whole number, seen 8.5"),
        ({"replicas": 2**70}, ValueError, "replicas: expected a number of this cluster, seen"),
        ({"replicas": 2**60}, ValueError, "replicas: expected 1 to"),
        ({"groups": 3}, ValueError, "experts: expected a multiple of groups, which is 3, seen 4"),
        ({"gpus": 6, "replicas": 12, "nodes": 4}, ValueError, "gpus: expected a multiple of nodes, which is 4, seen 6"),
        ({"old": [[0, 1, 2, 3]]}, ValueError, r"old: expected \[1, 8\] \(layers, replicas\), seen \[1, 4\]; "),
        ({"old": [[0, 1, 2, 4] * 2]}, ValueError, r"old: expected experts from 0 to 3, seen 4 at \[0, 3\]"),
        ({"old": [[0, 1, 2, 2] * 2]}, ValueError, "old: expected each expert in each layer, seen none of expert 3 "),
        ({"old": [[0.0, 1, 2, 3] * 2]}, ValueError, "old: expected integers, seen float64"),
        ({"traffic": [[[1.0] * 4] * 3]}, ValueError, r"traffic: expected \[1, 2 or 4, 4\] .* seen \[1, 3, 4\]"),
        ({"traffic": [[[1.0, -1, 1, 1]] * 2]}, ValueError, r"traffic: .* seen -1 at \[0, 0, 1\]; "),
        ({"traffic": [[1.0] * 4]}, ValueError, r"traffic: expected \[layers, nodes or gpus, experts\], seen \[1, 4\]"),
        ({"slack": -1}, ValueError, "slack: expected a number >= 0, seen -1"),
        ({"slack": "much"}, TypeError, "slack: expected "),
        ({"move_cost": math.nan}, ValueError, "move_cost: expected a number >= 0, seen nan"),
    ],
)
def test_wrong_arguments_are_named(change, error, text):
    good = {"load": [[1, 2, 3, 4]], "replicas": 8, "groups": 2, "nodes": 2, "gpus": 4}
    switchyard.plan_experts(**good)
    with pytest.raises(error, match="^" + text):
        switchyard.plan_experts(**(good | change))


def test_no_layers_are_an_empty_plan():
    plan = switchyard.plan_experts(np.ones((0, 4)), 8, 2, 2, 4)
    assert plan.physical_to_logical.shape == (0, 8)
    assert plan.logical_to_physical.shape == (0, 4, 0)
    assert plan.imbalance.shape == plan.moved.shape == (0,)
