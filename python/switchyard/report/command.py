"""The command `switchyard report`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn, Sequence

from .._text_file import replace_text
from . import bench, plan, record, trace
from .balance import balances
from .errors import ReportError
from .files import read
from .model import Case, Measured, Page
from .page import render
from .values import Value

DESCRIPTION = """Writes one HTML page from what a benchmark (bench --json, --trace), a live job (switchyard.Recorder) or
a plan (plan --json) has written: who waits for whom, what travels between ranks, the load of experts and how they
could lie, percentiles of every phase, what was predicted, the trace as a timeline. What a file is, is seen from what is
in it."""


def make_page(paths: Sequence[str], *, title: str = "", nodes: int = 0) -> str:
    """Returns the page of these files as HTML.

    Args:
        paths: files of `switchyard bench --json` and `--trace`, of `switchyard.Recorder`, and of `plan --json`.
        title: of the page; "": the names of the files.
        nodes: to plan experts for; 0: those that the ranks ran on.

    Raises:
        ReportError: one line that names a file and a key, and says what would be right.
    """
    page = Page(title or ", ".join(Path(path).name for path in paths))
    files: dict[str, list[Value]] = {"bench": [], "record": [], "plan": [], "trace": []}
    trace_text = ""
    for path in paths:
        kind, value, text = read(path)
        files[kind].append(value)
        if kind == "trace":
            trace_text = text
    for kind in ("plan", "trace"):
        if len(files[kind]) > 1:
            raise ReportError(f"{files[kind][1].where}: expected one {kind} at most, seen {files[kind][0].where}, too")
    measured = _add_runs(page, files, nodes)
    for value in files["plan"]:
        page.facts += plan.facts(value)
        page.predicted = plan.predicted(value, measured)
    for value in files["trace"]:
        page.timeline = trace.timeline(value)
        _add_phases(page, value)
    return render(page, trace_text)


def _add_runs(page: Page, files: dict[str, list[Value]], nodes: int) -> list[Measured]:
    """Adds cases; returns the times that were measured."""
    measured: list[Measured] = []
    runs = []
    for value in files["bench"]:
        page.facts += bench.facts(value)
        for case, times, routed in bench.cases(value):
            if len(files["bench"]) > 1:
                case.name = f"{Path(value.where).name}: {case.name}"
            measured += times
            runs.append((case, routed))
    parts = [part for value in files["record"] for part in value["parts"].each()]
    if parts:
        case, facts, routed = record.case_of(parts)
        page.facts += facts
        runs.append((case, routed))
    for case, routed in runs:
        if nodes and len(case.node_by_rank) % nodes != 0:
            raise ReportError(f"--nodes: expected a number that divides {len(case.node_by_rank)} ranks, seen {nodes}")
        if routed is not None:
            case.balance = balances(routed, nodes)
        page.cases.append(case)
    return measured


def _add_phases(page: Page, value: Value) -> None:
    """A trace alone says how long phases took, too."""
    if not page.cases:
        page.cases.append(Case("the trace", [], phases=trace.phases(value)))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"switchyard report: {message}\nrun it with --help for more information", file=sys.stderr)
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="switchyard report", description=DESCRIPTION)
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file of one of these; -: standard input")
    parser.add_argument("-o", "--output", default="switchyard-report.html", help="the page (default: %(default)s)")
    parser.add_argument("--title", default="", help="of the page; default: the names of the files")
    parser.add_argument("--nodes", type=int, default=0, help="that experts are to be planned for; default: of the run")
    return parser


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command with these arguments, None: those of this process, and exits.

    The status is 0 when the page is written, 2 for what is wrong with files or options, 1 when it cannot be written.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.nodes < 0:
            raise ReportError(f"--nodes: expected 0 or more, seen {options.nodes}")
        page = make_page(options.files, title=options.title, nodes=options.nodes)
    except ReportError as error:
        print(f"switchyard report: {error}", file=sys.stderr)
        sys.exit(2)
    try:
        replace_text(options.output, page)
    except OSError as error:
        print(f"switchyard report: {options.output}: cannot be written: {error.strerror}", file=sys.stderr)
        sys.exit(1)
    print(f"switchyard report: {options.output}, {len(page) / 1e6:.1f} MB: open it in any browser", file=sys.stderr)
    sys.exit(0)
