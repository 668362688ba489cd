#!/usr/bin/env python3
"""The same job by Switchyard and by others, alternating in one run; prints all times and the ratios.

MPI: MPI_Alltoallv, with the fastest of some settings on this machine, found by trying. Gloo: all_to_all_single of
torch.distributed. All sides, on the CPU: bf16 dispatch and bf16 combine, uniform routing, whole calls (layout, counts,
payload), the slowest rank of each iteration, the median over iterations, then the median over rounds. `--mode latency`
is one decoding step (MPI only): few tokens, in low-latency mode, rows packed by expert. The time of the others begins
when a rank leaves the barrier, ours already when the last rank has come to it.

`--nodes 2`: half of the ranks on each of two nodes, which are network namespaces of this machine with a cable between
them (that takes root); `--rate 4gbit` shapes the cable, both ways. All sides use TCP over it. In the same rounds the
raw rate of the transport is taken: as many processes as ranks on each node, both ways at once. WHAT `raw` prints its
table. Where the cable is not shaped, so that processors do all the work, the same job runs on one node as well: a call
over nodes is then compared with the sum of its parts, the wire and that. WHAT `parts` is Switchyard alone, without
others."""

import argparse
import json
import re
import signal
import sys
from pathlib import Path

import two_nodes
from compare_report import NAMES, PARTS, raw_text, report, summary, total_us
from compare_sides import LOCAL_SETTINGS, NODES_SETTINGS, OneMachine, OverNodes

PROGRAMS = {"throughput": "mpi-alltoall", "latency": "mpi-step"}
TOKENS = {"throughput": 4096, "latency": 128}
ITERATIONS = {"throughput": 10, "latency": 100}
WHAT = ("mpi", "gloo", "mpi,gloo", "raw", "parts")
# Of the transport alone: writes as large as Switchyard's chunks, or, for its round trip, as a row.
RAW = {
    "throughput": ["--sizes", 256, "--megabytes", 50, "--repetitions", 3],
    "latency": ["--sizes", 16, "--megabytes", 20, "--repetitions", 3],
}


def numbers(text):
    return [int(part) for part in text.split(",")]


def rate(text):
    if text == "none":
        return None
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?[kmg]?bit", text):
        raise argparse.ArgumentTypeError(f"expected a rate such as 4gbit, or none, seen {text}")
    return text


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(prog="./dev compare", description=__doc__)
    parser.add_argument("others", choices=WHAT, metavar="WHAT", help="mpi, gloo, or mpi,gloo; with --nodes: raw, parts")
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--mode", choices=PARTS, default="throughput")
    for name, fallback in [("ranks", 8), ("hidden", 7168), ("top-k", 8), ("experts", 256)]:
        parser.add_argument(f"--{name}", type=int, default=fallback)
    parser.add_argument("--nodes", type=int, default=1, choices=(1, 2), help="1, or 2: namespaces of this machine")
    parser.add_argument("--rate", type=rate, metavar="RATE", help="of the cable between nodes (4gbit); none: as it is")
    parser.add_argument("--tokens", type=numbers,
                        help="of a rank, or several counts (0,1,16); 4096, latency: 128, --nodes 2: 0,4096")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="times that each side runs")
    parser.add_argument("--iterations", type=int, help="timed iterations of a run; 10, latency or few tokens: 100")
    parser.add_argument("--setting", choices=sorted(LOCAL_SETTINGS | NODES_SETTINGS),
                        help="of OpenMPI; without it the fastest is looked for")
    parser.add_argument("--coding", choices=("none", "logfmt10"), default="none",
                        help="--mode latency: how Switchyard's outputs travel back")
    parser.add_argument("--others-only", action="store_true", help="without Switchyard")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    args = parser.parse_args(arguments)
    if problem := contradiction(args):
        parser.error(problem)
    default = [TOKENS[args.mode]] if args.nodes == 1 or args.mode == "latency" else [0, TOKENS[args.mode]]
    args.tokens = args.tokens or default
    args.others = [] if args.others == "parts" else args.others.split(",")
    return args


