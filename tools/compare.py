#!/usr/bin/env python3
"""The same job by Switchyard and by others, alternating in one run; prints all times and the ratios.

MPI: MPI_Alltoallv, with the fastest of the settings below on this machine, found by trying. Gloo: all_to_all_single of
torch.distributed. All sides, on the CPU: bf16 dispatch and bf16 combine, uniform routing, whole calls (layout, counts,
payload), the slowest rank of each iteration, the median over iterations, then the median over rounds. `--mode latency`
is one decoding step (MPI only): few tokens, in low-latency mode, rows packed by expert. The time of the others begins
when a rank leaves the barrier, ours already when the last rank has come to it."""

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
NAMES = {"mpi": "MPI", "gloo": "gloo", "switchyard": "Switchyard"}
TOKENS = {"throughput": 4096, "latency": 128}
ITERATIONS = {"throughput": 10, "latency": 100}
TIME_LIMIT_S = 600


def numbers(text):
    return [int(part) for part in text.split(",")]


def parse_arguments():
    parser = argparse.ArgumentParser(prog="./dev compare", description=__doc__)
    parser.add_argument("others", choices=("mpi", "gloo", "mpi,gloo"), metavar="WHAT", help="mpi, gloo, or mpi,gloo")
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--mode", choices=PARTS, default="throughput")
    for name, fallback in [("ranks", 8), ("hidden", 7168), ("top-k", 8), ("experts", 256)]:
        parser.add_argument(f"--{name}", type=int, default=fallback)
    parser.add_argument("--tokens", type=numbers, help="of a rank, or several counts (0,1,16); 4096, latency: 128")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="times that each side runs")
    parser.add_argument("--iterations", type=int, help="timed iterations of a run; 10, latency or few tokens: 100")
    parser.add_argument("--setting", choices=SETTINGS, help="of OpenMPI; without it the fastest is looked for")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    args = parser.parse_args()
    args.tokens = args.tokens or [TOKENS[args.mode]]
    args.others = args.others.split(",")
    if args.mode == "latency" and "gloo" in args.others:
        parser.error("--mode latency: there is one for mpi only")
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


