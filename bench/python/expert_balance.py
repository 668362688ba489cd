"""Prints how even plans of experts are, what they move when loads drift, and what crosses between nodes.

The shape is DeepSeek-V3's: 61 layers, 256 experts, 320 physical ones. With --deepseek FILE, the eplb.py of
https://github.com/deepseek-ai/EPLB, the same of DeepSeek's maps.
"""

import argparse
import importlib.util
import math
import time

import numpy as np
import switchyard
import torch

layers, experts, replicas = 61, 256, 320
clusters = [(32, 4, 8), (32, 4, 1), (64, 8, 8), (64, 8, 1)]  # GPUs, nodes, groups


def loads(kind, rng):
    if kind == "uniform":
        load = rng.uniform(0.5, 1, (layers, experts))
    elif kind == "zipf":
        load = 1 / np.stack([rng.permutation(experts) + 1 for _ in range(layers)])
    else:
        load = rng.lognormal(0, 1, (layers, experts))
    return np.floor(1e5 * load)


def timed(function, *args, **options):
    """What the function returns, and the least of 3 times in ms."""
    best = math.inf
    for _ in range(3):
        begin = time.perf_counter()
        result = function(*args, **options)
        best = min(best, time.perf_counter() - begin)
    return result, best * 1e3


def imbalance(load, maps, gpus):
    counts = np.stack([np.bincount(each, minlength=experts) for each in maps])
    sums = np.take_along_axis(load / counts, maps, 1).reshape(layers, gpus, -1).sum(2)
    return (sums.max(1) / sums.mean(1)).mean()


def moved(new, old, gpus):
    """Physical experts that move, if those that stay on their GPU may keep their slots, as vLLM has it."""
    count = 0
    for before, after in zip(old.reshape(-1, replicas // gpus), new.reshape(-1, replicas // gpus)):
        left = after.tolist()
        for expert in before.tolist():
            if expert in left:
                left.remove(expert)
        count += len(left)
    return count / layers


def deepseek_maps(path):
    """DeepSeek's function of a load and a cluster."""
    spec = importlib.util.spec_from_file_location("deepseek_eplb", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def maps(load, gpus, nodes, groups):
        return module.rebalance_experts(torch.from_numpy(load), replicas, groups, nodes, gpus)[0].numpy()

    return maps


def compare(kind, cluster, deepseek):
    gpus, nodes, groups = cluster
    rng = np.random.default_rng(1)
    load = loads(kind, rng)
    drifted = np.floor(load * rng.lognormal(0, 0.1, load.shape))
    shares = rng.exponential(size=(layers, nodes, experts))
    tokens = load[:, None] * shares / shares.sum(1, keepdims=True)

    def plan(values, **options):
        return timed(switchyard.plan_experts, values, replicas, groups, nodes, gpus, **options)

    def crossing(maps):
        return plan(load, old=maps, slack=math.inf, traffic=tokens)[0].crossing.sum() / tokens.sum()

    print(f"{gpus} GPUs, {nodes} nodes, {groups} groups, {kind}")
    if deepseek:
        maps, ms = timed(deepseek, load, gpus, nodes, groups)
        after = deepseek(drifted, gpus, nodes, groups)
        print(f"  DeepSeek         {imbalance(load, maps, gpus):.4f} {ms:7.1f} ms  crossing {crossing(maps):.3f}")
        print(f"  DeepSeek, drift  {imbalance(drifted, after, gpus):.4f}  moved {moved(after, maps, gpus):.1f}")
    ours, ms = plan(load)
    maps = ours.physical_to_logical
    print(f"  load             {imbalance(load, maps, gpus):.4f} {ms:7.1f} ms  crossing {crossing(maps):.3f}")
    local, ms = plan(load, traffic=tokens)
    share = local.crossing.sum() / tokens.sum()
    print(f"  traffic          {local.imbalance.mean():.4f} {ms:7.1f} ms  crossing {share:.3f}")
    for slack in (0, 0.02, 0.05):
        kept, ms = plan(drifted, old=maps, slack=slack)
        print(f"  drift, {slack:4.2f}      {kept.imbalance.mean():.4f} {ms:7.1f} ms  moved {kept.moved.mean():.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deepseek", metavar="FILE", help="the eplb.py of DeepSeek's EPLB")
    given = parser.parse_args()
    torch.set_num_threads(1)
    deepseek = deepseek_maps(given.deepseek) if given.deepseek else None
    for cluster in clusters:
        for kind in ("uniform", "zipf", "lognormal"):
            compare(kind, cluster, deepseek)


if __name__ == "__main__":
    main()
