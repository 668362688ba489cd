"""Puts a page together: markup, style, scripts, numbers and the library that draws, in one file."""

from __future__ import annotations

import base64
import dataclasses
import functools
import gzip
import html
import json
from importlib import resources

from .model import Page
from .plotly_file import plotly_js

# In the order in which they are run: what others use comes first.
SCRIPTS = (
    "theme.js",
    "charts.js",
    "matrices.js",
    "experts.js",
    "phases.js",
    "predicted.js",
    "timeline.js",
    "balance.js",
    "main.js",
)


def _asset(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _packed(text: str) -> str:
    """Returns a text for a <script> that nobody runs: a third of its size, and nothing in it can end the element."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


@functools.cache  # packing takes longer than all else
def _packed_library() -> str:
    return _packed(plotly_js())


def render(page: Page, trace: str) -> str:
    """Returns the file. `trace` is what its button saves; empty: there is none."""
    parts = {
        "title": html.escape(page.title),
        "style": _asset("style.css"),
        "script": "\n".join(_asset(name) for name in SCRIPTS),
        "data": _packed(json.dumps(dataclasses.asdict(page), allow_nan=False, separators=(",", ":"))),
        "trace": _packed(trace) if trace else "",
        "plotly": _packed_library(),
    }
    pieces = _asset("page.html").split("{{")
    out = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        out += [parts[name], rest]
    return "".join(out)