class Job:
    """One count of tokens."""

    def __init__(self, args, tokens):
        self.args = args
        self.tokens = tokens
        few = tokens <= 256 and args.mode == "throughput"
        self.iterations = args.iterations or (100 if few else ITERATIONS[args.mode])
        self.setting = args.setting

    def problem(self, iterations):
        args = self.args
        sizes = {"tokens": self.tokens, "hidden": args.hidden, "top-k": args.top_k, "experts": args.experts,
                 "seed": args.seed, "iterations": iterations}
        return [text for name, value in sizes.items() for text in (f"--{name}", str(value))]

    def run(self, side):
        return {"mpi": self.run_mpi, "gloo": self.run_gloo, "switchyard": self.run_switchyard}[side]()

    def run_mpi(self, setting=None, iterations=None):
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        how = SETTINGS[setting or self.setting].split()
        mpirun = ["mpirun", *root, "-n", str(self.args.ranks), *COMMON, *how]
        program = self.args.build / "bench/mpi_alltoall" / PROGRAMS[self.args.mode]
        return json.loads(run([*mpirun, program, *self.problem(iterations or self.iterations)]))

    def run_gloo(self):
        program = Path(__file__).parent.parent / "bench/python/gloo_all_to_all.py"
        size = ["--ranks", str(self.args.ranks), *self.problem(self.iterations)]
        return json.loads(run([sys.executable, program, *size]))

    def run_switchyard(self):
        program = self.args.build / "src/cli/switchyard"
        kind = ["--mode", self.args.mode, "--dtype", "bf16", "--routing", "uniform", "--check", "--engine", "cpu"]
        size = ["--ranks", str(self.args.ranks), *self.problem(self.iterations)]
        with tempfile.NamedTemporaryFile(suffix=".json") as result:
            run([program, "bench", *size, *kind, "--json", result.name])
            seen = json.loads(Path(result.name).read_text(encoding="utf-8"))
        if self.args.mode == "latency":
            seen = as_parts(seen)
        if seen["tokens"] != self.tokens:
            sys.exit(f"switchyard bench ran {seen['tokens']} tokens a rank, not {self.tokens}: ask for fewer")
        return seen

    def choose_setting(self):
        times = {}
        for setting in SETTINGS:
            times[setting] = total_us(self.run_mpi(setting, max(3, self.iterations // 5)))
            say(f"OpenMPI, {setting}: {times[setting] / 1000:.2f} ms a dispatch and combine")
        self.setting = min(times, key=times.get)

    def measure(self):
        if "mpi" in self.args.others and not self.setting:
            self.choose_setting()
        rounds = []
        for number in range(1, self.args.rounds + 1):
            rounds.append({side: self.run(side) for side in (*self.args.others, "switchyard")})
            totals = ", ".join(f"{NAMES[side]} {total_us(result) / 1000:.2f} ms" for side, result in rounds[-1].items())
            say(f"{self.tokens} tokens, round {number} of {self.args.rounds}: {totals}")
        check_same_job(rounds)
        return rounds


def as_parts(seen):
    """The one case of a latency benchmark, in the form of a throughput one."""
    case = seen["cases"][0]
    for part in PARTS["latency"]:
        seen[part] = {"median_us": case["host"][part]["p50_us"], "p99_us": case["host"][part]["p99_us"]}
    for part in PARTS["throughput"]:
        seen[part]["recv_bytes_per_rank"] = case[f"{part}_bytes_per_rank"]
    return {**seen, "tokens": case["tokens"]}


def total_us(result):
    return sum(result[part]["median_us"] for part in PARTS["throughput"])


def tokens_that_fit(args, tokens):
    """Halves the tokens until the others' arrays fit: x, result, packed rows, received rows."""
    available = next(int(line.split()[1]) * 1024 for line in open("/proc/meminfo") if line.startswith("MemAvailable"))
    copies = min(args.ranks, args.top_k) * (2 if "gloo" in args.others else 1)  # f32 terms
    while args.ranks * tokens * args.hidden * 2 * (2 + 2 * copies) > 0.8 * available and tokens > 1:
        tokens //= 2
        say(f"memory does not suffice: {tokens} tokens a rank")
    return tokens


def check_same_job(rounds):
    """Routings differ in their random stream only: the bytes received must be about the same."""
    for part in PARTS["throughput"]:
        ours = rounds[0]["switchyard"][part]["recv_bytes_per_rank"]
        for side, result in rounds[0].items():
            theirs = result[part]["recv_bytes_per_rank"]
            if theirs and abs(ours / theirs - 1) > 0.02 and ours > 1e6:
                say(f"warning: bytes received in {part} differ: {NAMES[side]} {theirs:.0f}, Switchyard {ours:.0f}")


def summary(job, rounds):
    parts = PARTS[job.args.mode]
    us = {side: {part: statistics.median(r[side][part]["median_us"] for r in rounds) for part in parts}
          for side in rounds[0]}
    ratio = {side: {part: us[side][part] / us["switchyard"][part] for part in parts} for side in job.args.others}
    return {"tokens": job.tokens, "setting": job.setting, "us": us, "ratio": ratio, "rounds": rounds}


def report(args, cases):
    settings = ", ".join(dict.fromkeys(case["setting"] for case in cases if case["setting"]))
    mpi = f"; OpenMPI: {settings}" if settings else ""
    print(f"\n{args.ranks} ranks, hidden {args.hidden}, top-{args.top_k} of {args.experts} experts, bf16{mpi}; "
          f"medians of {args.rounds} rounds")
    sides = (*args.others, "switchyard")
    print(f"{'tokens':>7}  {'':10}" + "".join(f"{NAMES[side] + ' us':>15}" for side in sides)
          + "".join(f"{'MPI' if side == 'mpi' else side} / ours".rjust(14) for side in args.others))
    for case in cases:
        for part in PARTS[args.mode]:
            times = "".join(f"{case['us'][side][part]:15.1f}" for side in sides)
            ratios = "".join(f"{case['ratio'][side][part]:14.2f}" for side in args.others)
            print(f"{case['tokens']:7}  {part:10}{times}{ratios}")


def main():
    args = parse_arguments()
    cases = []
    for tokens in args.tokens:
        job = Job(args, tokens_that_fit(args, tokens))
        cases.append(summary(job, job.measure()))
    report(args, cases)
    if args.json:
        args.json.write_text(json.dumps({"cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
