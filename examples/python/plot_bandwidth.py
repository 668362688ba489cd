"""Plots bandwidth over tokens from files of `switchyard bench --json`.

    for tokens in 16 64 256 1024 4096; do ./dev bench --tokens $tokens --json run-$tokens.json; done
    python examples/python/plot_bandwidth.py run-*.json --output bandwidth.svg

Files of both modes may be mixed; there is a line for each operation, engine, dtype and number of ranks. The name of the
output says what kind of picture it is: .png, .svg, .pdf. The program needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, Iterator, NamedTuple


class Point(NamedTuple):
    line: str
    tokens: int
    gbps: float


def throughput(run: dict[str, Any]) -> Iterator[Point]:
    for operation in ("dispatch", "combine"):
        of = run[operation]
        line = f"{operation} {of['dtype']}, {run['engine']}, {run['ranks']} ranks"
        yield Point(line, run["tokens"], of["gbps_per_rank"])


def latency(run: dict[str, Any]) -> Iterator[Point]:
    """A file has a case for each number of tokens. A combine sends bf16, or codes."""
    dtypes = {"dispatch": run["dtype"], "combine": "bf16" if run["coding"] == "none" else run["coding"]}
    for case in run["cases"]:
        for operation, dtype in dtypes.items():
            line = f"low-latency {operation} {dtype}, {run['engine']}, {run['ranks']} ranks"
            yield Point(line, case["tokens"], case["host"][operation]["gbps_per_rank"])


readers = {"switchyard-bench/1": throughput, "switchyard-latency/1": latency}


def points_of(path: Path) -> Iterator[Point]:
    try:
        run = json.loads(path.read_text())
        reader = readers[run["schema"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"{path}: expected a file of switchyard bench --json, seen {error!r}")
    yield from reader(run)


def lines_of(paths: list[Path]) -> dict[str, dict[int, float]]:
    """Returns GB/s by tokens for each line. Of several equal runs the best counts."""
    lines: dict[str, dict[int, float]] = defaultdict(dict)
    for path in paths:
        for line, tokens, gbps in points_of(path):
            lines[line][tokens] = max(gbps, lines[line].get(tokens, 0.0))
    return {line: dict(sorted(lines[line].items())) for line in sorted(lines)}


def draw(lines: dict[str, dict[int, float]], output: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")  # no display
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for line, values in lines.items():
        dashes = "--" if "combine" in line else "-"
        axes.plot(list(values), list(values.values()), dashes, marker="o", markersize=4, label=line)
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("tokens a rank")
    axes.set_ylabel("GB/s a rank, received")
    ticks = sorted({tokens for values in lines.values() for tokens in values})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(output)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="JSON files")
    parser.add_argument("--output", type=Path, default=Path("bandwidth.png"))
    arguments = parser.parse_args()
    lines = lines_of(arguments.runs)
    for line, values in lines.items():
        print(f"{line}: " + "  ".join(f"{tokens}: {gbps:.2f}" for tokens, gbps in values.items()))
    try:
        draw(lines, arguments.output)
    except ImportError as error:
        sys.exit(f"drawing needs matplotlib (pip install matplotlib): {error}")
    print(f"GB/s a rank by tokens: {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
