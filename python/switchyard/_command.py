"""The command `switchyard` of a wheel that brings it along: bench, info, plan, trace."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn


def main() -> NoReturn:
    """Becomes the program that lies beside this package."""
    program = Path(__file__).parent / "bin" / "switchyard"
    if not program.exists():
        sys.exit("switchyard: this package was built without the command: `./dev wheel` builds one with it")
    os.execv(program, [str(program), *sys.argv[1:]])
