"""No other deep_ep is hidden, or overwritten, without a word."""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import Distribution
from pathlib import Path


def _ours() -> Path:
    return Path(__file__).resolve().parent


def others() -> list[str]:
    """Where else on sys.path a package deep_ep lies."""
    found = (Path(entry, "deep_ep") for entry in sys.path)
    return [str(each) for each in found if (each / "__init__.py").is_file() and each.resolve() != _ours()]


def overwritten() -> list[str]:
    """Distributions of other names that had put a deep_ep where ours lies.

    Pip looks at names of distributions only. By its name the folder of such a one is found: to read what all have
    installed would take long.
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
            f"deep_ep is Switchyard's here, and hides the one in {', '.join(hidden)}: uninstall one of the two "
            "(pip uninstall deep_ep)",
            stacklevel=3,
        )
    if lost:
        warnings.warn(
            f"deep_ep is Switchyard's here, and has overwritten the one of {', '.join(lost)}: uninstall both, then "
            "install the one that is wanted",
            stacklevel=3,
        )
