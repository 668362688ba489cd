"""Warns if this package hides another deep_ep, or has overwritten one."""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import Distribution
from pathlib import Path


def _ours() -> Path:
    return Path(__file__).resolve().parent


def others() -> list[str]:
    """Returns the other folders on sys.path that have a package deep_ep."""
    found = (Path(entry, "deep_ep") for entry in sys.path)
    return [str(each) for each in found if (each / "__init__.py").is_file() and each.resolve() != _ours()]


def overwritten() -> list[str]:
    """Returns distributions of other names that had installed a deep_ep where ours is.

    Pip compares only names of distributions. Such a distribution is looked for by the name of its folder: reading the
    files of all distributions would take too long.
    """
    folders = _ours().parent.glob("*[Dd]eep*[Ee][Pp]*.dist-info")
    return sorted(each.stem for each in folders if "+switchyard" not in each.stem and _has_deep_ep(each))


def _has_deep_ep(folder: Path) -> bool:
    files = Distribution.at(folder).read_text("RECORD") or ""
    return any(line.startswith("deep_ep/__init__.py,") for line in files.splitlines())


def warn_of_others() -> None:
    hidden, lost = others(), overwritten()
    if hidden:
        warnings.warn(
            f"this deep_ep is Switchyard's, and hides the one in {', '.join(hidden)}: uninstall one of the two "
            "(pip uninstall deep_ep)",
            stacklevel=3,
        )
    if lost:
        warnings.warn(
            f"this deep_ep is Switchyard's, and has overwritten the one of {', '.join(lost)}: uninstall both, then "
            "install the one you want",
            stacklevel=3,
        )
