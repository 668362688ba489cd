#!/usr/bin/env python3
"""Compares `switchyard plan` with published measurements, row by row, and prints the tables of docs/plan.md.

Usage: plan_validation.py --command build/release/src/cli/switchyard [--data FOLDER] [--rows FILE.csv]
                          [--least-held SHARE]

FOLDER holds deepep-v1-published.csv and trtllm-alltoall-gb200.csv, exported from the tables of
ai-dynamo/aiconfigurator (Apache-2.0), which are not part of this repository. Without it only the rows in this file
are compared. FILE gets a line for each row: what it is, whether it calibrated, what was measured and predicted. The
status is 1 when fewer than SHARE of the rows that check lie in their intervals."""

import argparse
import csv
import json
import math
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

MACHINES = {
    "NVIDIA H100": "h100",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
    "NVIDIA GB200": "gb200-nvl4",
}


@dataclass(frozen=True)
class Setup:
    """What one run of the command is asked: everything but tokens and SMs."""

    machine: str
    library: str
    mode: str
    ranks: int
    top_k: int = 8
    experts: int = 256
    dtype: str = "fp8"
    routing: str = "uniform"


@dataclass
class Row:
    group: str  # a line of the table
    use: str  # calibrates, checks, or why it is neither
    setup: Setup
    tokens: int
    sms: int
    operation: str
    measured: float
    plan: dict | None = None

    @property
    def error(self):
        return self.plan["us"] / self.measured - 1

    @property
    def held(self):
        return self.plan["low_us"] <= self.measured <= self.plan["high_us"]


# Published tables of 128 tokens a rank, hidden 7168, top-8 of 256: (what, use, machine, library, ranks, dtype, dispatch
# us, combine us).
TABLES_128 = [
    *[
        ("DeepEP's table, H800 + CX7, latency", "calibrates", "h800", "deepep", ranks, "fp8", dispatch, combine)
        for ranks, dispatch, combine in [
            (16, 118, 195),
            (32, 155, 273),
            (64, 173, 314),
            (128, 192, 369),
            (256, 194, 360),
        ]
    ],
    *[
        ("pplx's table, H100 + CX7, latency", "calibrates", "h100", "pplx", ranks, "fp8", dispatch, combine)
        for ranks, dispatch, combine in [(16, 110, 186), (32, 154, 266), (64, 188, 309)]
    ],
    ("pplx, EP8 (CX7)", "checks", "h100", "pplx", 8, "fp8", 50.5, 65.3),
    ("DeepEP's table, EP8, latency", "checks", "h100", "deepep", 8, "fp8", 37, 67),
    ("DeepEP's table, EP8, latency", "checks", "h200", "deepep", 8, "fp8", 35, 68),
    ("DeepEP's table, EP8, latency", "checks", "b200", "deepep", 8, "fp8", 33, 41),
    ("DeepEP's table, EP8, latency", "checks", "b300", "deepep", 8, "fp8", 33, 43),
    ("DeepEP's table, EP8, latency", "checks", "gb200-nvl4", "deepep", 4, "fp8", 27, 36),
    ("DeepEP's first table, EP8, H800", "checks", "h800", "deepep", 8, "fp8", 77, 114),
    ("NCCL EP, B200 + IB, as DeepEP", "checks", "b200", "deepep", 8, "bf16", 44, 44),
    ("NCCL EP, B200 + IB, as DeepEP", "checks", "b200", "deepep", 16, "bf16", 170, 200),
    ("NCCL EP, B200 + IB, as DeepEP", "checks", "b200", "deepep", 32, "bf16", 255, 285),
    ("pplx, EFA EP16", "calibrates", "p5en-efa", "pplx", 16, "fp8", 215, 242),
    ("pplx, EFA", "checks EFA", "p5en-efa", "pplx", 32, "fp8", 229, 335),
    ("pplx, EFA", "checks EFA", "p5en-efa", "pplx", 64, "fp8", 267, 391),
    ("UCCL, H200 + EFA, as pplx", "checks EFA", "p5en-efa", "pplx", 16, "fp8", 226, 293),
    ("UCCL, H200 + EFA, as pplx", "checks EFA", "p5en-efa", "pplx", 32, "fp8", 465, 694),
    ("MoRI's table, MI300X + CX7", "calibrates", "mi300x", "mori", 8, "fp8", 35, 47),
    ("MoRI's table, MI300X + CX7", "calibrates", "mi300x", "mori", 16, "fp8", 76, 122),
    ("MoRI's table, MI300X + CX7 (stale, it says)", "shown", "mi300x", "mori", 32, "fp8", 157, 280),
    *[
        ("MoRI's table, MI355X", "checks", "mi355x", "mori", ranks, "fp8", dispatch, combine)
        for ranks, dispatch, combine in [(8, 31, 36), (16, 84, 108), (32, 152, 187)]
    ],
]

