#!/usr/bin/env python3
"""The same job by Switchyard and by MPI_Alltoallv, alternating in one run; prints both times and the ratios.

Called by `./dev compare mpi`; options follow `mpi`. Both sides: bf16 dispatch and bf16 combine, uniform routing,
whole calls (layout, counts, payload), the slowest rank of each iteration, the median over iterations, then the
median over rounds. OpenMPI runs with the fastest of the settings below on this machine, found by trying.
`--mode latency` is one decoding step: few tokens, in low-latency mode, rows packed by expert; MPI's time begins when
a rank leaves the barrier, ours already when the last rank has come to it."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

COMMON = "--oversubscribe --bind-to none --mca mpi_yield_when_idle 1 --mca btl self,vader".split()
# How OpenMPI moves large messages between processes of one machine; which is best differs by kernel.
SETTINGS = {
    "cma": "--mca btl_vader_single_copy_mechanism cma",
    "cma-pairwise": "--mca btl_vader_single_copy_mechanism cma --mca coll_tuned_use_dynamic_rules 1"
    " --mca coll_tuned_alltoallv_algorithm 2",
    "shm": "--mca btl_vader_single_copy_mechanism none",
    "shm-256k": "--mca btl_vader_single_copy_mechanism none"
    " --mca btl_vader_max_send_size 262144",
}
# The parts that are timed; both: one after the other, from one start.
PARTS = {"throughput": ("dispatch", "combine"), "latency": ("dispatch", "combine", "both")}
PROGRAMS = {"throughput": "mpi-alltoall", "latency": "mpi-step"}
TOKENS = {"throughput": 4096, "latency": 128}
ITERATIONS = {"throughput": 10, "latency": 100}
TIME_LIMIT_S = 600


def parse_arguments():
    parser = argparse.ArgumentParser(prog="./dev compare mpi", description=__doc__)
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--mode", choices=PARTS, default="throughput")
    for name, fallback in [("ranks", 8), ("hidden", 7168), ("top-k", 8), ("experts", 256)]:
        parser.add_argument(f"--{name}", type=int, default=fallback)
    parser.add_argument("--tokens", type=int, help="of a rank; 4096, latency: 128")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="times that each side runs")
    parser.add_argument("--iterations", type=int, help="timed iterations of a run; 10, latency: 100")
    parser.add_argument("--setting", choices=SETTINGS, help="of OpenMPI; without it the fastest is looked for")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    args = parser.parse_args()
    args.tokens = args.tokens or TOKENS[args.mode]
    args.iterations = args.iterations or ITERATIONS[args.mode]
    return args


def say(text):
    print(f"== {text}", file=sys.stderr, flush=True)


def run(command):
    """Runs a program and returns what it printed."""
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        timeout=TIME_LIMIT_S, check=False,
    )
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\nfailed ({result.returncode}):\n{result.stderr[-4000:]}")
    return result.stdout


def problem(args):
    names = ("tokens", "hidden", "top_k", "experts", "seed")
    return [text for name in names for text in (f"--{name.replace('_', '-')}", str(getattr(args, name)))]


def run_mpi(args, setting, iterations):
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    mpirun = ["mpirun", *root, "-n", str(args.ranks), *COMMON, *SETTINGS[setting].split()]
    program = args.build / "bench/mpi_alltoall" / PROGRAMS[args.mode]
    return json.loads(run([*mpirun, program, *problem(args), "--iterations", str(iterations)]))


def run_switchyard(args):
    program = args.build / "src/cli/switchyard"
    kind = ["--mode", args.mode, "--dtype", "bf16", "--routing", "uniform", "--check"]
    size = ["--ranks", str(args.ranks), *problem(args), "--iterations", str(args.iterations)]
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        run([program, "bench", *size, *kind, "--json", result.name])
        numbers = json.loads(Path(result.name).read_text(encoding="utf-8"))
    return numbers if args.mode == "throughput" else as_parts(numbers)


def as_parts(numbers):
    """The one case of a latency benchmark, in the form of a throughput one."""
    case = numbers["cases"][0]
    for part in PARTS["latency"]:
        numbers[part] = {"median_us": case["host"][part]["p50_us"], "p99_us": case["host"][part]["p99_us"]}
    for part in PARTS["throughput"]:
        numbers[part]["recv_bytes_per_rank"] = case[f"{part}_bytes_per_rank"]
    return {**numbers, "tokens": case["tokens"]}


def total_us(result):
    return sum(result[part]["median_us"] for part in PARTS["throughput"])


def fit_memory(args):
    """Halves the tokens until MPI's arrays fit: x, result, packed rows, received rows."""
    available = next(int(line.split()[1]) * 1024 for line in open("/proc/meminfo") if line.startswith("MemAvailable"))
    copies = min(args.ranks, args.top_k)
    while args.ranks * args.tokens * args.hidden * 2 * (2 + 2 * copies) > 0.8 * available and args.tokens > 1:
        args.tokens //= 2
        say(f"memory does not suffice: {args.tokens} tokens a rank")