def contradiction(args):
    """What is wrong with options that are right one by one; None when nothing is."""
    if args.mode == "latency" and "gloo" in args.others:
        return "--mode latency: there is one for mpi only"
    if args.nodes == 1 and (args.rate or args.others in ("raw", "parts")):
        return f"{'--rate' if args.rate else args.others}: expected --nodes 2, seen one node"
    if args.others == "parts" and args.others_only:
        return "--others-only: expected others, seen parts, which are Switchyard's"
    if args.others == "parts" and args.mode == "latency":
        return "--mode latency: there is one for mpi only"
    if args.mode != "latency" and args.coding != "none":
        return f"--coding {args.coding}: expected --mode latency, seen --mode {args.mode}"
    if args.ranks < 1 or args.ranks % args.nodes:
        return f"--ranks: expected a multiple of the {args.nodes} nodes, seen {args.ranks}"
    if args.setting and args.setting not in settings_of(args.nodes):
        return f"--setting: expected one of {', '.join(settings_of(args.nodes))}, seen {args.setting}"
    if args.rounds < 1 or (args.iterations is not None and args.iterations < 1):
        return "--rounds, --iterations: expected at least 1"
    return None


def settings_of(nodes):
    return LOCAL_SETTINGS if nodes == 1 else NODES_SETTINGS


def say(text):
    print(f"== {text}", file=sys.stderr, flush=True)