# NCCL EP's table of 128 tokens of bf16, H100 + CX7: (ranks, dispatch and combine GB/s of a row for each slot).
NCCL_EP_128 = [(8, 224.3, 185.2), (16, 76.7, 73.0), (32, 53.6, 50.0), (64, 48.8, 43.8)]
# MoRI's table of 4096 tokens within a node: (machine, use, dispatch and combine GB/s of what a rank receives).
MORI_4096 = [("mi300x", "calibrates", 307, 330), ("mi355x", "checks", 345, 420)]

# DeepEP's table of 4096 tokens, H800 + CX7, 24 SMs, tokens limited to four nodes. Bandwidth counts a row for each
# node, the own one included, and hidden bytes only: 4096 x rows x bytes / rate. (ranks, dispatch and combine GB/s)
DEEPEP_4096 = [(32, 58, 57), (64, 51, 50)]
# UCCL's table of 4096 tokens on B200 + EFA (deepseek-ai/DeepEP#529), in us.
UCCL_4096 = [(16, 1141, 1965), (24, 1637, 2887), (32, 2072, 3724)]


def published_rows():
    for group, use, machine, library, ranks, dtype, *us in TABLES_128:
        setup = Setup(machine, library, "latency", ranks, dtype=dtype)
        for operation, measured in zip(("dispatch", "combine"), us, strict=True):
            yield Row(group, use, setup, 128, 0, operation, measured)
    for ranks, *rates in NCCL_EP_128:
        setup = Setup("h100", "deepep", "latency", ranks, dtype="bf16")
        for operation, rate in zip(("dispatch", "combine"), rates, strict=True):
            measured = 128 * 8 * 7168 * 2 / rate / 1e3
            yield Row("NCCL EP, H100 + CX7, as DeepEP", "checks", setup, 128, 0, operation, measured)
    for machine, use, *rates in MORI_4096:
        rows = 4096 * 8 * (1 - math.comb(224, 8) / math.comb(256, 8))  # ranks that hold one of a token's eight experts
        for operation, rate, width in zip(("dispatch", "combine"), rates, (1, 2), strict=True):
            setup = Setup(machine, "mori", "latency", 8)
            measured = rows * 7168 * width / rate / 1e3
            yield Row("MoRI's table, one node", use, setup, 4096, 0, operation, measured)
    for ranks, *rates in DEEPEP_4096:
        nodes = 4 * (1 - 0.75**8)  # of four, those that hold one of the eight experts
        setup = Setup("h800", "deepep", "throughput", ranks, routing="group-limited" if ranks == 64 else "uniform")
        for operation, rate, width in zip(("dispatch", "combine"), rates, (1, 2), strict=True):
            measured = 4096 * nodes * 7168 * width / rate / 1e3
            yield Row("DeepEP's table, H800 + CX7, throughput", "checks", setup, 4096, 24, operation, measured)
    for ranks, *us in UCCL_4096:
        setup = Setup("p6-b200-efa", "deepep", "throughput", ranks, experts=288 if ranks == 24 else 256)
        for operation, measured in zip(("dispatch", "combine"), us, strict=True):
            yield Row("UCCL, B200 + EFA, as DeepEP, throughput", "checks EFA", setup, 4096, 24, operation, measured)


