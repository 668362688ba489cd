"""What ./dev compare makes of what the programs have printed: medians, ratios, shares of the raw rate, a table."""

import statistics
from math import comb

# The parts that are timed; both: one after the other, from one start.
PARTS = {"throughput": ("dispatch", "combine"), "latency": ("dispatch", "combine", "both")}
NAMES = {"mpi": "MPI", "gloo": "gloo", "switchyard": "Switchyard"}


def total_us(result):
    return sum(result[part]["median_us"] for part in PARTS["throughput"])


def raw_text(size, mode):
    if mode == "latency":
        return f"{2 * size['half_round_trip_us']:.1f} us a round trip of {size['bytes'] // 1024} KiB"
    return f"{size['both_ways_gbps']:.3f} GB/s each way"


def parts_of(whole, parts):
    """Contiguous parts, the first of which are larger by one."""
    return [whole // parts + (index < whole % parts) for index in range(parts)]


def wire_bytes(args, tokens):
    """Bytes of rows that cross the cable out of a node, in a dispatch and, the other way, in a combine: means over
    nodes and over all uniform routings. The others send a row for each rank, Switchyard one for each node."""
    per_node = args.ranks // args.nodes
    by_rank = parts_of(args.experts, args.ranks)
    by_node = [sum(by_rank[node * per_node : (node + 1) * per_node]) for node in range(args.nodes)]

    def bytes_for(groups):
        """A row for each group that has one of a token's experts; of N nodes' groups, N - 1 are across the cable."""
        choices = comb(args.experts, args.top_k)
        rows = sum(1 - comb(args.experts - experts, args.top_k) / choices for experts in groups)
        return rows * (args.nodes - 1) / args.nodes * tokens * per_node * args.hidden * 2

    return {"mpi": bytes_for(by_rank), "gloo": bytes_for(by_rank), "switchyard": bytes_for(by_node)}


def summary(args, job, rounds):
    parts = PARTS[args.mode]
    us = {side: {part: statistics.median(r[side][part]["median_us"] for r in rounds) for part in parts}
          for side in job.sides}
    ours = us.get("switchyard")
    ratio = {side: {part: us[side][part] / ours[part] for part in parts} for side in args.others} if ours else {}
    case = {"tokens": job.tokens, "setting": job.setting, "us": us, "ratio": ratio, "rounds": rounds}
    if args.nodes > 1:
        sizes = [r["raw"]["sizes"][0] for r in rounds]
        case["raw"] = {name: statistics.median(size[name] for size in sizes) for name in sizes[0]}
    if args.nodes > 1 and args.mode == "throughput":
        case["wire_bytes"] = wire_bytes(args, job.tokens)
        case["share"] = {side: {part: case["wire_bytes"][side] / us[side][part] / 1e3 / case["raw"]["both_ways_gbps"]
                                for part in parts} for side in job.sides}
    if "wire_writes_per_rank" in rounds[0].get("switchyard", {}) and args.mode == "latency":
        case["wire"] = wire_of(rounds)
        case["round_trips"] = {part: ours[part] / (2 * case["raw"]["half_round_trip_us"]) for part in parts}
    if "one_node" in rounds[0]:
        case["of_parts"] = {part: of_parts(args, case, rounds, part) for part in parts}
    return case


def wire_of(rounds):
    """What a rank has sent to other nodes in low-latency calls, as the transport counts it: medians of rounds."""
    seen = [r["switchyard"] for r in rounds]
    wire = {part: statistics.median(s["wire_bytes_per_rank"][part] for s in seen) for part in PARTS["throughput"]}
    return {**wire, "writes": statistics.median(s["wire_writes_per_rank"] for s in seen)}


def of_parts(args, case, rounds, part):
    """What a call over nodes takes, in time and in processor time, over the sum of what its parts take by themselves:
    the wire, at the raw rate, and the same call on one node. Medians of rounds, whose parts are of one time."""
    sent = case["wire_bytes"]["switchyard"]

    def ratios(seen):
        raw, one, ours = seen["raw"]["sizes"][0], seen["one_node"], seen["switchyard"]
        wire_us = sent / raw["both_ways_gbps"] / 1e3
        wire_cpu_us = sent / 1e3 * raw["both_ways_cpu_s_per_gb"] * args.nodes
        return (ours[part]["median_us"] / (wire_us + one[part]["median_us"]),
                ours["cpu_us_all_ranks"][part] / (wire_cpu_us + one["cpu_us_all_ranks"][part]))

    time, cpu = zip(*map(ratios, rounds))
    return {"time": statistics.median(time), "cpu": statistics.median(cpu)}


def headline(args, cases, cable):
    settings = ", ".join(dict.fromkeys(case["setting"] for case in cases if case["setting"]))
    mpi = f"; OpenMPI: {settings}" if settings else ""
    nodes = f" on {args.nodes} nodes, {cable}" if args.nodes > 1 else ""
    return (f"\n{args.ranks} ranks{nodes}, hidden {args.hidden}, top-{args.top_k} of {args.experts} experts, "
            f"bf16{mpi}; medians of {args.rounds} rounds")


def report(args, cases, cable=""):
    print(headline(args, cases, cable))
    sides = list(cases[0]["us"])
    shared = "share" in cases[0]
    head = [f"{NAMES[side]} us".rjust(15) for side in sides]
    head += [f"{'MPI' if side == 'mpi' else side} / ours".rjust(14) for side in cases[0]["ratio"]]
    head += [f"{NAMES[side]} of raw".rjust(19) for side in sides] if shared else []
    print(f"{'tokens':>7}  {'':10}" + "".join(head))
    for case in cases:
        for part in PARTS[args.mode]:
            row = [f"{case['us'][side][part]:15.1f}" for side in sides]
            row += [f"{ratio[part]:14.2f}" for ratio in case["ratio"].values()]
            row += [share_text(case, side, part) for side in sides] if shared else []
            print(f"{case['tokens']:7}  {part:10}" + "".join(row))
    for case in cases if args.nodes > 1 else ():
        print(wire_line(args, case))
        for part, ratio in case.get("of_parts", {}).items():
            print(f"{case['tokens']} tokens: {part} over nodes / (raw wire + {part} on one node): "
                  f"{ratio['time']:.2f} in time, {ratio['cpu']:.2f} in processor time")


def share_text(case, side, part):
    """Of the raw rate of the cable, by the rows that cross it."""
    return f"{100 * case['share'][side][part]:17.1f} %" if case["wire_bytes"][side] else " " * 18 + "-"


def crossed_text(case):
    """What low-latency calls put on the wire, and their times in round trips of a row."""
    wire, tokens = case["wire"], case["tokens"]
    trips = ", ".join(f"{part} {count:.1f}" for part, count in case["round_trips"].items())
    return (f"a rank sends {wire['dispatch'] / 1e6:.3f} MB in a dispatch, {wire['combine'] / 1e6:.3f} in a combine, "
            f"in {wire['writes']:.0f} writes\n{tokens} tokens: in raw round trips, {trips}")


def wire_line(args, case):
    raw = raw_text(case["raw"], args.mode)
    text = f"{case['tokens']} tokens: raw {raw}"
    if "wire" in case:
        text += "; " + crossed_text(case)
    if not case.get("wire_bytes") or not case["tokens"]:
        return text
    bytes_of = ", ".join(f"{NAMES[side]} {case['wire_bytes'][side] / 1e6:.1f}" for side in case["us"])
    return f"{text}; MB of rows out of a node: {bytes_of}"
