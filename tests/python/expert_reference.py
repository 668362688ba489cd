"""What plans of experts are measured by: EPLB's algorithm as its README describes it, in plain Python.

Groups go to nodes, and replicas to GPUs, the heaviest first, each to the lightest that has room. Replicas go one by one
to the expert with the most load a replica.
"""


def _pack(weights, bins):
    """The items of each bin."""
    packed = [[] for _ in range(bins)]
    sums = [0.0] * bins
    for item in sorted(range(len(weights)), key=lambda i: -weights[i]):
        free = [b for b in range(bins) if len(packed[b]) < len(weights) // bins]
        lightest = min(free, key=lambda b: sums[b])
        packed[lightest].append(item)
        sums[lightest] += weights[item]
    return packed


def replicate(load, replicas):
    """How many replicas each expert gets."""
    counts = [1] * len(load)
    for _ in range(replicas - len(load)):
        most = max(range(len(load)), key=lambda e: load[e] / counts[e])
        counts[most] += 1
    return counts


def greedy_gpu_loads(load, replicas, groups, nodes, gpus):
    """The loads of all GPUs of one layer."""
    if groups % nodes:
        groups = nodes = 1
    size = len(load) // groups
    members = [load[g * size : (g + 1) * size] for g in range(groups)]
    loads = []
    for node in _pack([sum(each) for each in members], nodes):
        local = [value for group in node for value in members[group]]
        counts = replicate(local, replicas // nodes)
        shares = [value / count for value, count in zip(local, counts) for _ in range(count)]
        loads += [sum(shares[i] for i in gpu) for gpu in _pack(shares, gpus // nodes)]
    return loads


def gpu_loads(load, physical_to_logical, gpus):
    """The loads of all GPUs of one layer that has these physical experts."""
    each = len(physical_to_logical) // gpus
    counts = [physical_to_logical.count(expert) for expert in range(len(load))]
    shares = [load[expert] / counts[expert] for expert in physical_to_logical]
    return [sum(shares[g * each : (g + 1) * each]) for g in range(gpus)]


def least_possible(load, replicas, gpus):
    """What no plan's heaviest GPU is below: the mean, and the lightest that replicas can be."""
    counts = replicate(load, replicas)
    return max(sum(load) / gpus, max(value / count for value, count in zip(load, counts)))