def choose_setting(args):
    if args.setting:
        return args.setting
    times = {}
    for setting in SETTINGS:
        times[setting] = total_us(run_mpi(args, setting, max(3, args.iterations // 5)))
        say(f"OpenMPI, {setting}: {times[setting] / 1000:.1f} ms a dispatch and combine")
    return min(times, key=times.get)


def measure(args, setting):
    rounds = []
    for number in range(1, args.rounds + 1):
        rounds.append({"mpi": run_mpi(args, setting, args.iterations), "switchyard": run_switchyard(args)})
        mpi, ours = (total_us(rounds[-1][side]) / 1000 for side in ("mpi", "switchyard"))
        say(f"round {number} of {args.rounds}: MPI {mpi:.1f} ms, Switchyard {ours:.1f} ms")
        seen = rounds[-1]["switchyard"]["tokens"]
        if seen != args.tokens:
            sys.exit(f"switchyard bench ran {seen} tokens a rank, not {args.tokens}: ask for fewer with --tokens")
    return rounds


def medians(args, rounds, side):
    return {part: statistics.median(r[side][part]["median_us"] for r in rounds) for part in PARTS[args.mode]}


def check_same_job(rounds):
    """The routings differ in their random stream only: the bytes received must agree within 2 %."""
    for part in PARTS["throughput"]:
        mpi, ours = (rounds[0][side][part]["recv_bytes_per_rank"] for side in ("mpi", "switchyard"))
        if mpi and abs(ours / mpi - 1) > 0.02:
            say(f"warning: bytes received in {part} differ: MPI {mpi:.0f}, Switchyard {ours:.0f}")


def report(args, setting, rounds):
    mpi, ours = medians(args, rounds, "mpi"), medians(args, rounds, "switchyard")
    print(f"\n{args.ranks} ranks, {args.tokens} tokens a rank, hidden {args.hidden}, top-{args.top_k} of "
          f"{args.experts} experts, bf16; OpenMPI: {setting}; medians of {args.rounds} rounds")
    print(f"{'':10}{'MPI us':>12}{'Switchyard us':>16}{'times as fast':>16}")
    for part in PARTS[args.mode]:
        print(f"{part:10}{mpi[part]:12.0f}{ours[part]:16.0f}{mpi[part] / ours[part]:16.2f}")
    ratios = {part: mpi[part] / ours[part] for part in PARTS[args.mode]}
    if args.json:
        summary = {"mpi_us": mpi, "switchyard_us": ours, "ratio": ratios, "setting": setting, "rounds": rounds}
        args.json.write_text(json.dumps(summary, indent=1) + "\n")


def main():
    args = parse_arguments()
    fit_memory(args)
    setting = choose_setting(args)
    rounds = measure(args, setting)
    check_same_job(rounds)
    report(args, setting, rounds)


if __name__ == "__main__":
    main()