class Job:
    """One count of tokens."""

    def __init__(self, args, place, tokens):
        self.args = args
        self.place = place
        self.tokens = tokens
        few = tokens <= 256 and args.mode == "throughput"
        self.iterations = args.iterations or (100 if few else ITERATIONS[args.mode])
        self.setting = args.setting
        self.sides = (*args.others, *([] if args.others_only else ["switchyard"]))

    def problem(self, iterations):
        args = self.args
        sizes = {"tokens": self.tokens, "hidden": args.hidden, "top-k": args.top_k, "experts": args.experts,
                 "seed": args.seed, "iterations": iterations}
        return [text for name, value in sizes.items() for text in (f"--{name}", str(value))]

    def run(self, side):
        return {"mpi": self.run_mpi, "gloo": self.run_gloo, "switchyard": self.run_switchyard}[side]()

    def run_mpi(self, setting=None, iterations=None):
        program = self.args.build / "bench/mpi_alltoall" / PROGRAMS[self.args.mode]
        return self.place.mpi(program, self.problem(iterations or self.iterations), setting or self.setting)

    def run_gloo(self):
        return self.place.gloo(self.problem(self.iterations))

    def run_switchyard(self):
        seen = self.place.switchyard(self.problem(self.iterations))
        if self.args.mode == "latency":
            seen = as_parts(seen)
        return self.checked(seen)

    def checked(self, seen):
        if seen["tokens"] != self.tokens:
            sys.exit(f"switchyard bench ran {seen['tokens']} tokens a rank, not {self.tokens}: ask for fewer")
        return seen

    def run_raw(self):
        pairs = ["--pairs", self.args.ranks // self.args.nodes] if self.args.mode == "throughput" else []
        return json.loads(self.place.raw([*RAW[self.args.mode], *pairs, "--json"]))

    def wants_one_node(self):
        """Where the processors do all, what a call over nodes takes is that of one node, and the wire."""
        args = self.args
        return args.nodes > 1 and not args.rate and not args.others_only and args.mode == "throughput" and self.tokens

    def choose_setting(self):
        times = {}
        for setting in self.place.settings:
            times[setting] = total_us(self.run_mpi(setting, max(3, self.iterations // 5)))
            say(f"OpenMPI, {setting}: {times[setting] / 1000:.2f} ms a dispatch and combine")
        self.setting = min(times, key=times.get)

    def measure(self):
        if "mpi" in self.args.others and not self.setting:
            self.choose_setting()
        rounds = []
        for number in range(1, self.args.rounds + 1):
            seen = {side: self.run(side) for side in self.sides}
            totals = [f"{NAMES[side]} {total_us(result) / 1000:.2f} ms" for side, result in seen.items()]
            if self.args.nodes > 1:
                seen["raw"] = self.run_raw()
                totals.append(f"raw {raw_text(seen['raw']['sizes'][0], self.args.mode)}")
            if self.wants_one_node():
                seen["one_node"] = self.checked(self.place.one_node(self.problem(self.iterations)))
                totals.append(f"on one node {total_us(seen['one_node']) / 1000:.2f} ms")
            rounds.append(seen)
            say(f"{self.tokens} tokens, round {number} of {self.args.rounds}: {', '.join(totals)}")
        check_same_job(rounds)
        return rounds


def as_parts(seen):
    """The one case of a latency benchmark, in the form of a throughput one."""
    case = seen["cases"][0]
    for part in PARTS["latency"]:
        seen[part] = {"median_us": case["host"][part]["p50_us"], "p99_us": case["host"][part]["p99_us"]}
    for part in PARTS["throughput"]:
        seen[part]["recv_bytes_per_rank"] = case[f"{part}_bytes_per_rank"]
    wire = {name: case[name] for name in ("wire_bytes_per_rank", "wire_writes_per_rank") if name in case}
    return {**seen, **wire, "tokens": case["tokens"]}


def tokens_that_fit(args, tokens):
    """Halves the tokens until the others' arrays fit: x, result, packed rows, received rows."""
    if not args.others:
        return tokens
    available = next(int(line.split()[1]) * 1024 for line in open("/proc/meminfo") if line.startswith("MemAvailable"))
    copies = min(args.ranks, args.top_k) * (2 if "gloo" in args.others else 1)  # f32 terms
    while args.ranks * tokens * args.hidden * 2 * (2 + 2 * copies) > 0.8 * available and tokens > 1:
        tokens //= 2
        say(f"memory does not suffice: {tokens} tokens a rank")
    return tokens


def check_same_job(rounds):
    """Routings differ in their random stream only: the bytes received must be about the same."""
    sides = [side for side in rounds[0] if side in NAMES]
    for part in PARTS["throughput"]:
        first = rounds[0][sides[-1]][part]["recv_bytes_per_rank"]
        for side in sides[:-1]:
            theirs = rounds[0][side][part]["recv_bytes_per_rank"]
            if theirs and abs(first / theirs - 1) > 0.02 and first > 1e7:
                say(f"warning: bytes received in {part} differ: {NAMES[side]} {theirs:.0f}, "
                    f"{NAMES[sides[-1]]} {first:.0f}")


def compare(args, place, cable=""):
    cases = []
    for tokens in args.tokens:
        job = Job(args, place, tokens_that_fit(args, tokens))
        cases.append(summary(args, job, job.measure()))
    report(args, cases, cable)
    if args.json:
        args.json.write_text(json.dumps({"nodes": args.nodes, "cable": cable, "cases": cases}, indent=1) + "\n")


def print_raw(args, place):
    """The table of all sizes, by one process a node and by as many as the node has ranks."""
    for pairs in dict.fromkeys((1, args.ranks // args.nodes)):
        print(place.raw(["--pairs", pairs, "--megabytes", 200 / pairs, "--repetitions", 3]), flush=True)


def over_nodes(args):
    if why := two_nodes.why_not():
        sys.exit(f"compare: --nodes {args.nodes}: {why}")
    with two_nodes.TwoNodes(args.rate) as nodes:
        cable = f"a cable of {args.rate or 'no set rate'}, {nodes.congestion()}"
        place = OverNodes(args, nodes)
        if args.others == ["raw"]:
            print(f"{cable}\n")
            print_raw(args, place)
        else:
            compare(args, place, cable)


def on_signal(number, _frame):
    # So that what is under way is ended, and the namespaces with it.
    raise SystemExit(128 + number)


def main():
    args = parse_arguments()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    if args.nodes > 1:
        over_nodes(args)
    else:
        compare(args, OneMachine(args))


if __name__ == "__main__":
    main()
