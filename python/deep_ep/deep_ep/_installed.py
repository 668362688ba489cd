"""No other deep_ep is hidden without a word."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path


def others() -> list[str]:
    """Where else on sys.path a package deep_ep lies."""
    ours = Path(__file__).resolve().parent
    found = (Path(entry, "deep_ep") for entry in sys.path)
    return [str(each) for each in found if (each / "__init__.py").is_file() and each.resolve() != ours]


def warn_of_others() -> None:
    hidden = others()
    if hidden:
        warnings.warn(
            f"deep_ep is Switchyard's here, and hides the one in {', '.join(hidden)}: uninstall one of the two "
            "(pip uninstall deep_ep)",
            stacklevel=3,
        )