def use_of_deepep(mode, nodes, sms, old):
    """What a row of SGLang's DeepEP is for, and the line of the table that it belongs to."""
    if nodes == 1 and old:
        return f"DeepEP {mode}, EP8, older SGLang", "checks"
    if nodes == 1:
        return f"DeepEP {mode}, one node", "calibrates"
    if mode == "throughput" and nodes == 2 and sms == 4:
        return "DeepEP throughput, EP16, 4 SMs", "calibrates"
    if mode == "throughput" and nodes == 8:
        return "DeepEP throughput, EP64 (untuned)", "shown"
    return f"DeepEP {mode}, EP{8 * nodes}", "checks"


def deepep_rows(path):
    for line in csv.DictReader(path.open()):
        machine = MACHINES[line["device"]]
        mode = {"normal": "throughput", "low_latency": "latency"}[line["mode"]]
        nodes, sms = int(line["nodes"]), int(line["sms"])
        group, use = use_of_deepep(mode, nodes, sms, line["source"].endswith("old"))
        routing = "group-limited" if mode == "throughput" and nodes == 8 else "uniform"
        ranks = nodes * (4 if machine == "gb200-nvl4" else 8)
        # DeepEP takes only numbers of experts that its ranks divide, so EP64 cannot have had 288.
        experts = int(line["experts"]) // ranks * ranks
        setup = Setup(machine, "deepep", mode, ranks, int(line["topk"]), experts, routing=routing)
        for operation in ("dispatch", "combine"):
            yield Row(group, use, setup, int(line["tokens"]), sms, operation, float(line[f"{operation}_us"]))


def trtllm_rows(path):
    dtypes = {"bfloat16": "bf16", "fp8": "fp8", "nvfp4": "fp4"}
    for line in csv.DictReader(path.open()):
        operation = line["op_name"].removeprefix("alltoall_")
        if operation not in ("dispatch", "combine"):
            continue
        sides = {"NVLinkOneSided": "one-sided", "NVLinkTwoSided": "two-sided"}[line["kernel_source"]]
        ranks = int(line["moe_ep_size"])
        setup = Setup(
            "gb200-nvl72", f"trtllm-{sides}", "latency", ranks, dtype=dtypes[line["moe_dtype"]], routing="balanced"
        )
        use = "calibrates" if ranks == 8 else "checks" if ranks > 8 else "shown"
        group = f"TensorRT-LLM {sides}, EP{ranks}"
        yield Row(group, use, setup, int(line["num_tokens"]), 0, operation, 1e3 * float(line["latency"]))


def run(command, setup, tokens, sms):
    """The cases of one run, by tokens and SMs."""
    options = [
        *("--machine", setup.machine, "--library", setup.library, "--mode", setup.mode, "--ranks", str(setup.ranks)),
        *("--top-k", str(setup.top_k), "--experts", str(setup.experts), "--dtype", setup.dtype),
        *("--routing", setup.routing, "--json", "-"),
        *("--tokens", ",".join(map(str, tokens)), "--sms", ",".join(map(str, sms))),
    ]
    out = subprocess.run([command, "plan", *options], capture_output=True, text=True, check=False)
    if out.returncode != 0:
        sys.exit(out.stderr)
    cases = json.loads(out.stdout)["cases"]
    asked = [(count, number) for count in tokens for number in sms]
    return dict(zip(asked, cases, strict=True))


def predict(command, rows):
    by_setup = defaultdict(list)
    for row in rows:
        by_setup[row.setup].append(row)
    for setup, mine in by_setup.items():
        tokens = sorted({row.tokens for row in mine})
        cases = run(command, setup, tokens, sorted({row.sms for row in mine}))
        for row in mine:
            row.plan = cases[row.tokens, row.sms][row.operation]


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


SUMMARY = ["number", "median error", "half within", "90 % within", "in 15 %", "in 25 %", "in interval"]


