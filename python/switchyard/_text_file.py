"""Files that are complete or as they were before."""

from __future__ import annotations

import os
from pathlib import Path


def replace_text(path: str | Path, text: str) -> None:
    """Writes a file that nobody sees half written."""
    beside = Path(f"{path}.{os.getpid()}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
