"""The command `switchyard`: `report`, and of a wheel that brings the program along bench, info, plan, trace."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn


def main() -> NoReturn:
    """Becomes the program that lies beside this package, but for `report`, which is ours."""
    if sys.argv[1:2] == ["report"]:
        from .report import main as report

        report(sys.argv[2:])
    program = Path(__file__).parent / "bin" / "switchyard"
    if not program.exists():
        sys.exit("switchyard: this package was built without the command: `./dev wheel` builds one with it")
    os.execv(program, [str(program), *sys.argv[1:]])