def summary(rows):
    errors = [row.error for row in rows]
    sizes = [abs(error) for error in errors]
    within = [sum(size <= most for size in sizes) / len(sizes) for most in (0.15, 0.25)]
    held = sum(row.held for row in rows) / len(rows)
    return [
        f"{len(rows)}",
        f"{100 * quantile(errors, 0.5):+.0f} %",
        f"{100 * quantile(sizes, 0.5):.0f} %",
        f"{100 * quantile(sizes, 0.9):.0f} %",
        f"{100 * within[0]:.0f} %",
        f"{100 * within[1]:.0f} %",
        f"{100 * held:.0f} %",
    ]


def print_table(head, lines):
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for line in lines:
        print("| " + " | ".join(line) + " |")
    print()


def print_groups(rows):
    groups = defaultdict(list)
    for row in rows:
        groups[row.use, row.group, row.operation].append(row)
    lines = [[group, operation, use, *summary(mine)] for (use, group, operation), mine in sorted(groups.items())]
    print_table(["rows", "of", "use", *SUMMARY], lines)


def over_network(row):
    return row.plan["nic_bytes"] > 0


def print_totals(rows):
    checks = [row for row in rows if row.use == "checks"]
    totals = {
        "InfiniBand and RoCE, rows that check": [row for row in checks if over_network(row)],
        "NVLink, rows that check": [row for row in checks if not over_network(row)],
        "EFA, rows that check": [row for row in rows if row.use == "checks EFA"],
        "InfiniBand and RoCE, with the untuned rows of EP64": [
            row for row in rows if row.use in ("checks", "shown") and over_network(row)
        ],
        "rows that calibrate": [row for row in rows if row.use == "calibrates"],
    }
    print_table(["", *SUMMARY], [[name, *summary(mine)] for name, mine in totals.items() if mine])


def print_published(rows):
    head = ["source", "machine", "ranks", "tokens", "use", "of", "published us", "predicted us", "interval", "error"]
    lines = []
    for row in rows:
        interval = f"{row.plan['low_us']:.0f} to {row.plan['high_us']:.0f}"
        what = [row.group, row.setup.machine, str(row.setup.ranks), str(row.tokens), row.use, row.operation]
        lines.append([*what, f"{row.measured:.0f}", f"{row.plan['us']:.0f}", interval, f"{100 * row.error:+.0f} %"])
    print_table(head, lines)


def write_rows(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        head = ["group", "use", "machine", "library", "mode", "ranks", "top_k", "experts", "dtype", "routing", "tokens"]
        out.writerow([*head, "sms", "operation", "measured_us", "predicted_us", "low_us", "high_us", "error"])
        for row in rows:
            what = [row.group, row.use, *vars(row.setup).values(), row.tokens, row.sms, row.operation]
            times = [row.measured, row.plan["us"], row.plan["low_us"], row.plan["high_us"], row.error]
            out.writerow([*what, *(f"{time:.4g}" for time in times)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", required=True, help="the switchyard command")
    parser.add_argument("--data", type=Path, help="folder of the published tables")
    parser.add_argument("--rows", type=Path, help="a file for the residual of every row")
    parser.add_argument("--least-held", type=float, default=0, help="share of the rows that check, in their intervals")
    options = parser.parse_args()
    published = list(published_rows())
    rows = list(published)
    if options.data:
        rows += deepep_rows(options.data / "deepep-v1-published.csv")
        rows += trtllm_rows(options.data / "trtllm-alltoall-gb200.csv")
    predict(options.command, rows)
    print_totals(rows)
    print_groups(rows)
    print_published(published)
    if options.rows:
        write_rows(options.rows, rows)
    checks = [row for row in rows if row.use.startswith("checks")]
    held = sum(row.held for row in checks) / len(checks)
    if held < options.least_held:
        sys.exit(f"rows that check, in their intervals: expected {options.least_held:.2f} or more, seen {held:.2f}")


if __name__ == "__main__":
    main()
