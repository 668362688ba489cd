"""Plotly's library for browsers, which the PyPI package plotly brings along."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from .errors import ReportError


def plotly_js() -> str:
    spec = importlib.util.find_spec("plotly")
    if spec is None or not spec.submodule_search_locations:
        raise ReportError(
            "plotly: expected the Python package that draws the charts, seen none; pip install 'switchyard[report]', "
            "or plotly"
        )
    path = Path(spec.submodule_search_locations[0]) / "package_data" / "plotly.min.js"
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ReportError(
            f"plotly: expected {path} of the package, seen: {error.strerror}; pip install --force-reinstall plotly"
        ) from None
